/// The position table of the first transformers.

import Glibc

/// out[t, 2i] = sin(t / 10000^(2i/dim)), out[t, 2i+1] = cos of the same; an odd dim ends with a sine.
///
/// - Parameter out: (length, dim), floating, written.
/// - Throws: `Failure` for another rank or dtype; out is then untouched.
///
/// Angles are taken in float64. Source: Vaswani et al. 2017, section 3.5.
public func sinusoidalPositions(out: Tensor) throws(Failure) {
    try Library.requireKernels()
    try out.expect(rank: 2...2, "out")
    try out.checkedOutput("out").expectFloating("out")
    if out.isEmpty { return }
    if out.dtype == .float64 { try run(Double.self, out) } else { try run(Float.self, out) }
}

private func run<R: Real>(_ type: R.Type, _ out: Tensor) throws(Failure) {
    let dim = out.shape[1]
    let walk = try RowWalk(out.leading(1).shape, [out])
    let layout = RowLayout<R>(out)
    let elementCost = 16  // of a sine, in units of what usual elements cost
    try withScratch(of: Double.self, (dim + 1) / 2) { wavelengths in
        for i in 0..<(dim + 1) / 2 { (wavelengths + i).initialize(to: pow(10000, Double(2 * i) / Double(dim))) }
        parallelFor(walk.count, grain: max(elementsPerRange / elementCost / dim, 1)) { rows in
            withUnsafeTemporaryAllocation(of: R.self, capacity: min(dim, RowLayout<R>.piece)) { piece in
                walk.forEach(rows) { row, at in
                    var first = 0
                    while first < dim {
                        let count = min(dim - first, RowLayout<R>.piece)
                        let target = layout.target(at[0], first, piece.baseAddress!)
                        for i in 0..<count {
                            let angle = Double(row) / wavelengths[(first + i) / 2]
                            target[i] = R((first + i) % 2 == 0 ? sin(angle) : cos(angle))
                        }
                        layout.store(at[0], first, count, piece.baseAddress!)
                        first += count
                    }
                }
            }
        }
    }
}
