/// The gradient of softmax.

import CAttnKernels

/// dx = y (gradOut - Σ y gradOut) along `axis`.
///
/// - Parameters:
///   - gradOut: as y.
///   - y: what `softmax` returned, any shape of rank 1 to 8, floating.
///   - dx: as y, written; may be either input.
/// - Throws: `Failure` for whatever does not fit; dx is then untouched.
public func softmaxBackward(gradOut: Tensor, _ y: Tensor, axis: Int = -1, dx: Tensor) throws(Failure) {
    try Library.requireKernels()
    try y.checked("y").expect(rank: 1...Dims.capacity, "y")
    try y.expectFloating("y")
    guard axis >= -y.rank, axis < y.rank else { throw .argument("axis: expected \(-y.rank) to \(y.rank - 1), got \(axis)") }
    try gradOut.checked("grad_out").expect(dtype: y.dtype, "grad_out", as: "y")
    try gradOut.expect(shape: y.shape, "grad_out")
    try dx.expectOutput(like: y, "dx", as: "y")
    try Output("dx", dx)?.expectApart(fromOrSameAs: y, "y")
    try Output("dx", dx)?.expectApart(fromOrSameAs: gradOut, "grad_out")
    if dx.isEmpty { return }

    let dim = axis < 0 ? axis + y.rank : axis
    let order = y.dimsWithLast(dim)
    let rows = GradientRows([y, gradOut, dx].map { $0.permuting(order) })
    let walk = try RowWalk(rows.leading, rows.tensors)
    let grain = ElementCost.normalized.grain(walk.count, columns: rows.columns, y.dtype)
    let stream = rows.isDirect && dx.isStreamed(over: y, gradOut, from: GradientRows.streamedBytes)
    try withRowScratch(rows.isDirect ? 0 : 2 * max(walk.count / grain, 1), rows.columns, y.dtype) { scratch in
        parallelFor(walk.count, grain: grain) { range in
            rows.forEach(range, of: walk, scratch, 2 * (range.lowerBound / grain)) {
                attn_softmax_gradients(y.dtype.kernel, Int64(rows.columns), $0, stream)
            }
            if stream { attn_streamed() }
        }
    }
}

/// Rows along the last dim of tensors of one shape and dtype, read and written as reals side by side: where they are, or by
/// way of scratch.
struct GradientRows {
    /// Where inputs are read twice, a last-level cache of 32 MB keeps enough of an output of its size to be faster without.
    static let streamedBytes = 64 << 20

    let tensors: [Tensor]
    let columns: Int
    let isDirect: Bool
    var leading: Dims { tensors[0].leading(1).shape }
    private let dtype: DType

    init(_ tensors: [Tensor]) {
        self.tensors = tensors
        dtype = tensors[0].dtype
        let last = tensors[0].rank - 1, columns = tensors[0].shape[last]
        self.columns = columns
        isDirect = dtype == dtype.computing && tensors.allSatisfy { $0.strides[last] == 1 || columns == 1 }
    }

    /// Calls `body` with runs of the rows in `range`: of two inputs, and of an output if there is one. Of scratch it takes the rows
    /// `own` and the one behind it.
    @inline(__always)
    func forEach(_ range: Range<Int>, of walk: RowWalk, _ scratch: RowScratch, _ own: Int,
                 _ body: (UnsafePointer<attn_gradient_rows>) -> Void) {
        let hasOutput = tensors.count > 2
        if isDirect {
            return walk.forEachRun(range) { _, count, at in
                var run = attn_gradient_rows(count: Int64(count), x: at[0], grad: at[1], dx: hasOutput ? at[2] : nil,
                                             x_step: Int64(walk.step(0)), grad_step: Int64(walk.step(1)),
                                             dx_step: hasOutput ? Int64(walk.step(2)) : 0)
                body(&run)
            }
        }
        let x = scratch.row(own)!, grad = scratch.row(own + 1)!
        var row = attn_gradient_rows(count: 1, x: x, grad: grad, dx: hasOutput ? x : nil, x_step: 0, grad_step: 0, dx_step: 0)
        walk.forEach(range) { _, at in
            attn_load_row(dtype.kernel, at[0], stride(0), Int64(columns), x)
            attn_load_row(dtype.kernel, at[1], stride(1), Int64(columns), grad)
            body(&row)
            if hasOutput { attn_store_row(dtype.kernel, x, Int64(columns), at[2], stride(2)) }
        }
    }

    private func stride(_ tensor: Int) -> Int64 { Int64(tensors[tensor].strides[tensors[tensor].rank - 1]) }
}
