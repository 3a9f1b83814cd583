/// Attention over disjoint key sets, merged into attention over their union.

import Glibc

/// lse = ln(Σ_n exp(lses[n])); out = Σ_n exp(lses[n] - lse) * outs[n].
///
/// - Parameters:
///   - outs: (..., T, Dv), floating, all of one shape and dtype.
///   - lses: (..., T) float32 (float64 with float64 outs), one for each of `outs`.
///   - out: as each of `outs`, written; may be one of them.
///   - lse: as each of `lses`, written; may be one of them.
/// - Throws: `Failure` for whatever does not fit; the outputs are then untouched.
///
/// A part with lse -inf has no weight, whatever its out holds; with no part left, out is 0 and lse -inf. A sink belongs to
/// one part only.
public func mergeAttentionStates(outs: [Tensor], lses: [Tensor], out: Tensor, lse: Tensor) throws(Failure) {
    try Library.requireKernels()
    guard let part = outs.first, let state = lses.first else { throw .argument("count: expected at least 1, got 0") }
    guard lses.count == outs.count else { throw .argument("lses: expected \(outs.count) as outs, got \(lses.count)") }
    for n in outs.indices {
        do {
            try outs[n].checked("outs").expectFloating("outs")
            try outs[n].expect(dtype: part.dtype, "outs", as: "outs[0]")
            try outs[n].expect(rank: 1...Dims.capacity, "outs")
            try outs[n].expect(shape: part.shape, "outs")
            try lses[n].checked("lses").expect(dtype: part.dtype.computing, "lses", as: "the sum")
            try lses[n].expect(shape: part.leading(1).shape, "lses")
        } catch {
            throw error.ofPart(n)
        }
    }
    try out.expectOutput(like: part, "out", as: "outs[0]")
    try lse.expectOutput(like: state, "lse", as: "lses[0]")
    let written = (out: Output("out", out), lse: Output("lse", lse))
    for n in outs.indices {
        try written.out?.expectApart(from: lses[n], "lses[\(n)]")
        try written.out?.expectApart(fromOrSameAs: outs[n], "outs[\(n)]")
        try written.lse?.expectApart(from: outs[n], "outs[\(n)]")
        try written.lse?.expectApart(fromOrSameAs: lses[n], "lses[\(n)]")
    }
    try written.out?.expectApart(from: lse, "lse")
    if lse.isEmpty { return }
    if part.dtype == .float64 {
        try run(Double.self, outs, lses, out, lse)
    } else {
        try run(Float.self, outs, lses, out, lse)
    }
}

private func run<R: Real>(_ type: R.Type, _ outs: [Tensor], _ lses: [Tensor], _ out: Tensor, _ lse: Tensor) throws(Failure) {
    let columns = out.shape[out.rank - 1], parts = lses.count
    /* lse and the lses; then out and the outs, unless they are empty. */
    let walk = try RowWalk(lse.shape, [lse] + lses + (columns > 0 ? [out] + outs : []))
    let to = RowLayout<R>(out), from = outs.map { RowLayout<R>($0) }
    parallelFor(walk.count, grain: max(elementsPerRange / (max(columns, 1) * parts), 1)) { rows in
        withUnsafeTemporaryAllocation(of: Double.self, capacity: parts) { weights in
            withUnsafeTemporaryAllocation(of: R.self, capacity: 2 * RowLayout<R>.piece) { pieces in
                let sums = pieces.baseAddress!, piece = sums + RowLayout<R>.piece
                walk.forEach(rows) { _, at in
                    let total = logSumExp(R.self, at + 1, weights)
                    at[0].storeBytes(of: R(total), as: R.self)
                    var first = 0
                    while first < columns {
                        let count = min(columns - first, RowLayout<R>.piece)
                        sums.update(repeating: 0, count: count)
                        for n in 0..<parts where weights[n] > 0 || weights[n].isNaN {
                            let weight = R(weights[n]), source = from[n].load(at[parts + 2 + n], first, count, piece)
                            for i in 0..<count { sums[i] += weight * source[i] }
                        }
                        let target = to.target(at[parts + 1], first, sums)
                        if target != sums { target.update(from: sums, count: count) }
                        to.store(at[parts + 1], first, count, sums)
                        first += count
                    }
                }
            }
        }
    }
}

/// ln(Σ exp(lses[n])), and the share of each part in the sum: exactly 0 where its lse is -inf.
private func logSumExp<R: Real>(_ type: R.Type, _ lses: UnsafePointer<UnsafeMutableRawPointer>,
                                _ shares: UnsafeMutableBufferPointer<Double>) -> Double {
    var top = -Double.infinity
    for n in shares.indices {
        let lse = Double(lses[n].load(as: R.self))
        shares.initializeElement(at: n, to: lse)
        if lse > top || lse.isNaN { top = lse }
    }
    if top == -.infinity {
        shares.update(repeating: 0)
        return top
    }
    var sum = 0.0
    for n in shares.indices {
        shares[n] = exp(shares[n] - top)
        sum += shares[n]
    }
    for n in shares.indices { shares[n] /= sum }
    return top + log(sum)
}
