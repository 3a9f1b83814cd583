/// Token ids as the input of a model: a batch with padding, or packed sequences.

/// Checked ids (B, T), or packed (rows,) with offsets.
struct TokenRows {
    let ids: Tensor
    let batch: Int
    /// Of packed sequences.
    let offsets: [Int]?
    let starts: Starts?
    let keptStarts: Value?
    private let visibility: Visibility

    init(_ ids: Tensor, _ call: TokenCall, _ pass: Pass) throws(Failure) {
        try ids.checked("ids").expect(rank: call.starts == nil ? 2...2 : 1...1, "ids")
        if let types = call.types { try types.checked("type_ids").expect(shape: ids.shape, "type_ids") }
        self.ids = ids
        visibility = call.visibility
        keptStarts = try call.starts.map { (starts) throws(Failure) in try pass.keep(starts.checked("cu_seqlens")) }
        starts = keptStarts.map { Starts(queries: $0.tensor, keys: $0.tensor) }
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
    func firstRows(_ x: Value, out: Value, _ pass: Pass) throws(Failure) {
        let tokens = offsets == nil ? ids.shape[1] : 0
        let first = offsets.map { Array($0.dropLast()) } ?? (0..<batch).map { $0 * tokens }
        for b in 0..<batch where offsets.map({ $0[b + 1] == $0[b] }) ?? (tokens == 0) {
            throw .argument("cu_seqlens: sequence \(b) is empty, expected at least one token for the first row")
        }
        let numbers = first.map(Int64.init), width = out.tensor.shape[1]
        let rows = x.tensor.shape.reduce(1, *) / max(width, 1)
        let table = x.tensor.reshaped([rows, width], strides: [width, 1])
        try numbers.withTensor { (numbers) throws(Failure) in try embedding(numbers, table: table, out: out.tensor) }
        pass.tape?.record { [unowned pass] () throws(Failure) in
            guard let gradient = out.takeGradient() else { return }
            let dx = try pass.target(of: x)
            try numbers.withTensor { (numbers) throws(Failure) in
                try embeddingBackward(gradOut: gradient.tensor, ids: numbers, dtable: dx.tensor.reshaped([rows, width], strides: [width, 1]))
            }
            dx.finish()
        }
    }

    /// Rows (B, T, E) or packed (rows, E) -> the mean over each sequence without its padding, (B, E): attention with scores
    /// of 0, by queries and keys of 0 dims.
    func means(_ source: Value, out result: Value, _ pass: Pass) throws(Failure) {
        let x = source.tensor, out = result.tensor
        let width = out.shape[1], rows = x.shape[0]
        if let starts {
            let one = (0...Int32(batch)).map { $0 }
            let none = Tensor(data: nil, dtype: x.dtype, shape: [batch, 1, 0])
            let keys = Tensor(data: nil, dtype: x.dtype, shape: [rows, 1, 0])
            let lse = try pass.value(x.dtype.computing, [1, batch])
            func asHead(_ t: Tensor) -> Tensor { t.reshaped([t.shape[0], 1, width], strides: [t.strides[0], 0, t.strides[1]]) }
            try one.withTensor { (one) throws(Failure) in
                try attentionVarlen(query: none, key: keys, value: asHead(x), cumulativeQueries: one, cumulativeKeys: starts.keys,
                                    out: asHead(out), lse: lse.tensor)
            }
            pass.tape?.record { [unowned pass] () throws(Failure) in
                guard let gradient = result.takeGradient() else { return }
                let dx = try pass.target(of: source)
                try one.withTensor { (one) throws(Failure) in
                    try attentionVarlenBackward(outGradient: asHead(gradient.tensor), query: none, key: keys, value: asHead(x),
                                                out: asHead(result.tensor), lse: lse.tensor, cumulativeQueries: one,
                                                cumulativeKeys: starts.keys, dq: nil, dk: nil, dv: asHead(dx.tensor))
                }
                dx.finish()
            }
            return
        }
        let tokens = x.shape[1]
        let visible = try ResolvedVisibility(
            Visibility(keyPaddingMask: visibility.keyPaddingMask),
            MaskedShape(batch: batch, heads: 1, queries: 1, keys: tokens, dtype: x.dtype, isBatched: true), selfNames, pass)
        let query = Tensor(data: nil, dtype: x.dtype, shape: [batch, 1, 1, 0])
        let key = Tensor(data: nil, dtype: x.dtype, shape: [batch, 1, tokens, 0])
        let lse = try pass.value(x.dtype.computing, [batch, 1, 1])
        func asKeys(_ t: Tensor) -> Tensor {
            t.reshaped([batch, 1, tokens, width], strides: [t.strides[0], 0, t.strides[1], t.strides[2]])
        }
        func asQuery(_ t: Tensor) -> Tensor { t.reshaped([batch, 1, 1, width], strides: [t.strides[0], 0, 0, t.strides[1]]) }
        try scaledDotProductAttention(query: query, key: key, value: asKeys(x), options: visible.options, out: asQuery(out),
                                      lse: lse.tensor)
        pass.tape?.record { [unowned pass] () throws(Failure) in
            guard let gradient = result.takeGradient() else { return }
            let dx = try pass.target(of: source)
            try withExtendedLifetime(visible) { () throws(Failure) in
                try scaledDotProductAttentionBackward(
                    outGradient: asQuery(gradient.tensor), query: query, key: key, value: asKeys(x), out: asQuery(result.tensor),
                    lse: lse.tensor, options: visible.options, dq: nil, dk: nil, dv: asKeys(dx.tensor))
            }
            dx.finish()
        }
    }
}
