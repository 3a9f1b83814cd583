/// Scaled dot-product attention on padded batches and on packed sequences.

import CAttnKernels

/// out = softmax(scale * query · keyᵀ + ...) · value, fused. Formula, options and edge rows as in `swiftattn.h`.
///
/// - Parameters:
///   - query: (..., Hq, Tq, D), rank 2 to 8; rank 2 lacks the heads.
///   - key: (..., Hkv, Tk, D); Hkv divides Hq.
///   - value: (..., Hkv, Tk, Dv).
///   - out: (..., Hq, Tq, Dv), written.
///   - lse: (..., Hq, Tq) float32 (float64 for float64 inputs), written: the logarithm of the softmax's denominator.
///   - weights: (..., Hq, Tq, Tk) float32 or the query's dtype, written: see `AttentionOptions.weightsStage`.
/// - Throws: `Failure` for whatever does not fit; the outputs are then untouched.
public func scaledDotProductAttention(query: Tensor, key: Tensor, value: Tensor,
                                      options: AttentionOptions = AttentionOptions(),
                                      out: Tensor, lse: Tensor? = nil, weights: Tensor? = nil) throws(Failure) {
    try Library.requireKernels()
    try AttentionProblem(query: query, key: key, value: value, options: options, out: out, lse: lse, weights: weights).run()
}

/// Attention over sequences packed without padding; the offsets say where each begins.
///
/// - Parameters:
///   - query: (total_q, Hq, D).
///   - key: (total_k, Hkv, D).
///   - value: (total_k, Hkv, Dv).
///   - cumulativeQueries: (B + 1,) int32 or int64, from 0 to total_q.
///   - cumulativeKeys: (B + 1,) likewise, to total_k.
///   - options: without mask and lengths. Query 0 stands at kv_length - q_length unless `.upperLeft` or an offset is given.
///   - out: (total_q, Hq, Dv), written.
///   - lse: (Hq, total_q), written.
public func attentionVarlen(query: Tensor, key: Tensor, value: Tensor,
                            cumulativeQueries: Tensor, cumulativeKeys: Tensor,
                            options: AttentionOptions = AttentionOptions(),
                            out: Tensor, lse: Tensor? = nil) throws(Failure) {
    try Library.requireKernels()
    try AttentionProblem(query: query, key: key, value: value, cumulativeQueries: cumulativeQueries,
                         cumulativeKeys: cumulativeKeys, options: options, out: out, lse: lse).run()
}

extension AttentionProblem {
    consuming func run() throws(Failure) {
        var problem = consume self
        if problem.isEmpty { return }
        let plan = AttentionPlan(&problem)
        let done = withUnsafePointer(to: plan.description) { plan in
            problem.withDescription { attn_forward($0, plan) }
        }
        guard done else { throw Failure.outOfMemory }
    }
}
