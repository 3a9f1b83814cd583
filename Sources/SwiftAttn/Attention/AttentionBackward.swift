/// The gradients of scaled dot-product attention, on padded batches and on packed sequences.

import CAttnKernels

/// The gradients of `scaledDotProductAttention` with respect to its inputs, from its result. Formula and edge rows as in
/// `swiftattn.h`.
///
/// - Parameters:
///   - outGradient: (..., Hq, Tq, Dv), the loss's gradient with respect to out.
///   - query, key, value, options: as in the forward.
///   - out: (..., Hq, Tq, Dv), what the forward wrote.
///   - lse: (..., Hq, Tq), likewise.
///   - dq, dk, dv: as query, key and value, written; nil: not wanted. Of an input that is broadcast, the sum over the batch.
///   - dBias: as the float mask, written: summed over the dims that the mask is broadcast over.
///   - dSinks: as the sinks, written.
/// - Throws: `Failure` for whatever does not fit; the outputs are then untouched.
public func scaledDotProductAttentionBackward(outGradient: Tensor, query: Tensor, key: Tensor, value: Tensor,
                                              out: Tensor, lse: Tensor, options: AttentionOptions = AttentionOptions(),
                                              dq: Tensor?, dk: Tensor?, dv: Tensor?, dBias: Tensor? = nil,
                                              dSinks: Tensor? = nil) throws(Failure) {
    try Library.requireKernels()
    let gradients = AttentionGradients(outGradient: outGradient, dq: dq, dk: dk, dv: dv, dBias: dBias, dSinks: dSinks)
    try run(AttentionProblem(query: query, key: key, value: value, options: options, out: out, lse: lse, weights: nil,
                             gradients: gradients))
}

/// The gradients of `attentionVarlen`: shapes as there, the rest as in `scaledDotProductAttentionBackward`.
public func attentionVarlenBackward(outGradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
                                    cumulativeQueries: Tensor, cumulativeKeys: Tensor,
                                    options: AttentionOptions = AttentionOptions(),
                                    dq: Tensor?, dk: Tensor?, dv: Tensor?, dSinks: Tensor? = nil) throws(Failure) {
    try Library.requireKernels()
    let gradients = AttentionGradients(outGradient: outGradient, dq: dq, dk: dk, dv: dv, dSinks: dSinks)
    try run(AttentionProblem(query: query, key: key, value: value, cumulativeQueries: cumulativeQueries,
                             cumulativeKeys: cumulativeKeys, options: options, out: out, lse: lse, gradients: gradients))
}

private func run(_ checked: AttentionProblem) throws(Failure) {
    var problem = checked
    let gradients = problem.backward!
    let heads = Int(problem.description.q_heads)
    var sinkSums = [Double](repeating: 0, count: gradients.dSinks == nil ? 0 : heads)
    let plan = AttentionBackwardPlan(&problem, gradients)
    let done = sinkSums.withUnsafeMutableBufferPointer { sums in
        problem.withDescription { forward in
            gradients.withDescription(forward, sinkSums: gradients.dSinks == nil ? nil : sums.baseAddress) { backward in
                withUnsafePointer(to: plan.description) { attn_backward_run(backward, $0) }
            }
        }
    }
    guard done else { throw Failure.outOfMemory }
    try gradients.finish(sinkSums: sinkSums)
}
