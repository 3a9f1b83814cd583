/// Additive attention, checked, with its projections: what forward and backward share.

import CAttnKernels

/// The tensors of additive attention.
public struct AdditiveInputs {
    /// (..., Tq, Dq)
    public var query: Tensor
    /// (..., Tk, Dk)
    public var key: Tensor
    /// (..., Tk, Dv)
    public var value: Tensor
    /// (H, Dq)
    public var queryWeight: Tensor
    /// (H, Dk)
    public var keyWeight: Tensor
    /// (H,)
    public var scoreWeight: Tensor
    /// bool (true is visible) or float (added) of query's dtype or float32, broadcast to (..., Tq, Tk).
    public var mask: Tensor?

    public init(query: Tensor, key: Tensor, value: Tensor, queryWeight: Tensor, keyWeight: Tensor, scoreWeight: Tensor,
                mask: Tensor? = nil) {
        self.query = query
        self.key = key
        self.value = value
        self.queryWeight = queryWeight
        self.keyWeight = keyWeight
        self.scoreWeight = scoreWeight
        self.mask = mask
    }

    var named: [(StaticString, Tensor?)] {
        [("query", query), ("key", key), ("value", value), ("w_query", queryWeight), ("w_key", keyWeight),
         ("v_score", scoreWeight), ("attn_mask", mask)]
    }
}

struct AdditiveProblem {
    let inputs: AdditiveInputs
    /// Broadcast of the leading dims.
    let leading: Dims
    let queries, keys, hidden, columns: Int
    var dtype: DType { inputs.query.dtype }

    init(_ inputs: AdditiveInputs) throws(Failure) {
        try Library.requireKernels()
        let query = inputs.query, key = inputs.key, value = inputs.value
        try query.checked("query").expectFloating("query")
        for (name, tensor) in inputs.named.dropLast() {
            try tensor!.checked(name).expect(dtype: query.dtype, name, as: "query")
        }
        for (name, tensor) in [("query", query), ("key", key), ("value", value)] as [(StaticString, Tensor)] {
            try tensor.expect(rank: 2...Dims.capacity, name)
        }
        try inputs.scoreWeight.expect(rank: 1...1, "v_score")
        hidden = inputs.scoreWeight.shape[0]
        queries = query.shape[query.rank - 2]
        keys = key.shape[key.rank - 2]
        columns = value.shape[value.rank - 1]
        try inputs.queryWeight.expect(shape: [hidden, query.shape[query.rank - 1]], "w_query")
        try inputs.keyWeight.expect(shape: [hidden, key.shape[key.rank - 1]], "w_key")
        guard value.shape[value.rank - 2] == keys else {
            throw .shape("value: shape is \(value.shape), key has \(keys) rows")
        }
        leading = try broadcastShapes(broadcastShapes(query.leading(2).shape, key.leading(2).shape, "key"),
                                      value.leading(2).shape, "value")
        self.inputs = inputs
        guard let mask = inputs.mask else { return }
        guard mask.dtype == .bool || mask.dtype == .float32 || mask.dtype == query.dtype else {
            throw .dtype("attn_mask: dtype is \(mask.dtype), expected bool, float32 or \(query.dtype)")
        }
        _ = try mask.checked("attn_mask").broadcast(toShape: shape(keys), "attn_mask")
    }

    /// (..., Tq, columns)
    func shape(_ columns: Int) -> Dims {
        var result = leading
        result.append(queries)
        result.append(columns)
        return result
    }

    func mask() throws(Failure) -> Tensor? { try inputs.mask?.broadcast(toShape: shape(keys), "attn_mask") }
}

/// Rows in the computing type, side by side, and what the kernel wants of them.
final class AdditiveProjection {
    /// x in the computing type, its rows contiguous: the tensor itself, or a copy.
    let x: Value
    /// The weight likewise.
    let weight: Value
    /// x · weightᵀ, (..., T, padded).
    let sums: Value
    private let exps: Value
    private let largest: Value
    let padded: Int

