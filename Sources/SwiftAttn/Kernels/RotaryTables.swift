/// Cosines and sines of rotary positions.

import Glibc

/// cos[t, i] = m · cos(t · inv[i]), sin[t, i] = m · sin(t · inv[i]), with the frequencies inv and the factor m of `scaling`.
///
/// - Parameters:
///   - base: of the frequencies inv[i] = base^(-2i/dim); finite, above 1.
///   - cos, sin: (length, dim / 2), floating, of one shape and dtype; written.
/// - Throws: `Failure` for whatever does not fit; cos and sin are then untouched.
///
/// Angles are taken in float64. Source: Su et al. 2021.
public func rotaryTables(base: Double = 10000, scaling: RotaryScaling = RotaryScaling(), cos: Tensor, sin: Tensor) throws(Failure) {
    try Library.requireKernels()
    try cos.expect(rank: 2...2, "cos")
    try cos.checkedOutput("cos").expectFloating("cos")
    try sin.expectOutput(like: cos, "sin", as: "cos")
    try Output("sin", sin)?.expectApart(from: cos, "cos")
    let (pairs, isTooWide) = cos.shape[1].multipliedReportingOverflow(by: 2)
    guard !isTooWide else { throw Failure.outOfMemory }
    try requireMemory(for: pairs, of: Double.self)
    let (inverse, factor) = try scaling.frequencies(dim: pairs, length: cos.shape[0], base: base)
    if cos.isEmpty { return }
    if cos.dtype == .float64 {
        try fill(Double.self, inverse, factor, cos, sin)
    } else {
        try fill(Float.self, inverse, factor, cos, sin)
    }
}

private func fill<R: Real>(_ type: R.Type, _ inverse: [Double], _ factor: Double, _ cosines: Tensor, _ sines: Tensor) throws(Failure) {
    let pairs = inverse.count
    let walk = try RowWalk(cosines.leading(1).shape, [cosines, sines])
    let cosineLayout = RowLayout<R>(cosines), sineLayout = RowLayout<R>(sines)
    let elementCost = 32  // of a sine and a cosine, in units of what usual elements cost
    parallelFor(walk.count, grain: max(elementsPerRange / elementCost / pairs, 1)) { rows in
        withUnsafeTemporaryAllocation(of: R.self, capacity: 2 * RowLayout<R>.piece) { pieces in
            let firstPiece = pieces.baseAddress!, secondPiece = firstPiece + RowLayout<R>.piece
            walk.forEach(rows) { row, at in
                var first = 0
                while first < pairs {
                    let count = min(pairs - first, RowLayout<R>.piece)
                    let c = cosineLayout.target(at[0], first, firstPiece), s = sineLayout.target(at[1], first, secondPiece)
                    for i in 0..<count {
                        let angle = Double(row) * inverse[first + i]
                        c[i] = R(factor * cos(angle))
                        s[i] = R(factor * sin(angle))
                    }
                    cosineLayout.store(at[0], first, count, firstPiece)
                    sineLayout.store(at[1], first, count, secondPiece)
                    first += count
                }
            }
        }
    }
}
