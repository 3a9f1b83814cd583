/// Softmax along an axis.

import CAttnKernels

/// out = exp(x - max) / Σ exp(x - max) along `axis`.
///
/// - Parameters:
///   - x: any shape of rank 1 to 8, floating.
///   - axis: -rank <= axis < rank.
///   - out: as x, written; may be x itself.
/// - Throws: `Failure` for whatever does not fit; out is then untouched.
///
/// A row of -inf alone gives zeros.
public func softmax(_ x: Tensor, axis: Int = -1, out: Tensor) throws(Failure) {
    try Library.requireKernels()
    try x.checked("x").expect(rank: 1...Dims.capacity, "x")
    try x.expectFloating("x")
    guard axis >= -x.rank, axis < x.rank else {
        throw .argument("axis: expected \(-x.rank) to \(x.rank - 1), got \(axis)")
    }
    try out.expectOutput(like: x, "out", as: "x")
    try Output("out", out)?.expectApart(fromOrSameAs: x, "x")
    if out.isEmpty { return }

    let dim = axis < 0 ? axis + x.rank : axis
    let order = x.dimsWithLast(dim)
    let from = x.permuting(order), to = out.permuting(order)
    let columns = x.shape[dim]
    let walk = try RowWalk(to.leading(1).shape, [from, to])
    let shape = attn_rows(from, to, columns: columns, stream: out.isStreamed(over: x))

    /* Each range has a scratch row of its own if the kernel needs one. */
    let grain = ElementCost.exponential.grain(walk.count, columns: columns, x.dtype)
    let ranges = max(walk.count / grain, 1)
    let isFar = columns > Int(ATTN_NEAR_COLUMNS) && !(shape.isContiguous && x.dtype == x.dtype.computing)
    try withRowScratch(isFar ? ranges : 0, columns, x.dtype) { scratch in
        parallelFor(walk.count, grain: grain) { rows in
            let own = scratch.row(rows.lowerBound / grain)
            withUnsafePointer(to: shape) { shape in
                walk.forEach(rows) { _, at in attn_softmax_row(shape, at[0], at[1], own) }
            }
            if shape.stream { attn_streamed() }
        }
    }
}
