/// Attention over keys and values that lie in a cache: of any storage dtype, in one piece or in blocks.

import CAttnKernels

/// The keys and values of B sequences as a cache holds them.
struct StoredKeys {
    /// (B, Hkv, L, D) and (B, Hkv, L, Dv); in blocks (blocks, block_rows, Hkv, D) and Dv.
    let keys, values: Tensor
    /// Of int8 rows: as `keys` without the last dim.
    var scales: (keys: Tensor, values: Tensor)?
    /// In one piece: nil.
    var table: BlockTable?
    /// Tokens of each sequence, and those that a sequence has room for: L.
    let lengths: [Int]
    let length: Int
    /// What errors call them.
    let names: (key: StaticString, value: StaticString)

    /// The dims of heads and rows.
    fileprivate var headAxis: Int { table == nil ? 1 : 2 }
    fileprivate var rowAxis: Int { table == nil ? 2 : 1 }

    fileprivate func strides(_ t: Tensor) -> attn_strides {
        attn_strides(head: Int64(t.strides[headAxis]), row: Int64(t.strides[rowAxis]),
                     element: t.rank > 3 ? Int64(t.strides[3]) : 0)
    }
}

extension StoredKeys {
    /// What a cache holds, or one entry of it.
    init(_ cache: KVCache, entry: Int? = nil) {
        let lengths = cache.lengths
        func part(_ all: Tensor) -> Tensor { entry.map { all.entry($0) } ?? all }
        self.init(keys: part(cache.keys), values: part(cache.values), lengths: entry.map { [lengths[$0]] } ?? lengths,
                  length: lengths.max() ?? 0, names: ("cache", "cache"))
        if let keys = cache.keyScales, let values = cache.valueScales { scales = (part(keys), part(values)) }
    }
}

extension Tensor {
    /// Index `n` of the first dim, which stays with size 1.
    fileprivate func entry(_ n: Int) -> Tensor {
        var one = self
        one.data = pointer(byOffset: n &* strides[0])
        one.shape[0] = 1
        return one
    }
}

/// The blocks of each sequence, checked: as many as its length takes, all of them in range. What a table says beyond is
/// not read.
final class BlockTable {
    private let numbers: UnsafeMutablePointer<Int64>
    private let starts: [Int]

    /// - Parameters:
    ///   - table: (B, max_blocks) int32 or int64.
    ///   - lengths: of the sequences, at most max_blocks * blockRows.
    ///   - blockCount: how many blocks there are.
    init(_ table: Tensor, lengths: [Int], blockRows: Int, blockCount: Int) throws(Failure) {
        let used = lengths.map { $0 == 0 ? 0 : ($0 - 1) / blockRows + 1 }
        (numbers, starts) = try BlockTable.allocate(used)
        for (b, count) in used.enumerated() {
            for i in 0..<count {
                let place = table.pointer(byOffset: b &* table.strides[0] &+ i &* table.strides[1])
                let number = table.dtype == .int64 ? Int(place.load(as: Int64.self)) : Int(place.load(as: Int32.self))
                guard (0..<blockCount).contains(number) else {
                    throw .argument("block_table: entry (\(b), \(i)) is \(number), expected 0 <= block < \(blockCount)")
                }
                numbers[starts[b] + i] = Int64(number)
            }
        }
    }

    /// Of blocks that are known to be right.
    init(_ blocks: [[Int]]) throws(Failure) {
        (numbers, starts) = try BlockTable.allocate(blocks.map(\.count))
        for (b, row) in blocks.enumerated() {
            for (i, number) in row.enumerated() { numbers[starts[b] + i] = Int64(number) }
        }
    }

    /// Room for so many numbers of each sequence, and where they begin.
    private static func allocate(_ counts: [Int]) throws(Failure) -> (UnsafeMutablePointer<Int64>, [Int]) {
        var starts: [Int] = [], total = 0
        for count in counts {
            starts.append(total)
            total += count
        }
        guard total < 1 << 56, let memory = attn_allocate(max(total, 1) * MemoryLayout<Int64>.size) else {
            throw Failure.outOfMemory
        }
        return (memory.bindMemory(to: Int64.self, capacity: total), starts)
    }

    deinit { attn_free(numbers) }

    func sequence(_ b: Int) -> UnsafePointer<Int64> { UnsafePointer(numbers + starts[b]) }
}

