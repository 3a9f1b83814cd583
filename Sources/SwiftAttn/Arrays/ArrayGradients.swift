/// Gradients on arrays. gradOut is the gradient of what the forward function returned, of its shape; sums over rows run in an
/// order that depends on the number of rows alone. All throw `Failure` for shapes that do not fit.

/// With z = x · weightᵀ + bias and g = gradOut * activation'(z): dx = g · weight, dweight = gᵀ · x, dbias = Σ g over the rows.
public func linearBackward<T: FloatingElement>(gradOut: NDArray<T>, _ x: NDArray<T>, weight: NDArray<T>, bias: NDArray<T>? = nil,
                                               activation: Activation = .none, precision: Precision = .highest) throws(Failure)
    -> (dx: NDArray<T>, dweight: NDArray<T>, dbias: NDArray<T>) {
    let rows = [weight.shape.first ?? 0]
    let d = try gradients([x.shape, weight.shape, rows], gradOut, x, weight, bias) { (t, out) throws(Failure) in
        try linearBackward(gradOut: t[0]!, t[1]!, weight: t[2]!, bias: t[3], activation: activation, precision: precision, dx: out[0],
                           dweight: out[1], dbias: out[2])
    } as [NDArray<T>]
    return (d[0], d[1], d[2])
}

/// dx = y (gradOut - Σ y gradOut) along `axis`, y what `softmax` returned.
public func softmaxBackward<T: FloatingElement>(gradOut: NDArray<T>, _ y: NDArray<T>, axis: Int = -1) throws(Failure) -> NDArray<T> {
    try gradients([y.shape], gradOut, y) { (t, out) throws(Failure) in
        try softmaxBackward(gradOut: t[0]!, t[1]!, axis: axis, dx: out[0])
    }[0]
}

/// dx, and dweight and dbias, sums over the rows, of `layerNorm` with the same weight and eps.
public func layerNormBackward<T: FloatingElement>(gradOut: NDArray<T>, _ x: NDArray<T>, weight: NDArray<T>? = nil,
                                                  eps: Double = 1e-5) throws(Failure)
    -> (dx: NDArray<T>, dweight: NDArray<T>, dbias: NDArray<T>) {
    let row = Array(x.shape.suffix(1))
    let d = try gradients([x.shape, row, row], gradOut, x, weight) { (t, out) throws(Failure) in
        try layerNormBackward(gradOut: t[0]!, t[1]!, weight: t[2], eps: eps, dx: out[0], dweight: out[1], dbias: out[2])
    } as [NDArray<T>]
    return (d[0], d[1], d[2])
}

/// dx, and dweight, a sum over the rows, of `rmsNorm` with the same weight and eps.
public func rmsNormBackward<T: FloatingElement>(gradOut: NDArray<T>, _ x: NDArray<T>, weight: NDArray<T>? = nil,
                                                eps: Double = 1e-6) throws(Failure) -> (dx: NDArray<T>, dweight: NDArray<T>) {
    let d = try gradients([x.shape, Array(x.shape.suffix(1))], gradOut, x, weight) { (t, out) throws(Failure) in
        try rmsNormBackward(gradOut: t[0]!, t[1]!, weight: t[2], eps: eps, dx: out[0], dweight: out[1])
    } as [NDArray<T>]
    return (d[0], d[1])
}

/// gradOut where x > 0 (or NaN), else 0.
public func reluBackward<T: FloatingElement>(gradOut: NDArray<T>, _ x: NDArray<T>) throws(Failure) -> NDArray<T> {
    try gradients([x.shape], gradOut, x) { (t, out) throws(Failure) in try reluBackward(gradOut: t[0]!, t[1]!, dx: out[0]) }[0]
}

/// gradOut * gelu'(x).
public func geluBackward<T: FloatingElement>(gradOut: NDArray<T>, _ x: NDArray<T>, _ form: GELU = .exact) throws(Failure) -> NDArray<T> {
    try gradients([x.shape], gradOut, x) { (t, out) throws(Failure) in try geluBackward(gradOut: t[0]!, t[1]!, form, dx: out[0]) }[0]
}

