/// Matrix products of tensors, as NumPy's and PyTorch's matmul.

/// out = a · b.
///
/// - Parameters:
///   - a: (..., M, K); rank 1 is (1, K), and out then lacks that dim.
///   - b: (..., K, N); rank 1 is (K, 1), likewise.
///   - out: (..., M, N), leading dims broadcast; written.
/// - Throws: `Failure` for whatever does not fit; out is then untouched.
///
/// The order of a sum depends on K alone. K = 0 gives zeros.
public func matmul(_ a: Tensor, _ b: Tensor, precision: Precision = .highest, out: Tensor) throws(Failure) {
    try Library.requireKernels()
    for (name, tensor) in [("a", a), ("b", b)] as [(StaticString, Tensor)] {
        try tensor.checked(name).expect(rank: 1...Dims.capacity, name)
    }
    try a.expectFloating("a")
    try b.expect(dtype: a.dtype, "b", as: "a")
    try out.expect(dtype: a.dtype, "out", as: "a")

    let left = a.rank == 1 ? a.reshaped([1, a.shape[0]], strides: [0, a.strides[0]]) : a
    let right = b.rank == 1 ? b.reshaped([b.shape[0], 1], strides: [b.strides[0], 0]) : b
    let k = left.shape[left.rank - 1]
    guard right.shape[right.rank - 2] == k else {
        throw .shape("b: shape is \(b.shape), expected \(k) in the dim that meets a's last")
    }
    let leading = try broadcastShapes(left.leading(2).shape, right.leading(2).shape, "b")
    let m = left.shape[left.rank - 2], n = right.shape[right.rank - 1]
    var shape = Array(leading)
    if a.rank > 1 { shape.append(m) }
    if b.rank > 1 { shape.append(n) }
    try out.expect(shape: Dims(shape), "out")
    try out.checkOutput("out")
    try Output("out", out)?.expectApart(from: a, "a")
    try Output("out", out)?.expectApart(from: b, "b")

    var strides = Array(out.strides)
    if a.rank == 1 { strides.insert(0, at: leading.count) }
    if b.rank == 1 { strides.append(0) }
    try Gemm(a: left.broadcast(to: leading, kept: 2, "a"), b: right.broadcast(to: leading, kept: 2, "b"),
             c: out.reshaped(Array(leading) + [m, n], strides: strides), precision: precision).run()
}
