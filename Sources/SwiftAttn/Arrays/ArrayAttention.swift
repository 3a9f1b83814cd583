/// Attention on arrays.

/// The options of attention that are arrays. The defaults change nothing.
public struct AttentionArrays: Sendable {
    /// Bool (true is visible), or Float or the query's elements (added to the scores); broadcast to (B, Hq, Tq, Tk).
    public var mask: (any TensorSource)?
    /// One for each query head: score += -slope * |position - j|.
    public var alibiSlopes: [Double]?
    /// One for each query head: a logit without a value.
    public var sinks: [Double]?
    /// One for each batch entry: the position of query 0.
    public var queryOffsets: [Int]?
    /// One for each batch entry: queries at or past it see no key.
    public var queryLengths: [Int]?
    /// One for each batch entry: keys at or past it are not visible.
    public var keyValueLengths: [Int]?

    public init(mask: (any TensorSource)? = nil, alibiSlopes: [Double]? = nil, sinks: [Double]? = nil,
                queryOffsets: [Int]? = nil, queryLengths: [Int]? = nil, keyValueLengths: [Int]? = nil) {
        self.mask = mask
        self.alibiSlopes = alibiSlopes
        self.sinks = sinks
        self.queryOffsets = queryOffsets
        self.queryLengths = queryLengths
        self.keyValueLengths = keyValueLengths
    }

    /// Calls `body` with the options and views of these arrays among them.
    func lend<T: FloatingElement, R>(to options: AttentionOptions, like element: T.Type,
                                                 _ body: (AttentionOptions) throws(Failure) -> R) throws(Failure) -> R {
        let slopes = alibiSlopes?.map { T.Computing($0) }, sinks = sinks?.map { T.Computing($0) }
        return try withTensors(mask, slopes, sinks, queryOffsets, queryLengths, keyValueLengths) { (t) throws(Failure) -> R in
            var options = options
            options.mask = t[0] ?? options.mask
            options.alibiSlopes = t[1] ?? options.alibiSlopes
            options.sinks = t[2] ?? options.sinks
            options.queryOffsets = t[3] ?? options.queryOffsets
            options.queryLengths = t[4] ?? options.queryLengths
            options.keyValueLengths = t[5] ?? options.keyValueLengths
            return try body(options)
        }
    }
}

// MARK: Padded batches

/// softmax(scale * query · keyᵀ + ...) · value, fused: the (..., Hq, Tq, Dv) result of
///
///     s = scale * q·k;  s = softcap * tanh(s / softcap);  s += mask;  s += -slope * |position - j|
///     P = exp(s - max) / (Σ exp(s - max) + exp(sink - max));  out = P · v
///
/// over the keys that causality, window, mask and lengths leave visible; a row that sees none is 0.
///
/// - Parameters:
///   - query: (..., Hq, Tq, D), rank 2 to 8; rank 2 lacks the heads.
///   - key: (..., Hkv, Tk, D); Hkv divides Hq. Leading dims are broadcast.
///   - value: (..., Hkv, Tk, Dv).
/// - Throws: `Failure` for whatever does not fit.
///
/// Source: Vaswani et al. 2017, Dao 2023 (FlashAttention-2).
public func scaledDotProductAttention<T: FloatingElement>(
    query: NDArray<T>, key: NDArray<T>, value: NDArray<T>,
    options: AttentionOptions = AttentionOptions(), arrays: AttentionArrays = AttentionArrays()
) throws(Failure) -> NDArray<T> {
    let shapes = try AttentionShapes(query.shape, key.shape, value.shape)
    return try withTensors(query, key, value) { (t) throws(Failure) in
        try arrays.lend(to: options, like: T.self) { (options) throws(Failure) in
            try NDArray(shape: shapes.out) { (out) throws(Failure) in
                try scaledDotProductAttention(query: t[0]!, key: t[1]!, value: t[2]!, options: options, out: out)
            }
        }
    }
}

/// The same with lse (..., Hq, Tq), the natural logarithm of each row's softmax denominator: what merging needs.
public func scaledDotProductAttentionWithLSE<T: FloatingElement>(
    query: NDArray<T>, key: NDArray<T>, value: NDArray<T>,
    options: AttentionOptions = AttentionOptions(), arrays: AttentionArrays = AttentionArrays()
) throws(Failure) -> (out: NDArray<T>, lse: NDArray<T.Computing>) {
    let shapes = try AttentionShapes(query.shape, key.shape, value.shape)
    return try withTensors(query, key, value) { (t) throws(Failure) in
        try arrays.lend(to: options, like: T.self) { (options) throws(Failure) in
            try NDArray.pair(shapes.out, shapes.lse) { (out, lse) throws(Failure) in
                try scaledDotProductAttention(query: t[0]!, key: t[1]!, value: t[2]!, options: options, out: out, lse: lse)
            }
        }
    }
}

/// The same with the weights (..., Hq, Tq, Tk) before dropout, or the scores that `options.weightsStage` names.
public func scaledDotProductAttentionWithWeights<T: FloatingElement>(
    query: NDArray<T>, key: NDArray<T>, value: NDArray<T>,
    options: AttentionOptions = AttentionOptions(), arrays: AttentionArrays = AttentionArrays()
) throws(Failure) -> (out: NDArray<T>, weights: NDArray<T.Computing>) {
    let shapes = try AttentionShapes(query.shape, key.shape, value.shape)
    return try withTensors(query, key, value) { (t) throws(Failure) in
        try arrays.lend(to: options, like: T.self) { (options) throws(Failure) in
            try NDArray.pair(shapes.out, shapes.weights) { (out, weights) throws(Failure) in
                try scaledDotProductAttention(query: t[0]!, key: t[1]!, value: t[2]!, options: options, out: out,
                                              weights: weights)
            }
        }
    }
}

