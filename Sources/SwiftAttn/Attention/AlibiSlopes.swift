/// The slopes of ALiBi's linear position biases.

import Glibc

/// With n the largest power of two <= heads: slope[h] = 2^(-8(h+1)/n) for h < n, and 2^(-4(2(h-n)+1)/n) after.
///
/// - Parameter out: (heads,) float32 or float64, written.
/// - Throws: `Failure` for another rank or dtype; out is then untouched.
///
/// Source: Press et al. 2022.
public func alibiSlopes(out: Tensor) throws(Failure) {
    try Library.requireKernels()
    try out.expect(rank: 1...1, "out")
    guard out.dtype == .float32 || out.dtype == .float64 else {
        throw .dtype("out: dtype is \(out.dtype), expected float32 or float64")
    }
    try out.checkOutput("out")
    let heads = out.shape[0]
    if heads == 0 { return }
    let n = 1 << (Int.bitWidth - 1 - heads.leadingZeroBitCount)
    for h in 0..<heads {
        let slope = exp2(h < n ? -8 * Double(h + 1) / Double(n) : -4 * Double(2 * (h - n) + 1) / Double(n))
        let place = out.pointer(byOffset: h &* out.strides[0])
        if out.dtype == .float64 {
            place.storeBytes(of: slope, as: Double.self)
        } else {
            place.storeBytes(of: Float(slope), as: Float.self)
        }
    }
}
