/// Rotary positions on arrays.

/// Cosines and sines of t · inv[i], (length, dim / 2) each, with the frequencies of `scaling`. Angles are taken in float64.
///
/// - Throws: `Failure` for an odd dim, a negative size, or a scaling that lacks a number or has one out of range.
///   Source: Su et al. 2021.
public func rotaryTables<T: FloatingElement>(dim: Int, length: Int, base: Double = 10000,
                                             scaling: RotaryScaling = RotaryScaling(),
                                             of element: T.Type = Float.self) throws(Failure) -> (cos: NDArray<T>, sin: NDArray<T>) {
    guard dim >= 0, dim % 2 == 0 else { throw .argument("dim: expected an even number of at least 0, got \(dim)") }
    guard length >= 0 else { throw .argument("length: expected at least 0, got \(length)") }
    var cos: NDArray<T>?
    let sin = try NDArray<T>(shape: [length, dim / 2]) { (sin) throws(Failure) in
        cos = try NDArray<T>(shape: sin.shape) { (cos) throws(Failure) in
            try rotaryTables(base: base, scaling: scaling, cos: cos, sin: sin)
        }
    }
    return (cos!, sin)
}

/// x (..., H, T, D) or (T, D), each row turned by the angles of its position: (a, b) becomes (a cos - b sin, b cos + a sin).
///
/// - Parameters:
///   - cos, sin: (length, R / 2); what lies behind the first R elements of a row is copied.
///   - positions: 0 <= position < length, broadcast to (..., T); nil: row t stands at t.
/// - Throws: `Failure` for a position out of the tables or shapes that do not fit. Source: Su et al. 2021.
public func rotaryEmbedding<T: FloatingElement>(_ x: NDArray<T>, cos: NDArray<T.Computing>, sin: NDArray<T.Computing>,
                                                positions: NDArray<Int>? = nil,
                                                pairing: RotaryPairing = .halves) throws(Failure) -> NDArray<T> {
    try withTensors(x, cos, sin, positions) { (t) throws(Failure) in
        try NDArray(shape: Dims(x.shape)) { (out) throws(Failure) in
            try rotaryEmbedding(t[0]!, cos: t[1]!, sin: t[2]!, positions: t[3], pairing: pairing, out: out)
        }
    }
}
