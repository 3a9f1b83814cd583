/// Matrix products of arrays.

/// a · b, as NumPy's and PyTorch's matmul: a (..., M, K), b (..., K, N), leading dims broadcast; a rank-1 a is (1, K) and a
/// rank-1 b is (K, 1), and the result then lacks that dim. The order of a sum depends on K alone.
///
/// - Throws: `Failure` for shapes that do not fit.
public func matmul<T: FloatingElement>(_ a: NDArray<T>, _ b: NDArray<T>, precision: Precision = .highest) throws(Failure)
    -> NDArray<T> {
    try withTensors(a, b) { (t) throws(Failure) in
        try NDArray(shape: productShape(a.shape, b.shape)) { (out) throws(Failure) in
            try matmul(t[0]!, t[1]!, precision: precision, out: out)
        }
    }
}

/// The product's shape; where a and b do not fit, any: the function throws before it looks at out.
private func productShape(_ a: [Int], _ b: [Int]) throws(Failure) -> Dims {
    guard !a.isEmpty, !b.isEmpty else { return [] }
    var shape = Array(try broadcastShapes(Dims(a.dropLast(2)), Dims(b.dropLast(2)), "b"))
    if a.count > 1 { shape.append(a[a.count - 2]) }
    if b.count > 1 { shape.append(b[b.count - 1]) }
    return Dims(shape)
}

/// residual + activation(x · weightᵀ + bias), taken in float32 (float64) and rounded once.
///
/// - Parameters:
///   - x: (..., K).
///   - weight: (N, K), as PyTorch's.
///   - bias: (N,).
///   - residual: broadcast to (..., N), the result's shape.
/// - Throws: `Failure` for shapes that do not fit.
public func linear<T: FloatingElement>(_ x: NDArray<T>, weight: NDArray<T>, bias: NDArray<T>? = nil,
                                       residual: NDArray<T>? = nil, activation: Activation = .none,
                                       precision: Precision = .highest) throws(Failure) -> NDArray<T> {
    try withTensors(x, weight, bias, residual) { (t) throws(Failure) in
        let shape = Dims(x.shape.dropLast() + weight.shape.prefix(1))
        return try NDArray(shape: shape) { (out) throws(Failure) in
            try linear(t[0]!, weight: t[1]!, bias: t[2], residual: t[3], activation: activation, precision: precision, out: out)
        }
    }
}