    init(_ x: Tensor, _ weight: Tensor, _ pool: Pool) throws(Failure) {
        self.x = try x.asReals(pool)
        self.weight = try weight.asReals(pool)
        let hidden = weight.shape[0], dtype = x.dtype.computing, block = Int(ATTN_ADDITIVE_BLOCK)
        guard hidden < Int.max - block else { throw Failure.outOfMemory }
        padded = (hidden + block - 1) / block * block
        let shape = x.shape.withLast(padded)
        sums = try Value(dtype, shape, in: pool)
        exps = try Value(dtype, shape, in: pool)
        largest = try Value(dtype, x.leading(1).shape, in: pool)
        if sums.tensor.isEmpty { return }
        var out = sums.tensor
        out.shape[out.rank - 1] = hidden
        try linear(self.x.tensor, weight: self.weight.tensor, out: out)
        let rows = largest.tensor.shape.reduce(1, *), step = padded * dtype.size, padded = padded
        let (sums, exps, largest) = (sums.tensor.data!, exps.tensor.data!, largest.tensor.data!)
        parallelFor(rows, grain: ElementCost.exponential.grain(rows, columns: padded, dtype)) { range in
            for row in range {
                attn_additive_prepare(dtype.kernel, Int64(hidden), Int64(padded), sums + row * step, exps + row * step,
                                      largest + row * dtype.size)
            }
        }
    }

    /// Whether a row holds NaN or an infinity.
    var isOdd: Bool {
        let rows = largest.tensor.shape.reduce(1, *), data = largest.tensor.pointer(byOffset: 0)
        if largest.tensor.dtype == .float64 {
            return (0..<rows).contains { !data.load(fromByteOffset: 8 * $0, as: Double.self).isFinite }
        }
        return (0..<rows).contains { !data.load(fromByteOffset: 4 * $0, as: Float.self).isFinite }
    }

    /// The rows of entry `entry` of x's own leading dims.
    func rows(_ entry: Int) -> attn_additive_rows {
        let count = sums.tensor.shape[sums.tensor.rank - 2], size = sums.tensor.dtype.size
        return attn_additive_rows(sums: sums.tensor.pointer(byOffset: entry &* count &* padded),
                                  exps: exps.tensor.pointer(byOffset: entry &* count &* padded),
                                  largest: largest.tensor.pointer(byOffset: 0) + entry &* count &* size)
    }
}

extension AdditiveProblem {
    /// The score's weights, padded with zeros.
    func paddedScoreWeight(_ padded: Int, _ pool: Pool) throws(Failure) -> Value {
        let v = try Value(dtype.computing, [padded], in: pool)
        let bytes = UnsafeMutableRawBufferPointer(start: v.tensor.data, count: padded * dtype.computing.size)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        attn_load_row(dtype.kernel, inputs.scoreWeight.data, Int64(inputs.scoreWeight.strides[0]), Int64(hidden), v.tensor.data)
        return v
    }

    /// For each entry of the leading dims in row-major order: the entry of `tensor`'s own leading dims that it reads.
    func entries(of tensor: Tensor) throws(Failure) -> [Int] {
        let own = tensor.leading(2).shape
        let numbers = Tensor(data: nil, dtype: .int64, shape: own)  // its strides count entries
        let wide = try numbers.broadcast(toShape: leading, "leading dims")
        var result: [Int] = []
        forEachOffset(leading, wide.strides) { _, offset in result.append(offset) }
        return result
    }
}

extension Tensor {
    /// This tensor in the type it is computed in, its last dim contiguous: as it is, or a contiguous copy.
    func asReals(_ pool: Pool) throws(Failure) -> Value {
        if dtype == dtype.computing && (strides[rank - 1] == 1 || shape[rank - 1] <= 1) { return Value(lent: self) }
        let copy = try Value(dtype.computing, shape, in: pool)
        try copyConverting(self, to: copy.tensor)
        return copy
    }
}