/// gradOut * silu'(x).
public func siluBackward<T: FloatingElement>(gradOut: NDArray<T>, _ x: NDArray<T>) throws(Failure) -> NDArray<T> {
    try gradients([x.shape], gradOut, x) { (t, out) throws(Failure) in try siluBackward(gradOut: t[0]!, t[1]!, dx: out[0]) }[0]
}

/// dgate = gradOut * up * silu'(gate), dup = gradOut * silu(gate).
public func swigluBackward<T: FloatingElement>(gradOut: NDArray<T>, gate: NDArray<T>, up: NDArray<T>) throws(Failure)
    -> (dgate: NDArray<T>, dup: NDArray<T>) {
    let d = try gradients([gate.shape, gate.shape], gradOut, gate, up) { (t, out) throws(Failure) in
        try swigluBackward(gradOut: t[0]!, gate: t[1]!, up: t[2]!, dgate: out[0], dup: out[1])
    } as [NDArray<T>]
    return (d[0], d[1])
}

/// dgate = gradOut * up * gelu'(gate), dup = gradOut * gelu(gate).
public func gegluBackward<T: FloatingElement>(gradOut: NDArray<T>, gate: NDArray<T>, up: NDArray<T>,
                                              _ form: GELU = .exact) throws(Failure) -> (dgate: NDArray<T>, dup: NDArray<T>) {
    let d = try gradients([gate.shape, gate.shape], gradOut, gate, up) { (t, out) throws(Failure) in
        try gegluBackward(gradOut: t[0]!, gate: t[1]!, up: t[2]!, form, dgate: out[0], dup: out[1])
    } as [NDArray<T>]
    return (d[0], d[1])
}

/// (rows, N): row v is the sum of gradOut[i, :] over the i with ids[i] = v.
public func embeddingBackward<I: IndexElement, T: FloatingElement>(gradOut: NDArray<T>, ids: NDArray<I>, rows: Int) throws(Failure)
    -> NDArray<T> {
    try gradients([[rows] + gradOut.shape.suffix(1)], gradOut, ids) { (t, out) throws(Failure) in
        try embeddingBackward(gradOut: t[0]!, ids: t[1]!, dtable: out[0])
    }[0]
}

/// gradOut turned back by the angles of `rotaryEmbedding`.
public func rotaryEmbeddingBackward<T: FloatingElement>(gradOut: NDArray<T>, cos: NDArray<T.Computing>, sin: NDArray<T.Computing>,
                                                        positions: NDArray<Int>? = nil,
                                                        pairing: RotaryPairing = .halves) throws(Failure) -> NDArray<T> {
    try gradients([gradOut.shape], gradOut, cos, sin, positions) { (t, out) throws(Failure) in
        try rotaryEmbeddingBackward(gradOut: t[0]!, cos: t[1]!, sin: t[2]!, positions: t[3], pairing: pairing, dx: out[0])
    }[0]
}

/// x / (1 - p), with 0 in place of elements that are dropped; the gradient is the same function of gradOut.
public func dropout<T: FloatingElement>(_ x: NDArray<T>, p: Double, seed: UInt64, draw: UInt64 = 0) throws(Failure) -> NDArray<T> {
    try gradients([x.shape], x) { (t, out) throws(Failure) in try dropout(t[0]!, p: p, seed: seed, draw: draw, out: out[0]) }[0]
}

/// Arrays of these shapes that `body` writes to, from views of the sources.
private func gradients<T: FloatingElement>(_ shapes: [[Int]], _ sources: (any TensorSource)?...,
                                           body: ([Tensor?], [Tensor]) throws(Failure) -> Void) throws(Failure) -> [NDArray<T>] {
    func lend(_ tensors: [Tensor?]) throws(Failure) -> [NDArray<T>] {
        if tensors.count < sources.count {
            guard let source = sources[tensors.count] else { return try lend(tensors + [nil]) }
            return try source.withTensor { (tensor) throws(Failure) in try lend(tensors + [tensor]) }
        }
        var arrays: [NDArray<T>] = []
        func make(_ outputs: [Tensor]) throws(Failure) {
            if outputs.count == shapes.count { return try body(tensors, outputs) }
            let array = try NDArray<T>(shape: Dims(shapes[outputs.count])) { (out) throws(Failure) in try make(outputs + [out]) }
            arrays.insert(array, at: 0)
        }
        try make([])
        return arrays
    }
    return try lend([])
}
