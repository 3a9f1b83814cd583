/// Copies between floating dtypes.

import CAttnKernels

/// out = source, rounded to out's dtype. Both floating, of one shape; out contiguous in its last dim's order or not.
///
/// - Throws: `Failure` for whatever does not fit; out is then untouched.
func copyConverting(_ source: Tensor, to out: Tensor) throws(Failure) {
    try source.checked("source").expectFloating("source")
    guard source.shape == out.shape else {
        throw .shape("source: shape is \(source.shape), expected \(out.shape)")
    }
    try Output("out", out)?.expectApart(from: source, "source")
    if out.isEmpty { return }
    if out.rank == 0 {
        return try copyConverting(source.reshaped([1], strides: [1]), to: out.reshaped([1], strides: [1]))
    }
    let columns = out.shape[out.rank - 1]
    let walk = try RowWalk(out.leading(1).shape, [out, source])
    let from = source.strides[source.rank - 1], to = out.strides[out.rank - 1]
    try withScratch(of: Double.self, columns) { row in
        walk.forEach(0..<walk.count) { _, at in
            load(source.dtype, at[1], from, columns, as: out.dtype.computing, into: row)
            attn_store_row(out.dtype.kernel, row, Int64(columns), at[0], Int64(to))
        }
    }
}

/// out = source, of one dtype, any it may be, and of one shape; out is apart from it.
func copyElements(_ source: Tensor, to out: Tensor) throws(Failure) {
    if out.isEmpty { return }
    let size = out.dtype.size
    let walk = try RowWalk(out.shape, [out, source])
    let isDense = walk.step(0) == size && walk.step(1) == size
    walk.forEachRun(0..<walk.count) { _, count, at in
        if isDense { return at[0].copyMemory(from: at[1], byteCount: count &* size) }
        for i in 0..<count { (at[0] + i &* walk.step(0)).copyMemory(from: at[1] + i &* walk.step(1), byteCount: size) }
    }
}

/// A row of any floating dtype as float32 or float64.
private func load(_ dtype: DType, _ row: UnsafeRawPointer, _ stride: Int, _ count: Int, as wanted: DType,
                  into place: UnsafeMutableRawPointer) {
    if dtype.computing == wanted {
        attn_load_row(dtype.kernel, row, Int64(stride), Int64(count), place)
    } else if wanted == .float32 {
        let floats = place.assumingMemoryBound(to: Float.self)
        for i in 0..<count { floats[i] = Float((row + 8 &* i &* stride).load(as: Double.self)) }
    } else {
        /* float32 numbers in the second half are widened from the first on: none is overwritten before it is read */
        let floats = place.assumingMemoryBound(to: Float.self) + count
        attn_load_row(dtype.kernel, row, Int64(stride), Int64(count), floats)
        let doubles = place.assumingMemoryBound(to: Double.self)
        for i in 0..<count { doubles[i] = Double(floats[i]) }
    }
}
