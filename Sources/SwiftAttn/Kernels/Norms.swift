/// layer_norm and rms_norm.

/// out = (x - mean) / sqrt(var + eps) * weight + bias over the last dim, var biased (divided by N).
///
/// - Parameters:
///   - x: (..., N), floating.
///   - weight: (N,) of x's dtype or float32; none is 1.
///   - bias: (N,) likewise; none is 0.
///   - eps: finite, at least 0.
///   - out: as x, written; may be x itself.
/// - Throws: `Failure` for whatever does not fit; out is then untouched.
///
/// A row's result depends on that row alone. Source: Ba et al. 2016.
public func layerNorm(_ x: Tensor, weight: Tensor? = nil, bias: Tensor? = nil, eps: Double = 1e-5,
                      out: Tensor) throws(Failure) {
    try normalize(x, weight: weight, bias: bias, eps: eps, centred: true, out: out)
}

/// out = x / sqrt(mean(x²) + eps) * weight over the last dim; otherwise as `layerNorm`. Source: Zhang, Sennrich 2019.
public func rmsNorm(_ x: Tensor, weight: Tensor? = nil, eps: Double = 1e-6, out: Tensor) throws(Failure) {
    try normalize(x, weight: weight, bias: nil, eps: eps, centred: false, out: out)
}

private func normalize(_ x: Tensor, weight: Tensor?, bias: Tensor?, eps: Double, centred: Bool,
                       out: Tensor) throws(Failure) {
    try Library.requireKernels()
    try x.checked("x").expect(rank: 1...Dims.capacity, "x")
    try x.expectFloating("x")
    for (name, parameter) in [("weight", weight), ("bias", bias)] as [(StaticString, Tensor?)] {
        guard let parameter else { continue }
        try parameter.checked(name).expect(rank: 1...1, name)
        try parameter.expect(shape: [x.shape[x.rank - 1]], name)
        guard parameter.dtype == .float32 || parameter.dtype == x.dtype else {
            throw .dtype("\(name): dtype is \(parameter.dtype), expected float32\(x.dtype == .float32 ? "" : " or \(x.dtype)")")
        }
    }
    guard eps >= 0, eps.isFinite else { throw .argument("eps: expected a finite number of at least 0, got \(eps)") }
    try out.expectOutput(like: x, "out", as: "x")
    let written = Output("out", out)
    try written?.expectApart(from: weight, "weight")
    try written?.expectApart(from: bias, "bias")
    try written?.expectApart(fromOrSameAs: x, "x")
    if out.isEmpty { return }
    if x.dtype == .float64 {
        try run(Double.self, x, weight, bias, eps, centred, out)
    } else {
        try run(Float.self, x, weight, bias, eps, centred, out)
    }
}

private func run<R: Real>(_ type: R.Type, _ x: Tensor, _ weight: Tensor?, _ bias: Tensor?, _ eps: Double, _ centred: Bool,
                          _ out: Tensor) throws(Failure) {
    let walk = try RowWalk(x.leading(1).shape, [x, out])
    let columns = x.shape[x.rank - 1]
    try withScratch(of: R.self, columns, times: 2) { parameters in
        /* A weight of 1 and a bias of -0 change no bit of what they are applied to. */
        R.fill(parameters, columns, from: weight, else: 1)
        R.fill(parameters + columns, columns, from: bias, else: -0.0)
        let norm = Norm(x: RowLayout<R>(x), out: RowLayout<R>(out), columns: columns, weight: parameters,
                        bias: parameters + columns, eps: eps, centred: centred)
        parallelFor(walk.count, grain: max(elementsPerRange / columns, 1)) { rows in
            withUnsafeTemporaryAllocation(of: R.self, capacity: min(columns, RowLayout<R>.piece)) { piece in
                walk.forEach(rows) { _, at in norm.row(UnsafeRawPointer(at[0]), at[1], piece.baseAddress!) }
            }
        }
    }
}

/// One row at a time: mean, then the mean square of what is left, then the output.
private struct Norm<R: Real> {
    let x, out: RowLayout<R>
    let columns: Int
    let weight, bias: UnsafePointer<R>
    let eps: Double
    let centred: Bool

    typealias Lanes = SIMD16<R>

    @inline(__always)
    func row(_ from: UnsafeRawPointer, _ to: UnsafeMutableRawPointer, _ piece: UnsafeMutablePointer<R>) {
        let n = Double(columns)
        let whole = columns <= RowLayout<R>.piece ? x.load(from, 0, columns, piece) : nil
        let mean = centred ? sum(from, whole, piece) { $0 } / n : 0
        /* The mean in two parts: rounding it would shift every element by the same amount. */
        let high = R(mean), low = R(mean - Double(high))
        let highs = Lanes(repeating: high), lows = Lanes(repeating: low)
        let variance = sum(from, whole, piece) { x in
            let d = x - highs - lows
            return d * d
        } / n
        let factor = R(1 / (variance + eps).squareRoot())
        let factors = Lanes(repeating: factor)
        var first = 0
        while first < columns {
            let count = min(columns - first, RowLayout<R>.piece)
            let source = whole ?? x.load(from, first, count, piece), target = out.target(to, first, piece)
            let weight = weight + first, bias = bias + first
            var i = 0
            while i + Lanes.scalarCount <= count {
                let y = (lanes(source + i) - highs - lows) * factors * lanes(weight + i) + lanes(bias + i)
                UnsafeMutableRawPointer(target + i).storeBytes(of: y, as: Lanes.self)
                i += Lanes.scalarCount
            }
            while i < count {
                target[i] = (source[i] - high - low) * factor * weight[i] + bias[i]
                i += 1
            }
            out.store(to, first, count, piece)
            first += count
        }
    }

    /// Σ term(x): sums of 256 elements in R, sixteen of them side by side, and the sums of those in float64.
    @inline(__always)
    private func sum(_ row: UnsafeRawPointer, _ whole: UnsafePointer<R>?, _ piece: UnsafeMutablePointer<R>,
                     _ term: (Lanes) -> Lanes) -> Double {
        var totals = SIMD4<Double>.zero
        var first = 0
        while first < columns {
            let count = min(columns - first, RowLayout<R>.piece)
            let source = whole ?? x.load(row, first, count, piece)
            var i = 0
            while i < count {
                let end = min(i + 256, count)
                var sums = Lanes.zero
                while i + Lanes.scalarCount <= end {
                    sums += term(lanes(source + i))
                    i += Lanes.scalarCount
                }
                if i < end {
                    var last = Lanes.zero
                    for lane in 0..<end - i { last[lane] = source[i + lane] }
                    last = term(last)
                    for lane in 0..<end - i { sums[lane] += last[lane] }
                    i = end
                }
                let eight = sums.lowHalf + sums.highHalf
                let four = eight.lowHalf + eight.highHalf
                totals += SIMD4(Double(four[0]), Double(four[1]), Double(four[2]), Double(four[3]))
            }
            first += count
        }
        return totals.sum()
    }

    @inline(__always)
    private func lanes(_ p: UnsafePointer<R>) -> Lanes { UnsafeRawPointer(p).loadUnaligned(as: Lanes.self) }
}
