/// Row functions, activations and embeddings on arrays.

/// exp(x - max) / Σ exp(x - max) along `axis`, -rank <= axis < rank. A row of -inf alone gives zeros.
///
/// - Throws: `Failure` for an axis out of range.
public func softmax<T: FloatingElement>(_ x: NDArray<T>, axis: Int = -1) throws(Failure) -> NDArray<T> {
    try mapped(x) { (x, out) throws(Failure) in try softmax(x, axis: axis, out: out) }
}

/// (x - mean) / sqrt(var + eps) * weight + bias over the last dim of x (..., N), var biased (divided by N).
///
/// - Parameters:
///   - weight: (N,) of x's elements or Float; none is 1.
///   - bias: (N,) likewise; none is 0.
///   - eps: finite, at least 0.
/// - Throws: `Failure` for a shape, an element type or an eps that does not fit. Source: Ba et al. 2016.
public func layerNorm<T: FloatingElement>(_ x: NDArray<T>, weight: (any TensorSource)? = nil, bias: (any TensorSource)? = nil,
                                          eps: Double = 1e-5) throws(Failure) -> NDArray<T> {
    try mapped(x, weight, bias) { (x, weight, bias, out) throws(Failure) in
        try layerNorm(x, weight: weight, bias: bias, eps: eps, out: out)
    }
}

/// x / sqrt(mean(x²) + eps) * weight over the last dim; otherwise as `layerNorm`. Source: Zhang, Sennrich 2019.
public func rmsNorm<T: FloatingElement>(_ x: NDArray<T>, weight: (any TensorSource)? = nil,
                                        eps: Double = 1e-6) throws(Failure) -> NDArray<T> {
    try mapped(x, weight) { (x, weight, _, out) throws(Failure) in try rmsNorm(x, weight: weight, eps: eps, out: out) }
}

/// max(x, 0), NaN stays NaN.
public func relu<T: FloatingElement>(_ x: NDArray<T>) throws(Failure) -> NDArray<T> {
    try mapped(x) { (x, out) throws(Failure) in try relu(x, out: out) }
}

/// x/2 * (1 + erf(x / sqrt 2)), or its approximation by tanh. Source: Hendrycks, Gimpel 2016.
public func gelu<T: FloatingElement>(_ x: NDArray<T>, _ form: GELU = .exact) throws(Failure) -> NDArray<T> {
    try mapped(x) { (x, out) throws(Failure) in try gelu(x, form, out: out) }
}

/// x / (1 + exp(-x)).
public func silu<T: FloatingElement>(_ x: NDArray<T>) throws(Failure) -> NDArray<T> {
    try mapped(x) { (x, out) throws(Failure) in try silu(x, out: out) }
}

/// silu(gate) * up, both of one shape. Source: Shazeer 2020.
///
/// - Throws: `Failure` for two shapes.
public func swiglu<T: FloatingElement>(gate: NDArray<T>, up: NDArray<T>) throws(Failure) -> NDArray<T> {
    try mapped(gate, up) { (gate, up, _, out) throws(Failure) in try swiglu(gate: gate, up: up!, out: out) }
}

/// gelu(gate) * up, both of one shape. Source: Shazeer 2020.
///
/// - Throws: `Failure` for two shapes.
public func geglu<T: FloatingElement>(gate: NDArray<T>, up: NDArray<T>, _ form: GELU = .exact) throws(Failure) -> NDArray<T> {
    try mapped(gate, up) { (gate, up, _, out) throws(Failure) in try geglu(gate: gate, up: up!, form, out: out) }
}

/// table[ids[...], :] (+ residual[..., :]): the shape of ids, and the table's width N behind.
///
/// - Parameters:
///   - ids: each 0 <= id < V.
///   - table: (V, N).
///   - residual: broadcast to (..., N).
/// - Throws: `Failure` for an id out of range or a shape that does not fit.
public func embedding<I: IndexElement, T: FloatingElement>(_ ids: NDArray<I>, table: NDArray<T>,
                                                           residual: NDArray<T>? = nil) throws(Failure) -> NDArray<T> {
    try withTensors(ids, table, residual) { (t) throws(Failure) in
        /* Where shapes do not fit, the function throws before it looks at out. */
        let fits = ids.rank < Dims.capacity && table.rank == 2
        return try NDArray(shape: fits ? Dims(ids.shape + [table.shape[1]]) : []) { (out) throws(Failure) in
            try embedding(t[0]!, table: t[1]!, residual: t[2], out: out)
        }
    }
}

/// (length, dim): sin(t / 10000^(2i/dim)) in column 2i of row t, cos of the same in column 2i + 1; an odd dim ends with a
/// sine. Angles are taken in float64. Source: Vaswani et al. 2017, section 3.5.
///
/// - Throws: `Failure` for a negative size.
public func sinusoidalPositions<T: FloatingElement>(length: Int, dim: Int, of element: T.Type = Float.self) throws(Failure)
    -> NDArray<T> {
    try NDArray(shape: [length, dim]) { (out) throws(Failure) in try sinusoidalPositions(out: out) }
}

/// An array of x's shape, from x alone.
private func mapped<T: FloatingElement>(_ x: NDArray<T>, _ function: (Tensor, Tensor) throws(Failure) -> Void)
    throws(Failure) -> NDArray<T> {
    try mapped(x) { (x, _, _, out) throws(Failure) in try function(x, out) }
}

/// An array of x's shape, from x and up to two more arrays.
private func mapped<T: FloatingElement>(_ x: NDArray<T>, _ a: (any TensorSource)? = nil, _ b: (any TensorSource)? = nil,
                                        _ function: (Tensor, Tensor?, Tensor?, Tensor) throws(Failure) -> Void)
    throws(Failure) -> NDArray<T> {
    try withTensors(x, a, b) { (t) throws(Failure) in
        try NDArray(shape: Dims(x.shape)) { (out) throws(Failure) in try function(t[0]!, t[1], t[2], out) }
    }
}
