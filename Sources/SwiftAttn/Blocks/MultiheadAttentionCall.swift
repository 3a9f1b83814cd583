/// Running a `MultiheadAttention` on tensors of the caller: the checks, and the shapes that torch.nn allows.

/// What a call of `MultiheadAttention` takes beside its inputs.
public struct MultiheadAttentionCall: Sendable {
    public var visibility = Visibility()
    /// Sequences packed without padding, instead of a batch.
    public var starts: Starts?
    /// The weights' output is the mean over the heads.
    public var averagesWeights = false

    public init() {}
}

/// Where packed sequences begin: (B + 1,) int32 or int64 each, from 0 to the number of rows.
public struct Starts: Sendable {
    public var queries: Tensor
    public var keys: Tensor

    public init(queries: Tensor, keys: Tensor) {
        self.queries = queries
        self.keys = keys
    }
}

extension MultiheadAttention {
    /// out = concat(softmax(scale * Q_h K_hᵀ) V_h) W_oᵀ + b_o, in the shapes of torch.nn.MultiheadAttention with
    /// batch_first=True.
    ///
    /// - Parameters:
    ///   - query: (B, T, E), (T, E), or packed (rows, E) with `call.starts`; of the module's dtype, as key and value.
    ///   - key: (B, S, keyDim), or likewise.
    ///   - value: (B, S, valueDim), or likewise. Passing one tensor for key and value, or for all three, saves work.
    ///   - out: as query, written.
    ///   - weights: (B, heads, T, S), without heads if averaged and without B if query is, written: softmax(scale * Q Kᵀ),
    ///     S including the extra keys. float32 or the module's dtype; the latter if averaged.
    /// - Throws: `Failure` for whatever does not fit; out and weights are then untouched.
    ///
    /// A query that sees no key has weights and heads of 0, and with them an output of the projection's bias.
    public func forward(query: Tensor, key: Tensor, value: Tensor, _ call: MultiheadAttentionCall = .init(),
                        out: Tensor, weights: Tensor? = nil) throws(Failure) {
        let isPacked = call.starts != nil, isBatched = !isPacked && query.rank == 3
        let width = options.embedDim
        let inputs: [(name: StaticString, tensor: Tensor, width: Int)] = [
            ("query", query, width), ("key", key, options.keyDim ?? width), ("value", value, options.valueDim ?? width),
        ]
        for (name, tensor, width) in inputs {
            try tensor.checked(name).expect(dtype: options.dtype, name, as: "the module")
            try tensor.expect(rank: isPacked ? 2...2 : isBatched ? 3...3 : 2...3, name)
            guard tensor.rank == query.rank else { throw .shape("\(name): rank is \(tensor.rank), query has \(query.rank)") }
            guard tensor.shape[tensor.rank - 1] == width else {
                throw .shape("\(name): shape is \(tensor.shape), expected \(width) in the last dim")
            }
            if isBatched && tensor.shape[0] != query.shape[0] {
                throw .shape("\(name): batch is \(tensor.shape[0]), query has \(query.shape[0])")
            }
        }
        let keys = key.shape[key.rank - 2]
        guard value.shape[value.rank - 2] == keys else {
            throw .shape("value: length is \(value.shape[value.rank - 2]), key has \(keys)")
        }
        try out.expectOutput(like: query, "out", as: "query")
        try checkWeights(weights, query, keys: keys, call)
        for output in [Output("out", out), Output("weights", weights)] {
            for (name, tensor, _) in inputs { try output?.expectApart(from: tensor, "\(name)") }
            try output?.expectApart(from: call.visibility.attentionMask, "attn_mask")
            try output?.expectApart(from: call.visibility.keyPaddingMask, "key_padding_mask")
        }
        try Output("out", out)?.expectApart(from: weights, "weights")

        let pass = begin(options.precision)
        let q = try pass.keep(isPacked ? query : query.asBatch)
        let k = key.isSameView(as: query) ? q : try pass.keep(isPacked ? key : key.asBatch)
        let v = value.isSameView(as: key) ? k : try pass.keep(isPacked ? value : value.asBatch)
        if let starts = call.starts {
            guard extraKeys == 0 else {
                throw .argument("cu_seqlens: expected none, add_bias_kv and add_zero_attn take padded batches")
            }
            let first = try starts.queries.cumulative("cu_seqlens_q", total: query.shape[0])
            let others = try starts.keys.cumulative("cu_seqlens_k", total: keys)
            guard first.count == others.count else {
                throw .shape("cu_seqlens_k: length is \(others.count), cu_seqlens_q has \(first.count)")
            }
            let kept = (queries: try pass.keep(starts.queries), keys: try pass.keep(starts.keys))
            let result = try attend(q, k, v, ResolvedVisibility(packed: call.visibility),
                                    starts: Starts(queries: kept.queries.tensor, keys: kept.keys.tensor), out: out, pass)
            return try finish(pass, result, inputs: [q, k, v], kept: [kept.queries, kept.keys], out: out)
        }
        let shape = MaskedShape(batch: q.tensor.shape[0], heads: options.heads, queries: q.tensor.shape[1], keys: keys,
                                extra: extraKeys, dtype: options.dtype, isBatched: isBatched)
        let visible = try ResolvedVisibility(call.visibility, shape, ("attn_mask", "key_padding_mask"), pass)
        let average = call.averagesWeights ? try weights.map { (weights) throws(Failure) in
            try pass.value(options.dtype, [shape.batch, options.heads, shape.queries, keys + extraKeys])
        } : nil
        let perHead = average?.tensor ?? weights.map { isBatched ? $0 : $0.asBatchOfOne }
        let result = try attend(q, k, v, visible, out: out.asBatch, weights: perHead, pass)
        if let weights, let average { try meanOverHeads(average.tensor, out: isBatched ? weights : weights.asBatchOfOne, pass) }
        try finish(pass, result, inputs: [q, k, v], out: out.asBatch)
    }

