/// The fused linear layer.

/// out = residual + activation(x · weightᵀ + bias).
///
/// - Parameters:
///   - x: (..., K).
///   - weight: (N, K), as PyTorch's.
///   - bias: (N,).
///   - residual: broadcast to (..., N).
///   - out: (..., N), written; may be the residual itself.
/// - Throws: `Failure` for whatever does not fit; out is then untouched.
///
/// Sum, bias, activation and residual are taken in float32 (float64 for float64) and rounded once. A row's result does not
/// depend on the number of rows.
public func linear(_ x: Tensor, weight: Tensor, bias: Tensor? = nil, residual: Tensor? = nil,
                   activation: Activation = .none, precision: Precision = .highest, out: Tensor) throws(Failure) {
    try run(x, weight, nil, bias, residual, activation, precision, out)
}

/// The same with a weight that was packed before: the same result, bit for bit.
public func linear(_ x: Tensor, weight: PackedWeight, bias: Tensor? = nil, residual: Tensor? = nil,
                   activation: Activation = .none, precision: Precision = .highest, out: Tensor) throws(Failure) {
    /* Its shape without its elements, which are in the pack. */
    let shape = Tensor(data: weight.memory, dtype: weight.dtype, shape: weight.shape, strides: [0, 0])
    try run(x, shape, weight, bias, residual, activation, precision, out)
}

private func run(_ x: Tensor, _ weight: Tensor, _ packed: PackedWeight?, _ bias: Tensor?, _ residual: Tensor?,
                 _ activation: Activation, _ precision: Precision, _ out: Tensor) throws(Failure) {
    let shape = try linearShape(x, weight)
    let n = weight.shape[0]
    try bias?.checked("bias").expect(shape: [n], "bias")
    if let residual { _ = try residual.checked("residual").broadcast(toShape: shape, "residual") }
    try weight.expect(dtype: x.dtype, "weight", as: "x")
    try bias?.expect(dtype: x.dtype, "bias", as: "x")
    try residual?.expect(dtype: x.dtype, "residual", as: "x")
    try out.expect(dtype: x.dtype, "out", as: "x")
    try out.expect(shape: shape, "out")
    try out.checkOutput("out")
    let written = Output("out", out)
    try written?.expectApart(from: x, "x")
    try written?.expectApart(from: weight, "weight")
    try written?.expectApart(from: bias, "bias")
    try written?.expectApart(fromOrSameAs: residual, "residual")

    let wide = try residual?.broadcast(toShape: shape, "residual")
    let rows = Rows(of: wide.map { [x, out, $0] } ?? [x, out])
    let w = weight.permuting([1, 0])
    try Gemm(a: rows.matrix(x), b: w.broadcast(to: rows.leading, kept: 2, "weight"), c: rows.matrix(out),
             residual: wide.map(rows.matrix), bias: bias, activation: activation, precision: precision, packed: packed).run()
}

/// The shape (..., N) of x · weightᵀ, for the layer and for its gradients.
func linearShape(_ x: Tensor, _ weight: Tensor) throws(Failure) -> Dims {
    try Library.requireKernels()
    try x.checked("x").expect(rank: 1...Dims.capacity, "x")
    try x.expectFloating("x")
    try weight.checked("weight").expect(rank: 2...2, "weight")
    let k = x.shape[x.rank - 1]
    guard weight.shape[1] == k else { throw .shape("weight: shape is \(weight.shape), x has \(k) features") }
    return x.shape.withLast(weight.shape[0])
}

/// How the leading dims of equally shaped tensors are read as rows of matrices: the trailing ones of them that every
/// tensor steps through evenly make one row index, the rest remain a batch.
struct Rows {
    private(set) var leading = Dims()
    private var batchDims = Dims()
    private var rowDim: Int?
    private var count = 1

    init(of tensors: [Tensor]) {
        let shape = tensors[0].shape
        for dim in 0..<shape.count - 1 where shape[dim] != 1 { batchDims.append(dim) }
        if let row = batchDims.last {
            rowDim = row
            count = shape[row]
            batchDims = batchDims.droppingLast(1)
            while let next = batchDims.last, tensors.allSatisfy({ $0.strides[next] == $0.strides[row] &* count }) {
                count *= shape[next]
                batchDims = batchDims.droppingLast(1)
            }
        }
        for dim in batchDims { leading.append(shape[dim]) }
    }

    func matrix(_ t: Tensor) -> Tensor {
        var shape = leading, strides = Dims()
        for dim in batchDims { strides.append(t.strides[dim]) }
        shape.append(count)
        strides.append(rowDim.map { t.strides[$0] } ?? 0)
        shape.append(t.shape[t.rank - 1])
        strides.append(t.strides[t.rank - 1])
        return Tensor(data: t.data, dtype: t.dtype, shape: shape, strides: strides)
    }
}
