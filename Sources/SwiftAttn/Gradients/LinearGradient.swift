/// Gradients of the linear layer.

import CAttnKernels

/// With z = x · weightᵀ + bias, out = residual + activation(z) and g = gradOut * activation'(z):
/// dx = g · weight, dweight = gᵀ · x, dbias = Σ g over the rows; the residual's gradient is gradOut itself.
///
/// - Parameters:
///   - gradOut: (..., N).
///   - x: (..., K), weight: (N, K), bias: (N,), as they were given to `linear`.
///   - preActivation: z (..., N) as it was kept; nil: it is computed again from x, weight and bias. Only read if there is an
///     activation.
///   - dx: as x; dweight: as weight; dbias: (N,); of one dtype, written.
/// - Throws: `Failure` for whatever does not fit; the outputs are then untouched.
///
/// An output that is nil is not computed. The order of sums over rows depends on their number alone.
public func linearBackward(gradOut: Tensor, _ x: Tensor, weight: Tensor, bias: Tensor? = nil, preActivation: Tensor? = nil,
                           activation: Activation = .none, precision: Precision = .highest, dx: Tensor? = nil,
                           dweight: Tensor? = nil, dbias: Tensor? = nil) throws(Failure) {
    let shape = try linearShape(x, weight), n = weight.shape[0]
    try gradOut.checked("grad_out").expect(shape: shape, "grad_out")
    try bias?.checked("bias").expect(shape: [n], "bias")
    try preActivation?.checked("pre_activation").expect(shape: shape, "pre_activation")
    try dx?.checkedOutput("dx").expect(shape: x.shape, "dx")
    try dweight?.checkedOutput("dweight").expect(shape: weight.shape, "dweight")
    try dbias?.checkedOutput("dbias").expect(shape: [n], "dbias")
    let inputs: [(StaticString, Tensor?)] = [("grad_out", gradOut), ("x", x), ("weight", weight), ("bias", bias),
                                             ("pre_activation", preActivation)]
    let outputs: [(StaticString, Tensor?)] = [("dx", dx), ("dweight", dweight), ("dbias", dbias)]
    for (name, tensor) in inputs + outputs { try tensor?.expect(dtype: x.dtype, name, as: "x") }
    try expectApart(outputs, from: inputs)

    let pool = Pool()
    var gradient = Value(lent: gradOut)
    if activation != .none && !gradOut.isEmpty {
        var z = preActivation.map { Value(lent: $0) }
        if z == nil {
            let made = try Value(x.dtype, shape, in: pool)
            try linear(x, weight: weight, bias: bias, precision: precision, out: made.tensor)
            z = made
        }
        gradient = try Value(x.dtype, shape, in: pool)
        try activationBackward(activation, gradOut: gradOut, z!.tensor, dx: gradient.tensor)
    }
    if let dx {
        let rows = Rows(of: [gradient.tensor, dx])
        try Gemm(a: rows.matrix(gradient.tensor), b: weight.broadcast(to: rows.leading, kept: 2, "weight"), c: rows.matrix(dx),
                 precision: precision).run()
    }
    if dweight == nil && dbias == nil { return }

    /* One matrix of all rows, copied where the leading dims do not step evenly. */
    var source = Value(lent: x)
    if !Rows(of: [gradient.tensor, x]).leading.isEmpty {
        source = try contiguous(x, pool)
        gradient = try contiguous(gradient.tensor, pool)
    }
    let rows = Rows(of: [gradient.tensor, source.tensor])
    let g = rows.matrix(gradient.tensor)
    if let dweight {
        let turned = g.permuting([1, 0])
        try Gemm(a: turned, b: rows.matrix(source.tensor), c: dweight, precision: precision).run()
    }
    if let dbias { try sumRows(g, out: dbias) }
}

private func contiguous(_ x: Tensor, _ pool: Pool) throws(Failure) -> Value {
    let copy = try Value(x.dtype, x.shape, in: pool)
    try copyConverting(x, to: copy.tensor)
    return copy
}

/// out[j] = Σ x[i, j] of a matrix x (R, N), out (N,) of x's dtype.
func sumRows(_ x: Tensor, out: Tensor) throws(Failure) {
    let rows = x.shape[0], columns = x.shape[1]
    if columns == 0 { return }
    try RowSums.with(rows: rows, columns: columns, x.dtype) { (sums) throws(Failure) in
        let grain = ElementCost.moved.grain(sums.chunks, columns: RowSums.chunk * columns, x.dtype)
        let column = columns == 1 ? 1 : Int64(x.strides[1])
        parallelFor(sums.chunks, grain: grain) { chunks in
            for chunk in chunks {
                let range = RowSums.rows(chunk, of: rows)
                attn_add_rows(x.dtype.kernel, Int64(columns), x.pointer(byOffset: range.lowerBound &* x.strides[0]),
                              Int64(x.strides[0] &* x.dtype.size), column, nil, Int64(range.count), sums.place(chunk))
            }
        }
        sums.store(out)
    }
}
