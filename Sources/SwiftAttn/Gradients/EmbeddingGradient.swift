/// The gradient of a table of rows.

import CAttnKernels
import Glibc

/// dtable[v, :] = Σ of gradOut[i, :] over the i with ids[i] = v, in the order of i: eight at a time, 64 of them, and their sums.
///
/// - Parameters:
///   - gradOut: (..., N), floating.
///   - ids: (...) int32 or int64, each 0 <= id < V.
///   - dtable: (V, N) of gradOut's dtype, written: rows that no id names are 0.
/// - Throws: `Failure` for whatever does not fit, an id out of range included; dtable is then untouched.
public func embeddingBackward(gradOut: Tensor, ids: Tensor, dtable: Tensor) throws(Failure) {
    try Library.requireKernels()
    try gradOut.checked("grad_out").expect(rank: 1...Dims.capacity, "grad_out")
    try gradOut.expectFloating("grad_out")
    try ids.checked("ids").expect(shape: gradOut.leading(1).shape, "ids")
    try ids.expectIndices("ids")
    try dtable.expect(rank: 2...2, "dtable")
    try dtable.expect(dtype: gradOut.dtype, "dtable", as: "grad_out")
    let columns = gradOut.shape[gradOut.rank - 1], entries = dtable.shape[0]
    guard dtable.shape[1] == columns else { throw .shape("dtable: shape is \(dtable.shape), grad_out has \(columns) columns") }
    try dtable.checkOutput("dtable")
    try expectApart([("dtable", dtable)], from: [("grad_out", gradOut), ("ids", ids)])
    try ids.checkIndices("ids", 0..<entries)
    if dtable.isEmpty { return }

    let count = gradOut.isEmpty ? 0 : ids.shape.reduce(1, *)
    /* Rows of gradOut as byte offsets, in the order of their ids: those of id v are [ends[v], ends[v + 1]). */
    try withScratch(of: Int64.self, max(count, 1)) { offsets throws(Failure) in
        try withScratch(of: Int.self, entries + 2) { ends throws(Failure) in
            ends.update(repeating: 0, count: entries + 2)
            if count > 0 { sortByID(try RowWalk(ids.shape, [ids, gradOut]), gradOut, isWide: ids.dtype == .int64, offsets, ends) }
            let grain = ElementCost.gathered.grain(entries, columns: columns, gradOut.dtype)
            let shape = attn_rows(dtype: dtable.dtype.kernel, columns: Int64(columns), x_column: 1,
                                  out_column: columns == 1 ? 1 : Int64(dtable.strides[1]), stream: dtable.isStreamed())
            let isDirect = dtable.dtype == dtable.dtype.computing
            try withRowScratch(1 + max(entries / grain, 1), columns, gradOut.dtype) { scratch in
                let zeros = scratch.cleared(0)!
                let column = columns == 1 ? 1 : Int64(gradOut.strides[gradOut.rank - 1])
                parallelFor(entries, grain: grain) { rows in
                    let sums = scratch.row(1 + rows.lowerBound / grain)!
                    var shape = shape
                    for id in rows {
                        let row = dtable.pointer(byOffset: id &* dtable.strides[0])
                        if ends[id] == ends[id + 1] {
                            attn_copy_row(&shape, zeros, row)
                            continue
                        }
                        memset(sums, 0, columns * gradOut.dtype.computing.size)
                        var first = ends[id]
                        while first < ends[id + 1] {
                            let some = min(ends[id + 1] - first, RowSums.chunk)
                            attn_add_rows(gradOut.dtype.kernel, Int64(columns), gradOut.data, 1, column, offsets + first,
                                          Int64(some), sums)
                            first += some
                        }
                        if isDirect { attn_copy_row(&shape, sums, row) }
                        else { attn_store_row(dtable.dtype.kernel, sums, Int64(columns), row, Int64(dtable.strides[1])) }
                    }
                    if shape.stream { attn_streamed() }
                }
            }
        }
    }
}

/// Counting sort: offsets of equal ids keep their order, and ends[v] is where those of id v begin.
private func sortByID(_ walk: RowWalk, _ gradOut: Tensor, isWide: Bool, _ offsets: UnsafeMutablePointer<Int64>,
                      _ ends: UnsafeMutablePointer<Int>) {
    var most = 0
    walk.forEach(0..<walk.count) { _, at in
        let id = loadIndex(isWide, at[0])
        ends[id + 2] += 1
        most = max(most, id)
    }
    /* now ends[v + 2] is how many there are of v; summed up, ends[v + 1] is where v begins, and moves on to its end */
    for v in 0...most { ends[v + 2] += ends[v + 1] }
    walk.forEach(0..<walk.count) { _, at in
        let id = loadIndex(isWide, at[0])
        offsets[ends[id + 1]] = Int64(at[1] - gradOut.data!)
        ends[id + 1] += 1
    }
}
