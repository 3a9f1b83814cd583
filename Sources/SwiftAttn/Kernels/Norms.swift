/// layer_norm and rms_norm.

import CAttnKernels

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
    try weight?.expectParameter("weight", of: x)
    try bias?.expectParameter("bias", of: x)
    guard eps >= 0, eps.isFinite else { throw .argument("eps: expected a finite number of at least 0, got \(eps)") }
    try out.expectOutput(like: x, "out", as: "x")
    let written = Output("out", out)
    try written?.expectApart(from: weight, "weight")
    try written?.expectApart(from: bias, "bias")
    try written?.expectApart(fromOrSameAs: x, "x")
    if out.isEmpty { return }

    let columns = x.shape[x.rank - 1]
    let walk = try RowWalk(x.leading(1).shape, [x, out])
    let shape = attn_rows(x, out, columns: columns, stream: out.isStreamed(over: x))
    let grain = ElementCost.normalized.grain(walk.count, columns: columns, x.dtype)

    /* Scratch: the parameters that are not as the kernel wants them, then for strided rows one for each range. */
    let places = (weight: 0, bias: weight?.hasReals(of: x.dtype) == false ? 1 : 0)
    let parameters = places.bias + (bias?.hasReals(of: x.dtype) == false ? 1 : 0)
    try withRowScratch(parameters + (shape.isContiguous ? 0 : max(walk.count / grain, 1)), columns, x.dtype) { scratch in
        let norm = attn_norm(shape: shape, centred: centred, eps: eps,
                             weight: weight?.reals(of: x.dtype, into: scratch.row(places.weight)),
                             bias: bias?.reals(of: x.dtype, into: scratch.row(places.bias)))
        parallelFor(walk.count, grain: grain) { rows in
            let own = shape.isContiguous ? nil : scratch.row(parameters + rows.lowerBound / grain)
            withUnsafePointer(to: norm) { norm in
                walk.forEach(rows) { _, at in attn_norm_row(norm, at[0], at[1], own) }
            }
            if shape.stream { attn_streamed() }
        }
    }
}

extension Tensor {
    /// A weight or bias of a norm of x's rows.
    func expectParameter(_ name: StaticString, of x: Tensor) throws(Failure) {
        try checked(name).expect(rank: 1...1, name)
        try expect(shape: [x.shape[x.rank - 1]], name)
        guard dtype == .float32 || dtype == x.dtype else {
            throw .dtype("\(name): dtype is \(dtype), expected float32\(x.dtype == .float32 ? "" : " or \(x.dtype)")")
        }
    }
}
