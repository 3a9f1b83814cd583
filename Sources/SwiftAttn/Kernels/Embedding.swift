/// Rows of a table by number.

import CAttnKernels

/// out[..., :] = table[ids[...], :] (+ residual[..., :]).
///
/// - Parameters:
///   - ids: (...) int32 or int64, each 0 <= id < V.
///   - table: (V, N), floating.
///   - residual: broadcast to (..., N).
///   - out: (..., N) of the table's dtype, written; may be the residual itself.
/// - Throws: `Failure` for whatever does not fit, an id out of range included; out is then untouched.
public func embedding(_ ids: Tensor, table: Tensor, residual: Tensor? = nil, out: Tensor) throws(Failure) {
    try Library.requireKernels()
    try ids.checked("ids").expect(rank: 0...Dims.capacity - 1, "ids")
    try ids.expectIndices("ids")
    try table.checked("table").expect(rank: 2...2, "table")
    try table.expectFloating("table")
    let columns = table.shape[1]
    var shape = ids.shape
    shape.append(columns)
    if let residual {
        try residual.checked("residual").expect(dtype: table.dtype, "residual", as: "table")
    }
    let added = try residual?.broadcast(toShape: shape, "residual")
    try out.expect(dtype: table.dtype, "out", as: "table")
    try out.expect(shape: shape, "out")
    try out.checkOutput("out")
    let written = Output("out", out)
    try written?.expectApart(from: ids, "ids")
    try written?.expectApart(from: table, "table")
    try written?.expectApart(fromOrSameAs: added, "residual")
    try ids.checkIndices("ids", 0..<table.shape[0])
    if out.isEmpty { return }

    let walk = try RowWalk(ids.shape, added.map { [ids, out, $0] } ?? [ids, out])
    let isAdded = added != nil
    var layout = attn_gather()
    layout.shape = attn_rows(table, out, columns: columns, stream: out.isStreamed(over: added))
    layout.table = UnsafeRawPointer(table.data)
    layout.table_step = Int64(table.strides[0] &* table.dtype.size)
    layout.id_size = Int32(ids.dtype.size)
    layout.id_step = Int64(walk.step(0))
    layout.out_step = Int64(walk.step(1))
    layout.added_step = isAdded ? Int64(walk.step(2)) : 0
    layout.added_column = columns == 1 ? 1 : Int64(added?.strides[shape.count - 1] ?? 0)
    let gather = layout
    parallelFor(walk.count, grain: ElementCost.gathered.grain(walk.count, columns: columns, table.dtype)) { rows in
        withUnsafePointer(to: gather) { gather in
            walk.forEachRun(rows) { _, count, at in
                attn_gather_rows(gather, at[0], Int64(count), isAdded ? UnsafeRawPointer(at[2]) : nil, at[1])
            }
        }
        if gather.shape.stream { attn_streamed() }
    }
}
