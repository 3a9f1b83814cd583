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
    let order = y.shape.indices.filter { $0 != dim } + [dim]
    let rows = GradientRows([y, gradOut, dx].map { $0.permuting(order) })
    let walk = try RowWalk(rows.leading, rows.tensors)
    let grain = ElementCost.normalized.grain(walk.count, columns: rows.columns, y.dtype)
    try withRowScratch(rows.isDirect ? 0 : 2 * max(walk.count / grain, 1), rows.columns, y.dtype) { scratch in
        parallelFor(walk.count, grain: grain) { range in
            let own = 2 * (range.lowerBound / grain)
            walk.forEach(range) { _, at in
                let out = rows.load(0, at[0], scratch.row(own)), grad = rows.load(1, at[1], scratch.row(own + 1))
                let target = rows.target(at[2], scratch.row(own))
                attn_softmax_gradient(y.dtype.kernel, Int64(rows.columns), out, grad, target)
                rows.store(2, target, at[2])
            }
        }
    }
}

/// Rows along the last dim of tensors of one shape and dtype, read and written as reals side by side: where they are, or by
/// way of scratch.
struct GradientRows {
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

    @inline(__always)
    private func stride(_ tensor: Int) -> Int64 { Int64(tensors[tensor].strides[tensors[tensor].rank - 1]) }

    /// A row of an input.
    @inline(__always)
    func load(_ tensor: Int, _ row: UnsafeRawPointer, _ place: UnsafeMutableRawPointer?) -> UnsafeRawPointer {
        if isDirect { return row }
        attn_load_row(dtype.kernel, row, stride(tensor), Int64(columns), place)
        return UnsafeRawPointer(place!)
    }

    /// Where a row of an output is computed, before `store` puts it there.
    @inline(__always)
    func target(_ row: UnsafeMutableRawPointer, _ place: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer {
        isDirect ? row : place!
    }

    @inline(__always)
    func store(_ tensor: Int, _ reals: UnsafeRawPointer, _ row: UnsafeMutableRawPointer) {
        if !isDirect { attn_store_row(dtype.kernel, reals, Int64(columns), row, stride(tensor)) }
    }
}
