/// Dropout whose mask is a function of a seed and the elements' numbers.

import CAttnKernels

/// out[i] = x[i] / (1 - p), or 0 where element i is dropped. i counts the elements in row-major order; element i is dropped
/// where word i & 3 of Philox4x32-10, key (low, high 32 bits of seed), counter (low, high of i >> 2, low, high of draw) is
/// below floor(p · 2^32). The gradient of x is the same function of the gradient of out.
///
/// - Parameters:
///   - x: any shape, floating.
///   - p: 0 <= p < 1.
///   - draw: calls that differ in it drop independently under one seed: the number of a layer and a step.
///   - out: as x, written; may be x itself.
/// - Throws: `Failure` for whatever does not fit; out is then untouched.
public func dropout(_ x: Tensor, p: Double, seed: UInt64 = 0, draw: UInt64 = 0, out: Tensor) throws(Failure) {
    try run(x, "x", p, seed, draw, out, "out")
}

/// The gradient of x from that of out, under the same p, seed and draw; dx may be the gradient itself.
public func dropoutBackward(gradOut: Tensor, p: Double, seed: UInt64 = 0, draw: UInt64 = 0, dx: Tensor) throws(Failure) {
    try run(gradOut, "grad_out", p, seed, draw, dx, "dx")
}

private func run(_ x: Tensor, _ name: StaticString, _ p: Double, _ seed: UInt64, _ draw: UInt64, _ out: Tensor,
                 _ outName: StaticString) throws(Failure) {
    try Library.requireKernels()
    try x.checked(name).expectFloating(name)
    guard p >= 0, p < 1 else { throw .argument("p: expected 0 <= p < 1, got \(p)") }
    try out.expectOutput(like: x, outName, as: name)
    try Output(outName, out)?.expectApart(fromOrSameAs: x, "\(name)")
    if out.isEmpty { return }
    var walk = try RowWalk(x.shape, [x, out])
    let (columns, steps) = walk.takeColumns()
    let rows = walk, size = x.dtype.size
    let drop = attn_dropout(dtype: x.dtype.kernel, threshold: UInt32(p * 0x1p32), scale: 1 / (1 - p), seed: seed, draw: draw)
    let count = rows.count * columns, block = 64  // elements that the kernel draws for at once
    parallelFor(count, grain: ElementCost.exponential.grain(count, columns: 4, x.dtype, unit: block)) { elements in
        let (firstRow, firstColumn) = elements.lowerBound.quotientAndRemainder(dividingBy: columns)
        let (lastRow, lastColumn) = (elements.upperBound - 1).quotientAndRemainder(dividingBy: columns)
        withUnsafePointer(to: drop) { drop in
            rows.forEach(firstRow..<lastRow + 1) { row, at in
                let from = row == firstRow ? firstColumn : 0, end = row == lastRow ? lastColumn + 1 : columns
                attn_dropout_row(drop, Int64(row * columns + from), Int64(end - from), at[0] + from &* steps[0],
                                 columns == 1 ? 1 : Int64(steps[0] / size), at[1] + from &* steps[1],
                                 columns == 1 ? 1 : Int64(steps[1] / size))
            }
        }
    }
}
