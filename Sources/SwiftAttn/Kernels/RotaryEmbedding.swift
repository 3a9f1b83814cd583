/// Rotation of queries and keys by their positions, and back.

import CAttnKernels

/// Which elements of a row are turned together; R of them in all.
public enum RotaryPairing: Int32, Sendable {
    /// (i, i + R/2), as GPT-NeoX and Hugging Face's Llama.
    case halves = 0
    /// (2i, 2i + 1), as the paper and Meta's Llama.
    case neighbours = 1
}

/// out[a] = x[a] cos - x[b] sin, out[b] = x[b] cos + x[a] sin for each pair (a, b) of a row; what lies behind the first R
/// elements is copied.
///
/// - Parameters:
///   - x: (..., T, D) floating; with three dims or more (..., H, T, D).
///   - cos, sin: (length, R / 2), R <= D, of x's dtype or float32; of one dtype.
///   - positions: int32 or int64, rows of the tables for each row of x, broadcast to (..., T) without H. nil: row t is t.
///   - out: as x, written; may be x itself.
/// - Throws: `Failure` for whatever does not fit, a position out of the tables included; out is then untouched.
///
/// Source: Su et al. 2021.
public func rotaryEmbedding(_ x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor? = nil, pairing: RotaryPairing = .halves,
                            out: Tensor) throws(Failure) {
    try rotate(x, "x", cos, sin, positions, pairing, isBack: false, out, "out")
}

/// The gradient of x from that of out: the rotation by the same angles the other way round. Arguments as
/// `rotaryEmbedding`'s; dx may be the gradient itself.
public func rotaryEmbeddingBackward(gradOut: Tensor, cos: Tensor, sin: Tensor, positions: Tensor? = nil,
                                    pairing: RotaryPairing = .halves, dx: Tensor) throws(Failure) {
    try rotate(gradOut, "grad_out", cos, sin, positions, pairing, isBack: true, dx, "dx")
}

private func rotate(_ x: Tensor, _ name: StaticString, _ cos: Tensor, _ sin: Tensor, _ positions: Tensor?,
                    _ pairing: RotaryPairing, isBack: Bool, _ out: Tensor, _ outName: StaticString) throws(Failure) {
    try Library.requireKernels()
    try x.checked(name).expect(rank: 2...Dims.capacity, name)
    try x.expectFloating(name)
    try cos.checked("cos").expect(rank: 2...2, "cos")
    try sin.checked("sin").expect(shape: cos.shape, "sin")
    guard cos.dtype == .float32 || cos.dtype == x.dtype else {
        throw .dtype("cos: dtype is \(cos.dtype), expected float32\(x.dtype == .float32 ? "" : " or \(x.dtype)")")
    }
    try sin.expect(dtype: cos.dtype, "sin", as: "cos")
    let columns = x.shape[x.rank - 1], rows = x.shape[x.rank - 2], pairs = cos.shape[1]
    guard pairs <= columns / 2 else {
        throw .shape("cos: shape is \(cos.shape), expected at most \(columns / 2) columns, half of what \(name)'s rows have")
    }
    try out.expectOutput(like: x, outName, as: name)
    let written = Output(outName, out)
    try written?.expectApart(from: cos, "cos")
    try written?.expectApart(from: sin, "sin")
    try written?.expectApart(from: positions, "position_ids")
    try written?.expectApart(fromOrSameAs: x, "\(name)")

    let ids = try positions?.asPositions(of: x)
    if let ids { try ids.checkIndices("position_ids", 0..<cos.shape[0]) }
    else if rows > cos.shape[0] {
        throw .shape("cos: shape is \(cos.shape), expected at least \(rows) rows for as many positions")
    }
    if out.isEmpty { return }

    let walk = try RowWalk(x.leading(1).shape, [x, out] + (ids.map { [$0] } ?? []))
    let layout = attn_rotary(shape: attn_rows(x, out, columns: columns, stream: false), pairs: Int64(pairs),
                             neighbours: pairing == .neighbours, back: isBack)
    let isWide = ids?.dtype == .int64, isDirect = ids == nil
    /* Rows of the tables as the kernel reads them: in place, or converted for each range. */
    let isReady = pairs == 0 || (cos.hasRealRows(of: x.dtype) && sin.hasRealRows(of: x.dtype))
    let grain = ElementCost.moved.grain(walk.count, columns: columns, x.dtype)
    try withRowScratch(isReady ? 0 : 2 * max(walk.count / grain, 1), pairs, x.dtype) { scratch in
        parallelFor(walk.count, grain: grain) { range in
            let own = 2 * (range.lowerBound / grain)
            withUnsafePointer(to: layout) { layout in
                walk.forEach(range) { row, at in
                    let position = isDirect ? row % rows : loadIndex(isWide, at[2])
                    attn_rotary_row(layout, at[0], cos.realRow(position, of: x.dtype, isReady, scratch.row(own)),
                                    sin.realRow(position, of: x.dtype, isReady, scratch.row(own + 1)), at[1])
                }
            }
        }
    }
}

extension Tensor {
    /// These positions for each row of x (..., H, T, D): broadcast to (..., T), and the same for every head.
    fileprivate func asPositions(of x: Tensor) throws(Failure) -> Tensor {
        try expectIndices("position_ids")
        let leading = x.leading(1).shape
        if leading.count == 1 { return try checked("position_ids").broadcast(toShape: leading, "position_ids") }
        var shape = leading.droppingLast(2)
        shape.append(leading[leading.count - 1])
        var result = try checked("position_ids").broadcast(toShape: shape, "position_ids")
        result.shape.insert(leading[leading.count - 2], at: leading.count - 2)
        result.strides.insert(0, at: leading.count - 2)
        return result
    }

    fileprivate func hasRealRows(of dtype: DType) -> Bool { self.dtype == dtype.computing && strides[rank - 1] == 1 }

    /// Row i in the computing type of `dtype`: where it is, or converted into `place`.
    @inline(__always)
    fileprivate func realRow(_ i: Int, of dtype: DType, _ isReady: Bool, _ place: UnsafeMutableRawPointer?) -> UnsafeRawPointer {
        let row = UnsafeRawPointer(pointer(byOffset: i &* strides[0]))
        if isReady { return row }
        let one = Tensor(data: UnsafeMutableRawPointer(mutating: row), dtype: self.dtype, shape: [shape[1]], strides: [strides[1]])
        return one.reals(of: dtype, into: place)
    }
}