extension AttentionProblem {
    /// query (B, Hq, Tq, D), out (B, Hq, Tq, Dv), lse (B, Hq, Tq), weights (B, Hq, Tq, L).
    init(query: Tensor, stored: StoredKeys, options: AttentionOptions, out: Tensor, lse: Tensor?, weights: Tensor?)
        throws(Failure) {
        let (keys, values, names) = (stored.keys, stored.values, stored.names)
        let batch = query.shape[0], heads = query.shape[1], rows = query.shape[2], headDim = query.shape[3]
        try query.expectFloating("query")
        let widens = keys.dtype != .float64 && query.dtype != .float64
        guard widens || keys.dtype == query.dtype else {
            throw .dtype("\(names.key): dtype is \(keys.dtype), query has \(query.dtype)")
        }
        guard keys.shape[3] == headDim else {
            throw .shape("\(names.key): head_dim is \(keys.shape[3]), query has \(headDim)")
        }
        let kvHeads = keys.shape[stored.headAxis], valueDim = values.shape[3]
        guard kvHeads == 0 ? heads == 0 : heads % kvHeads == 0 else {
            throw .shape("\(names.key): heads are \(kvHeads), expected a divisor of the query's \(heads)")
        }
        guard headDim <= Int32.max, valueDim <= Int32.max else { throw Failure.outOfMemory }
        description.dtype = query.dtype.kernel
        description.kv_dtype = keys.dtype.kernel
        description.q_heads = Int64(heads)
        description.kv_heads = Int64(kvHeads)
        description.head_dim = Int64(headDim)
        description.value_dim = Int64(valueDim)

        let outShape: Dims = [batch, heads, rows, valueDim], lseShape: Dims = [batch, heads, rows]
        try setResults(query: query, out: out, outShape: outShape, lse: lse, lseShape: lseShape,
                       weights: weights, weightsShape: [batch, heads, rows, stored.length])
        try checkOutputs(query, keys, values, options, out, lse, weights, as: names)
        try setOptions(options, heads: heads)
        let positions = try Positions(options, batch: batch, rows: rows, keys: stored.length,
                                      lowerRight: options.causal != .upperLeft, keyLengths: stored.lengths)
        let maskBatch = try setMask(options.mask, leading: [batch], batch: batch, rows: rows, keys: stored.length, heads: heads)
        if out.isEmpty && (lse?.isEmpty ?? true) && (weights?.isEmpty ?? true) { return }

        description.q = query.kernelStrides
        description.k = stored.strides(keys)
        description.v = stored.strides(values)
        description.o = out.kernelStrides
        if let lse { description.lse = attn_strides(head: Int64(lse.strides[1]), row: Int64(lse.strides[2]), element: 0) }
        if let weights { description.weights = weights.kernelStrides }
        if let scales = stored.scales { description.scales = stored.strides(scales.keys) }
        if let blocks = stored.table {
            table = blocks
            description.block_rows = Int64(keys.shape[1])
            description.k_block = Int64(keys.strides[0])
            description.v_block = Int64(values.strides[0])
            description.scale_block = Int64(stored.scales?.keys.strides[0] ?? 0)
        }

        try requireMemory(for: batch, of: attn_sequence.self)
        sequences = [attn_sequence](repeating: attn_sequence(), count: batch)
        for b in 0..<batch {
            let entry = stored.table == nil ? b : 0
            func scales(_ t: Tensor?) -> UnsafePointer<Float>? {
                t.map { UnsafeRawPointer($0.pointer(byOffset: entry &* $0.strides[0])).assumingMemoryBound(to: Float.self) }
            }
            sequences[b].q = UnsafeRawPointer(query.pointer(byOffset: b &* query.strides[0]))
            sequences[b].k = UnsafeRawPointer(keys.pointer(byOffset: entry &* keys.strides[0]))
            sequences[b].v = UnsafeRawPointer(values.pointer(byOffset: entry &* values.strides[0]))
            sequences[b].k_scales = scales(stored.scales?.keys)
            sequences[b].v_scales = scales(stored.scales?.values)
            sequences[b].blocks = stored.table?.sequence(b)
            sequences[b].o = out.pointer(byOffset: b &* out.strides[0])
            sequences[b].lse = lse?.pointer(byOffset: b &* lse!.strides[0])
            sequences[b].weights = weights?.pointer(byOffset: b &* weights!.strides[0])
            sequences[b].q_rows = Int64(rows)
            sequences[b].kv_rows = Int64(stored.length)
            positions.set(&sequences[b], b)
            scoreCount += Double(heads) * Double(rows) * Double(sequences[b].kv_len)
        }
        longestQuery = rows
        if let mask = options.mask {
            forEachOffset(maskBatch.shape, maskBatch.strides) { sequences[$0].mask = UnsafeRawPointer(mask.pointer(byOffset: $1)) }
        }
    }
}
