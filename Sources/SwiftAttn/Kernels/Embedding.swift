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
    if table.dtype == .float64 {
        try run(Double.self, ids, table, added, out)
    } else {
        try run(Float.self, ids, table, added, out)
    }
}

private func checkIDs(_ ids: Tensor, rows: Int) throws(Failure) {
    if ids.isEmpty { return }
    let walk = try RowWalk(ids.shape, [ids])
    var wrong: (entry: Int, id: Int)?
    walk.forEach(0..<walk.count) { entry, at in
        let id = number(ids.dtype, at[0])
        if (id < 0 || id >= rows) && wrong == nil { wrong = (entry, id) }
    }
    if let wrong { throw .argument("ids: entry \(wrong.entry) is \(wrong.id), expected 0 <= id < \(rows)") }
}

@inline(__always)
private func number(_ dtype: DType, _ p: UnsafeRawPointer) -> Int {
    dtype == .int64 ? Int(p.load(as: Int64.self)) : Int(p.load(as: Int32.self))
}

private func run<R: Real>(_ type: R.Type, _ ids: Tensor, _ table: Tensor, _ residual: Tensor?, _ out: Tensor) throws(Failure) {
    let columns = table.shape[1]
    let walk = try RowWalk(ids.shape, [ids, out, residual].compactMap { $0 })
    let from = RowLayout<R>(table), to = RowLayout<R>(out), added = residual.map { RowLayout<R>($0) }
    let first = UnsafeRawPointer(table.data!), step = table.strides[0] &* table.dtype.size, dtype = ids.dtype
    parallelFor(walk.count, grain: max(elementsPerRange / columns, 1)) { rows in
        withUnsafeTemporaryAllocation(of: R.self, capacity: 2 * RowLayout<R>.piece) { pieces in
            let piece = pieces.baseAddress!, second = piece + RowLayout<R>.piece
            walk.forEach(rows) { _, at in
                let row = first + number(dtype, at[0]) &* step
                var column = 0
                while column < columns {
                    let count = min(columns - column, RowLayout<R>.piece)
                    let source = from.load(row, column, count, piece), target = to.target(at[1], column, piece)
                    if let added {
                        let other = added.load(at[2], column, count, second)
                        for i in 0..<count { target[i] = source[i] + other[i] }
                    } else if UnsafePointer(target) != source {
                        target.update(from: source, count: count)
                    }
                    to.store(at[1], column, count, piece)
                    column += count
                }
            }
        }
    }
}
