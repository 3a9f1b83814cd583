/// Token ids as the input of a model: a batch with padding, or packed sequences.

/// Checked ids (B, T), or packed (rows,) with offsets.
struct TokenRows {
    let ids: Tensor
    let batch: Int
    /// Of packed sequences.
    let offsets: [Int]?
    let starts: Starts?
    private let visibility: Visibility

    init(_ ids: Tensor, _ call: TokenCall) throws(Failure) {
        try ids.checked("ids").expect(rank: call.starts == nil ? 2...2 : 1...1, "ids")
        if let types = call.types { try types.checked("type_ids").expect(shape: ids.shape, "type_ids") }
        self.ids = ids
        visibility = call.visibility
        starts = call.starts.map { Starts(queries: $0, keys: $0) }
        offsets = try call.starts.map { (starts) throws(Failure) in try starts.cumulative("cu_seqlens", total: ids.shape[0]) }
        batch = offsets.map { $0.count - 1 } ?? ids.shape[0]
    }

    /// What the tokens see of one another.
    func resolve(_ layer: LayerOptions, _ pass: Pass) throws(Failure) -> ResolvedVisibility {
        if starts != nil { return try ResolvedVisibility(packed: visibility) }
        let shape = MaskedShape(batch: batch, heads: layer.heads, queries: ids.shape[1], keys: ids.shape[1],
                                dtype: layer.dtype, isBatched: true)
        return try ResolvedVisibility(visibility, shape, selfNames, pass)
    }

    /// Rows (B, T, E) or packed (rows, E) -> the first row of each sequence, (B, E).
    func firstRows(_ x: Tensor, out: Tensor) throws(Failure) {
        guard let offsets else {
            guard ids.shape[1] > 0 || batch == 0 else { throw .shape("ids: expected at least one token for the first row") }
            return try copyConverting(x.reshaped([batch, x.shape[2]], strides: [x.strides[0], x.strides[2]]), to: out)
        }
        for b in 0..<batch where offsets[b + 1] == offsets[b] {
            throw .argument("cu_seqlens: sequence \(b) is empty, expected at least one token for the first row")
        }
        try offsets.dropLast().map(Int64.init).withTensor { (rows) throws(Failure) in
            try embedding(rows, table: x, out: out)
        }
    }

    /// Rows (B, T, E) or packed (rows, E) -> the mean over each sequence without its padding, (B, E): attention with scores
    /// of 0, by queries and keys of 0 dims.
    func means(_ x: Tensor, out: Tensor, _ pass: Pass) throws(Failure) {
        let width = out.shape[1]
        if let starts {
            let one = (0...Int32(batch)).map { $0 }
            let none = Tensor(data: nil, dtype: x.dtype, shape: [batch, 1, 0])
            let keys = Tensor(data: nil, dtype: x.dtype, shape: [x.shape[0], 1, 0])
            try one.withTensor { (one) throws(Failure) in
                try attentionVarlen(query: none, key: keys, value: x.reshaped([x.shape[0], 1, width], strides: [x.strides[0], 0, x.strides[1]]),
                                    cumulativeQueries: one, cumulativeKeys: starts.keys,
                                    out: out.reshaped([batch, 1, width], strides: [out.strides[0], 0, out.strides[1]]))
            }
            return
        }
        let tokens = x.shape[1]
        let visible = try ResolvedVisibility(
            Visibility(keyPaddingMask: visibility.keyPaddingMask),
            MaskedShape(batch: batch, heads: 1, queries: 1, keys: tokens, dtype: x.dtype, isBatched: true), selfNames, pass)
        try scaledDotProductAttention(
            query: Tensor(data: nil, dtype: x.dtype, shape: [batch, 1, 1, 0]),
            key: Tensor(data: nil, dtype: x.dtype, shape: [batch, 1, tokens, 0]),
            value: x.reshaped([batch, 1, tokens, width], strides: [x.strides[0], 0, x.strides[1], x.strides[2]]),
            options: visible.options, out: out.reshaped([batch, 1, 1, width], strides: [out.strides[0], 0, 0, out.strides[1]]))
    }
}
