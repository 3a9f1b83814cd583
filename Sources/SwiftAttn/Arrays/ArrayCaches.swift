/// Caches and attention over them on arrays.

extension KVCache {
    /// Adds tokens behind those that each entry holds: key (B, Hkv, T, D), value (B, Hkv, T, Dv). See `append(key:value:lengths:)`
    /// on tensors.
    public func append<T: FloatingElement>(key: NDArray<T>, value: NDArray<T>, lengths: [Int]? = nil) throws(Failure) {
        try withTensors(key, value) { (t) throws(Failure) in
            try append(key: t[0]!, value: t[1]!, lengths: lengths)
        }
    }
}

/// Attention of query (B, Hq, Tq, D) over the tokens that a cache holds: the (B, Hq, Tq, Dv) result. Query 0 of an entry stands at
/// kv_length - q_length unless `.upperLeft` or an offset is given; `.lowerRight` is the usual causal mask.
///
/// - Throws: `Failure` for whatever does not fit.
public func attentionKVCache<T: FloatingElement>(
    query: NDArray<T>, cache: KVCache, options: AttentionOptions = AttentionOptions()
) throws(Failure) -> NDArray<T> {
    let shape = query.rank == 4 ? Dims([query.shape[0], query.shape[1], query.shape[2], cache.valueDim]) : []
    return try withTensors(query) { (t) throws(Failure) in
        try NDArray(shape: shape) { (out) throws(Failure) in
            try attentionKVCache(query: t[0]!, cache: cache, options: options, out: out)
        }
    }
}

/// Attention over keys and values in blocks: the (B, Hq, Tq, Dv) result. See `attentionPaged` on tensors.
///
/// - Parameters:
///   - keyCache: (num_blocks, block_size, Hkv, D); valueCache (num_blocks, block_size, Hkv, Dv).
///   - blocks: those of each sequence in order; further ones are not looked at.
///   - lengths: tokens of each sequence.
public func attentionPaged<T: FloatingElement>(
    query: NDArray<T>, keyCache: NDArray<T>, valueCache: NDArray<T>, blocks: [[Int]], lengths: [Int],
    options: AttentionOptions = AttentionOptions()
) throws(Failure) -> NDArray<T> {
    let columns = blocks.map(\.count).max() ?? 0
    let rows = blocks.flatMap { $0 + Array(repeating: -1, count: columns - $0.count) }
    let fits = query.rank == 4 && valueCache.rank == 4
    let shape = fits ? Dims([query.shape[0], query.shape[1], query.shape[2], valueCache.shape[3]]) : []
    return try withTensors(query, keyCache, valueCache, rows, lengths) { (t) throws(Failure) in
        var table = t[3]!
        (table.shape, table.strides) = ([blocks.count, columns], [columns, 1])
        return try NDArray(shape: shape) { (out) throws(Failure) in
            try attentionPaged(query: t[0]!, keyCache: t[1]!, valueCache: t[2]!, blockTable: table, keyValueLengths: t[4]!,
                               options: options, out: out)
        }
    }
}
