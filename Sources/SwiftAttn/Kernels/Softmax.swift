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
    let order = x.shape.indices.filter { $0 != dim } + [dim]
    let from = x.permuting(order), to = out.permuting(order)
    let columns = x.shape[dim]
    let walk = try RowWalk(to.leading(1).shape, [from, to])
    var layout = attn_rows()
    layout.dtype = x.dtype.kernel
    layout.columns = Int64(columns)
    layout.x_column = Int64(from.strides[x.rank - 1])
    layout.out_column = Int64(to.strides[x.rank - 1])

    /* A few ranges for each thread, each with a scratch row of its own. */
    let grain = max(elementsPerRange / columns, walk.count / (4 * Library.threadCount), 1)
    let ranges = max(walk.count / grain, 1)
    let widest = 16  // the kernel works in whole vectors, of at most so many elements
    let each = (columns + widest) * (x.dtype.computing.size / MemoryLayout<Float>.size)
    try withScratch(of: Float.self, each, times: ranges) { scratch in
        parallelFor(walk.count, grain: grain) { rows in
            let own = scratch + rows.lowerBound / grain * each
            withUnsafePointer(to: layout) { layout in
                walk.forEach(rows) { _, at in attn_softmax_row(layout, at[0], at[1], own) }
            }
        }
    }
}