    private func checkWeights(_ weights: Tensor?, _ query: Tensor, keys: Int, _ call: MultiheadAttentionCall) throws(Failure) {
        guard let weights else { return }
        guard call.starts == nil else { throw .argument("weights: expected NULL, packed sequences give none") }
        guard weights.dtype == options.dtype || (weights.dtype == .float32 && !call.averagesWeights) else {
            throw .dtype("weights: dtype is \(weights.dtype), expected \(options.dtype)")
        }
        var shape = query.shape.withLast(keys + extraKeys)
        if !call.averagesWeights { shape.insert(options.heads, at: shape.count - 2) }
        try weights.expect(shape: shape, "weights")
        try weights.checkOutput("weights")
    }

    /// (B, heads, T, S) -> (B, T, S): a product with a row of 1 / heads.
    private func meanOverHeads(_ weights: Tensor, out: Tensor, _ pass: Pass) throws(Failure) {
        if out.isEmpty { return }
        let shape = weights.shape, ones = try pass.value(options.dtype, [1, shape[1]])
        try [1 / Double(shape[1])].withTensor { (share) throws(Failure) in
            try copyConverting(share.reshaped([1, shape[1]], strides: [0, 0]), to: ones.tensor)
        }
        let rows = weights.reshaped([shape[0], shape[2], shape[1], shape[3]],
                                    strides: [weights.strides[0], weights.strides[2], weights.strides[1], weights.strides[3]])
        let wanted = out.reshaped([shape[0], shape[2], 1, shape[3]], strides: [out.strides[0], out.strides[1], 0, out.strides[2]])
        try matmul(ones.tensor, rows, out: wanted)
    }
}

extension Tensor {
    /// A batch of one.
    var asBatchOfOne: Tensor {
        var result = self
        result.shape.insert(1, at: 0)
        result.strides.insert(0, at: 0)
        return result
    }

    /// The same of a (T, E) tensor alone.
    var asBatch: Tensor { rank == 2 ? asBatchOfOne : self }
}
