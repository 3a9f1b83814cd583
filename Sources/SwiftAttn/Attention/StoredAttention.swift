/// Attention over caches: in one piece, and in blocks that a table names.

/// Attention over the tokens that a cache holds. Formula, options and edge rows as in `scaledDotProductAttention`.
///
/// Entry b has `cache.lengths[b]` keys. Query 0 stands at kv_length - q_length, the last one at the last token, unless
/// `options.causal` is `.upperLeft` or an offset is given.
///
/// - Parameters:
///   - query: (B, Hq, Tq, D), float32, float16 or bfloat16; the cache's heads divide Hq. Where the storage has another dtype,
///     keys and values are widened to float32 as they are read.
///   - cache: with Tq's tokens appended.
///   - options: without `keyValueLengths`; `.lowerRight` is the usual causal mask. A mask has L columns, the longest entry's
///     tokens.
///   - out: (B, Hq, Tq, Dv) of the query's dtype, written.
///   - lse: (B, Hq, Tq) float32, written.
///   - weights: (B, Hq, Tq, L) float32 or the query's dtype, written.
/// - Throws: `Failure` for whatever does not fit; the outputs are then untouched.
///
/// With storage of the query's dtype the bits are those of `scaledDotProductAttention` on the same keys; with int8 those of
/// float32 keys scale * q.
public func attentionKVCache(query: Tensor, cache: KVCache, options: AttentionOptions = AttentionOptions(),
                             out: Tensor, lse: Tensor? = nil, weights: Tensor? = nil) throws(Failure) {
    try Library.requireKernels()
    try query.checked("query").expect(rank: 4...4, "query")
    guard query.shape[0] == cache.batch else {
        throw .shape("query: batch is \(query.shape[0]), the cache has \(cache.batch)")
    }
    guard options.keyValueLengths == nil else {
        throw .argument("kv_lengths: expected NULL, the cache has its own lengths")
    }
    try AttentionProblem(query: query, stored: StoredKeys(cache), options: options, out: out, lse: lse, weights: weights).run()
}

/// Attention over keys and values in blocks: token j of sequence b is row j % block_size of block
/// `blockTable[b, j / block_size]`. Formula, options and edge rows as in `scaledDotProductAttention`.
///
/// Sequences may share blocks. Of the table, only the first ceil(kv_length / block_size) entries of a row are read, and of the
/// blocks only rows that hold tokens. Query 0 stands at kv_length - q_length unless `options.causal` is `.upperLeft` or an
/// offset is given.
///
/// - Parameters:
///   - query: (B, Hq, Tq, D), floating.
///   - keyCache: (num_blocks, block_size, Hkv, D) of the query's dtype, or another than float64, widened as it is read.
///   - valueCache: (num_blocks, block_size, Hkv, Dv) of keyCache's dtype.
///   - blockTable: (B, max_blocks) int32 or int64.
///   - keyValueLengths: (B,) int32 or int64, 0 to max_blocks * block_size.
///   - options: without `keyValueLengths`. A mask has max_blocks * block_size columns.
///   - out: (B, Hq, Tq, Dv) of the query's dtype, written.
///   - lse: (B, Hq, Tq) float32 (float64 for float64), written.
///   - weights: (B, Hq, Tq, max_blocks * block_size) float32 or the query's dtype, written.
/// - Throws: `Failure` for whatever does not fit, blocks out of range included; the outputs are then untouched.
///
/// The bits are those of the same keys in one piece. Source: Kwon et al. 2023 (PagedAttention).
public func attentionPaged(query: Tensor, keyCache: Tensor, valueCache: Tensor, blockTable: Tensor, keyValueLengths: Tensor,
                           options: AttentionOptions = AttentionOptions(),
                           out: Tensor, lse: Tensor? = nil, weights: Tensor? = nil) throws(Failure) {
    try Library.requireKernels()
    try query.checked("query").expect(rank: 4...4, "query")
    for (name, cache) in [("key_cache", keyCache), ("value_cache", valueCache)] as [(StaticString, Tensor)] {
        try cache.checked(name).expect(rank: 4...4, name)
        try cache.expectFloating(name)
    }
    try valueCache.expect(dtype: keyCache.dtype, "value_cache", as: "key_cache")
    let blocks = keyCache.shape[0], blockRows = keyCache.shape[1], batch = query.shape[0]
    try valueCache.expect(shape: [blocks, blockRows, keyCache.shape[2], valueCache.shape[3]], "value_cache")
    try blockTable.checked("block_table").expect(rank: 2...2, "block_table")
    guard blockTable.dtype == .int32 || blockTable.dtype == .int64 else {
        throw .dtype("block_table: dtype is \(blockTable.dtype), expected int32 or int64")
    }
    try blockTable.expect(shape: [batch, blockTable.shape[1]], "block_table")
    guard options.keyValueLengths == nil else {
        throw .argument("options.kv_lengths: expected NULL, kv_lengths is an argument of its own")
    }
    let (room, overflow) = blockTable.shape[1].multipliedReportingOverflow(by: blockRows)
    guard !overflow else { throw Failure.outOfMemory }
    let lengths = try keyValueLengths.integers("kv_lengths", count: batch, in: 0...room)
    for output in [Output("out", out), Output("lse", lse), Output("weights", weights)] {
        try output?.expectApart(from: blockTable, "block_table")
        try output?.expectApart(from: keyValueLengths, "kv_lengths")
    }
    var stored = StoredKeys(keys: keyCache, values: valueCache, lengths: lengths, length: room,
                            names: ("key_cache", "value_cache"))
    stored.table = try BlockTable(blockTable, lengths: lengths, blockRows: blockRows, blockCount: blocks)
    try AttentionProblem(query: query, stored: stored, options: options, out: out, lse: lse, weights: weights).run()
}

/// The same over sequences of a `PagedKVCache`, whose blocks and lengths it knows.
///
/// - Parameters:
///   - query: (B, Hq, Tq, D), float32, float16 or bfloat16.
///   - sequences: B of the cache's sequences, any of them any number of times.
///   - options: without `keyValueLengths`. A mask has L columns, the longest sequence's tokens.
///   - weights: (B, Hq, Tq, L) float32 or the query's dtype, written.
public func attentionPaged(query: Tensor, cache: PagedKVCache, sequences: [Int],
                           options: AttentionOptions = AttentionOptions(),
                           out: Tensor, lse: Tensor? = nil, weights: Tensor? = nil) throws(Failure) {
    try Library.requireKernels()
    try query.checked("query").expect(rank: 4...4, "query")
    guard query.shape[0] == sequences.count else {
        throw .shape("query: batch is \(query.shape[0]), expected \(sequences.count) as sequences")
    }
    guard options.keyValueLengths == nil else {
        throw .argument("kv_lengths: expected NULL, the cache has its own lengths")
    }
    let lengths = try cache.lengths(sequences)
    var stored = StoredKeys(keys: cache.keys, values: cache.values, lengths: lengths, length: lengths.max() ?? 0,
                            names: ("cache", "cache"))
    if let keys = cache.keyScales, let values = cache.valueScales { stored.scales = (keys, values) }
    stored.table = try BlockTable(cache.blocks(sequences))
    try AttentionProblem(query: query, stored: stored, options: options, out: out, lse: lse, weights: weights).run()
}