/// Shapes of the outputs of padded attention; where the inputs do not fit, any: attention throws before it looks at them.
private struct AttentionShapes {
    var out: Dims = [], lse: Dims = [], weights: Dims = []

    init(_ query: [Int], _ key: [Int], _ value: [Int]) throws(Failure) {
        let rank = query.count
        guard (2...Dims.capacity).contains(rank), key.count >= 2, value.count >= 2 else { return }
        if rank > 2 {
            let leading = try broadcastShapes(
                broadcastShapes(Dims(query.dropLast(3)), Dims(key.dropLast(3)), "key"), Dims(value.dropLast(3)), "value")
            lse = leading
            guard leading.count + 3 <= Dims.capacity else { return }
            lse.append(query[rank - 3])
        }
        lse.append(query[rank - 2])
        (out, weights) = (lse, lse)
        out.append(value[value.count - 1])
        weights.append(key[key.count - 2])
    }
}

// MARK: Packed sequences

/// Attention over B sequences packed without padding: the (total_q, Hq, Dv) result.
///
/// - Parameters:
///   - query: (total_q, Hq, D).
///   - key: (total_k, Hkv, D).
///   - value: (total_k, Hkv, Dv).
///   - cumulativeQueries: B + 1 numbers from 0 to total_q: where each sequence begins, and the end.
///   - cumulativeKeys: likewise to total_k.
///   - options: query 0 of a sequence stands at kv_length - q_length unless `.upperLeft` or an offset is given.
///   - arrays: without mask and lengths.
/// - Throws: `Failure` for whatever does not fit.
public func attentionVarlen<T: FloatingElement>(
    query: NDArray<T>, key: NDArray<T>, value: NDArray<T>, cumulativeQueries: [Int], cumulativeKeys: [Int],
    options: AttentionOptions = AttentionOptions(), arrays: AttentionArrays = AttentionArrays()
) throws(Failure) -> NDArray<T> {
    try attentionVarlenWithLSE(query: query, key: key, value: value, cumulativeQueries: cumulativeQueries,
                               cumulativeKeys: cumulativeKeys, options: options, arrays: arrays).out
}

/// The same with lse (Hq, total_q).
public func attentionVarlenWithLSE<T: FloatingElement>(
    query: NDArray<T>, key: NDArray<T>, value: NDArray<T>, cumulativeQueries: [Int], cumulativeKeys: [Int],
    options: AttentionOptions = AttentionOptions(), arrays: AttentionArrays = AttentionArrays()
) throws(Failure) -> (out: NDArray<T>, lse: NDArray<T.Computing>) {
    let fits = query.rank == 3 && value.rank == 3
    let outShape: Dims = fits ? [query.shape[0], query.shape[1], value.shape[2]] : []
    let lseShape: Dims = fits ? [query.shape[1], query.shape[0]] : []
    return try withTensors(query, key, value, cumulativeQueries, cumulativeKeys) { (t) throws(Failure) in
        try arrays.lend(to: options, like: T.self) { (options) throws(Failure) in
            try NDArray.pair(outShape, lseShape) { (out, lse) throws(Failure) in
                try attentionVarlen(query: t[0]!, key: t[1]!, value: t[2]!, cumulativeQueries: t[3]!, cumulativeKeys: t[4]!,
                                    options: options, out: out, lse: lse)
            }
        }
    }
}

// MARK: States and slopes

/// Attention over the union of disjoint key sets, from the results over each:
/// lse = ln(Σ_n exp(lse_n)); out = Σ_n exp(lse_n - lse) * out_n.
///
/// - Parameter states: out (..., T, Dv) and lse (..., T) of each set, all of one shape; at least one.
/// - Throws: `Failure` for no states or several shapes.
///
/// A state with lse -inf has no weight, whatever its out holds. A sink belongs to one state only.
public func mergeAttentionStates<T: FloatingElement>(_ states: [(out: NDArray<T>, lse: NDArray<T.Computing>)]) throws(Failure)
    -> (out: NDArray<T>, lse: NDArray<T.Computing>) {
    func lend(_ outs: [Tensor], _ lses: [Tensor]) throws(Failure) -> (out: NDArray<T>, lse: NDArray<T.Computing>) {
        if outs.count < states.count {
            return try withTensors(states[outs.count].out, states[outs.count].lse) { (t) throws(Failure) in
                try lend(outs + [t[0]!], lses + [t[1]!])
            }
        }
        return try NDArray.pair(Dims(states.first?.out.shape ?? []), Dims(states.first?.lse.shape ?? [])) {
            (out, lse) throws(Failure) in
            try mergeAttentionStates(outs: outs, lses: lses, out: out, lse: lse)
        }
    }
    return try lend([], [])
}

/// Slopes of ALiBi, one for each head. With n the largest power of two <= heads: slope[h] = 2^(-8(h+1)/n) for h < n, and
/// 2^(-4(2(h-n)+1)/n) after. Source: Press et al. 2022.
///
/// - Throws: `Failure` for a negative number.
public func alibiSlopes(heads: Int) throws(Failure) -> [Double] {
    try NDArray<Double>(shape: [heads]) { (out) throws(Failure) in try alibiSlopes(out: out) }.elements
}

extension NDArray where Element: FloatingElement {
    /// Two arrays that one function writes.
    static func pair(_ first: Dims, _ second: Dims, _ write: (Tensor, Tensor) throws(Failure) -> Void)
        throws(Failure) -> (NDArray<Element>, NDArray<Element.Computing>) {
        var other: NDArray<Element.Computing>?
        let one = try NDArray(shape: first) { (a) throws(Failure) in
            other = try NDArray<Element.Computing>(shape: second) { (b) throws(Failure) in try write(a, b) }
        }
        return (one, other!)
    }
}
