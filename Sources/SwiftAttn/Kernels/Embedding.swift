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
    guard ids.dtype == .int32 || ids.dtype == .int64 else {
        throw .dtype("ids: dtype is \(ids.dtype), expected int32 or int64")
    }
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
    _ = try out.checkedOutput("out")
    let written = Output("out", out)
    try written?.expectApart(from: ids, "ids")
    try written?.expectApart(from: table, "table")
    try written?.expectApart(fromOrSameAs: added, "residual")
    try checkIDs(ids, rows: table.shape[0])
    if out.isEmpty { return }

    let walk = try RowWalk(ids.shape, [ids, out, added].compactMap { $0 })
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

private func checkIDs(_ ids: Tensor, rows: Int) throws(Failure) {
    if ids.isEmpty { return }
    let walk = try RowWalk(ids.shape, [ids])
    let step = walk.step(0), isWide = ids.dtype == .int64
    var wrong: (entry: Int, id: Int)?
    walk.forEachRun(0..<walk.count) { entry, count, at in
        var isRight = true
        for i in 0..<count {
            let id = loadIndex(isWide, at[0] + i &* step)
            isRight = isRight && UInt(bitPattern: id) < UInt(rows)  // negative ids are huge
        }
        if isRight || wrong != nil { return }
        let first = (0..<count).first { UInt(bitPattern: loadIndex(isWide, at[0] + $0 &* step)) >= UInt(rows) }!
        wrong = (entry + first, loadIndex(isWide, at[0] + first &* step))
    }
    if let wrong { throw .argument("ids: entry \(wrong.entry) is \(wrong.id), expected 0 <= id < \(rows)") }
}

/// The int64 or int32 at an address.
@inline(__always)
func loadIndex(_ isWide: Bool, _ p: UnsafeRawPointer) -> Int {
    isWide ? Int(p.load(as: Int64.self)) : Int(p.load(as: Int32.self))
}
