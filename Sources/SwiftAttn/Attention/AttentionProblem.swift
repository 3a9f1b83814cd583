/// The only validator of attention, forward and backward: from tensors and options to a problem that every kernel can take as
/// it is.

import CAttnKernels

/// A checked attention call: C-level description plus the memory it points to.
struct AttentionProblem {
    var description = attn_problem()
    var sequences: [attn_sequence] = []
    private var slopes: [Double] = []
    private var sinks: [Double] = []
    /// Which blocks the sequences' keys are in, if they are in blocks.
    var table: BlockTable?

    /// Largest query length of a sequence; sum over sequences of queries times keys, times query heads.
    var longestQuery = 0
    var scoreCount = 0.0

    /// Of a backward: gradients and how they lie.
    var backward: AttentionGradients?

    /// Nothing to write in a forward.
    var isEmpty: Bool {
        sequences.isEmpty || longestQuery == 0 || description.q_heads == 0
    }

    /// Positions, and with them the options' query_offset, must leave room for sums with lengths.
    static let largestOffset = 1 << 48

    /// Calls `body` with the problem, whose pointers are valid until it returns.
    func withDescription<R>(_ body: (UnsafePointer<attn_problem>) -> R) -> R {
        var description = description
        return sequences.withUnsafeBufferPointer { sequences in
            slopes.withUnsafeBufferPointer { slopes in
                sinks.withUnsafeBufferPointer { sinks in
                    description.sequences = sequences.baseAddress
                    description.sequence_count = Int64(sequences.count)
                    description.slopes = slopes.isEmpty ? nil : slopes.baseAddress
                    description.sinks = sinks.isEmpty ? nil : sinks.baseAddress
                    return withExtendedLifetime(table) { body(&description) }
                }
            }
        }
    }
}

// MARK: Padded batches

extension AttentionProblem {
    /// query (..., Hq, Tq, D), key (..., Hkv, Tk, D), value (..., Hkv, Tk, Dv), out (..., Hq, Tq, Dv); rank 2 lacks the heads.
    /// With gradients out and lse are inputs, and the gradients the outputs.
    init(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions, out: Tensor, lse: Tensor?, weights: Tensor?,
         gradients: AttentionGradients? = nil) throws(Failure) {
        func expectRank(_ tensor: Tensor, _ name: StaticString) throws(Failure) {
            try tensor.checked(name).expect(rank: 2...Dims.capacity, name)
            guard (tensor.rank == 2) == (query.rank == 2) else {
                throw .shape("\(name): rank is \(tensor.rank), query has \(query.rank)")
            }
        }
        try expectRank(query, "query")
        try expectRank(key, "key")
        try expectRank(value, "value")
        let headless = query.rank == 2
        let q = headless ? query.insertingDim(at: 0) : query
        let k = headless ? key.insertingDim(at: 0) : key
        let v = headless ? value.insertingDim(at: 0) : value
        try setHeads(q: q, k: k, v: v, headDim: 2, lengthDim: 1, headsDim: 3)

        let leading = try broadcastShapes(
            broadcastShapes(q.leading(3).shape, k.leading(3).shape, "key"), v.leading(3).shape, "value")
        var batch = 1
        for dim in leading {
            let (product, overflow) = batch.multipliedReportingOverflow(by: dim)
            guard !overflow else { throw Failure.outOfMemory }
            batch = product
        }
        let rows = q.shape[q.rank - 2], keys = k.shape[k.rank - 2], valueDim = v.shape[v.rank - 1]
        let heads = q.shape[q.rank - 3]

        var rowShape = leading
        if !headless { rowShape.append(heads) }
        rowShape.append(rows)
        var outShape = rowShape, weightsShape = rowShape
        outShape.append(valueDim)
        weightsShape.append(keys)
        try setResults(query: query, out: out, outShape: outShape, lse: lse, lseShape: rowShape,
                       weights: weights, weightsShape: weightsShape)
        if let gradients {
            try gradients.check(query, key, value, out, lse, options)
            backward = gradients
        } else {
            try checkOutputs(query, key, value, options, out, lse, weights)
        }
        try setOptions(options, heads: heads)
        let positions = try Positions(options, batch: batch, rows: rows, keys: keys,
                                      lowerRight: options.causal == .lowerRight)
        let maskBatch = try setMask(options.mask, leading: leading, batch: batch, rows: rows, keys: keys, heads: heads)

        if gradients == nil && out.isEmpty && (lse?.isEmpty ?? true) && (weights?.isEmpty ?? true) { return }

        let qSteps = try q.leadingStrides(in: leading, kept: 3, "query")
        let kSteps = try k.leadingStrides(in: leading, kept: 3, "key")
        let vSteps = try v.leadingStrides(in: leading, kept: 3, "value")
        let o = headless ? out.insertingDim(at: 0) : out
        let l = headless ? lse?.insertingDim(at: 0) : lse
        let w = headless ? weights?.insertingDim(at: 0) : weights
        description.q = q.kernelStrides
        description.k = k.kernelStrides
        description.v = v.kernelStrides
        description.o = o.kernelStrides
        if let l { description.lse = attn_strides(head: Int64(l.strides[l.rank - 2]), row: Int64(l.strides[l.rank - 1]), element: 0) }
        if let w { description.weights = w.kernelStrides }

        try requireMemory(for: batch, of: attn_sequence.self)
        sequences = [attn_sequence](repeating: attn_sequence(), count: batch)
        forEachOffset(leading, qSteps) { sequences[$0].q = UnsafeRawPointer(q.pointer(byOffset: $1)) }
        forEachOffset(leading, kSteps) { sequences[$0].k = UnsafeRawPointer(k.pointer(byOffset: $1)) }
        forEachOffset(leading, vSteps) { sequences[$0].v = UnsafeRawPointer(v.pointer(byOffset: $1)) }
        forEachOffset(leading, o.leading(3).strides) { sequences[$0].o = o.pointer(byOffset: $1) }
        if let l { forEachOffset(leading, l.leading(2).strides) { sequences[$0].lse = l.pointer(byOffset: $1) } }
        if let w { forEachOffset(leading, w.leading(3).strides) { sequences[$0].weights = w.pointer(byOffset: $1) } }
        if let mask = options.mask {
            forEachOffset(maskBatch.shape, maskBatch.strides) { sequences[$0].mask = UnsafeRawPointer(mask.pointer(byOffset: $1)) }
        }
        for b in 0..<batch {
            sequences[b].q_rows = Int64(rows)
            sequences[b].kv_rows = Int64(keys)
            positions.set(&sequences[b], b)
            longestQuery = rows
            scoreCount += Double(heads) * Double(rows) * Double(sequences[b].kv_len)
        }
        try backward?.place(leading: leading, headless: headless, scores: [heads, rows, keys])
    }
}

// MARK: Packed sequences

extension AttentionProblem {
    /// query (total_q, Hq, D), key (total_k, Hkv, D), value (total_k, Hkv, Dv), out (total_q, Hq, Dv), lse (Hq, total_q).
    init(query: Tensor, key: Tensor, value: Tensor, cumulativeQueries: Tensor, cumulativeKeys: Tensor,
         options: AttentionOptions, out: Tensor, lse: Tensor?, gradients: AttentionGradients? = nil) throws(Failure) {
        for (name, tensor) in [("query", query), ("key", key), ("value", value)] as [(StaticString, Tensor)] {
            try tensor.checked(name).expect(rank: 3...3, name)
        }
        for (name, tensor) in [("attn_mask", options.mask), ("q_lengths", options.queryLengths),
                               ("kv_lengths", options.keyValueLengths)] as [(StaticString, Tensor?)] where tensor != nil {
            throw .argument("\(name): expected NULL, packed sequences have their own lengths")
        }
        try setHeads(q: query, k: key, v: value, headDim: 2, lengthDim: 0, headsDim: 2)
        let heads = query.shape[1]
        let lseShape: Dims = [heads, query.shape[0]]
        try setResults(query: query, out: out, outShape: [query.shape[0], heads, value.shape[2]],
                       lse: lse, lseShape: lseShape, weights: nil, weightsShape: [])
        if let gradients {
            try gradients.check(query, key, value, out, lse, options)
            backward = gradients
        } else {
            try checkOutputs(query, key, value, options, out, lse, nil)
        }
        for output in gradients?.outputs ?? [Output("out", out), Output("lse", lse)] {
            try output?.expectApart(from: cumulativeQueries, "cu_seqlens_q")
            try output?.expectApart(from: cumulativeKeys, "cu_seqlens_k")
        }
        try setOptions(options, heads: heads)
        let qStarts = try cumulativeQueries.cumulative("cu_seqlens_q", total: query.shape[0])
        let kStarts = try cumulativeKeys.cumulative("cu_seqlens_k", total: key.shape[0])
        guard qStarts.count == kStarts.count else {
            throw .shape("cu_seqlens_k: length is \(kStarts.count), cu_seqlens_q has \(qStarts.count)")
        }
        let batch = qStarts.count - 1
        let offsets = try options.queryOffsets?.integers(
            "query_offsets", count: batch, in: -AttentionProblem.largestOffset...AttentionProblem.largestOffset)
        if gradients == nil && out.isEmpty && (lse?.isEmpty ?? true) { return }

        description.q = query.packedStrides
        description.k = key.packedStrides
        description.v = value.packedStrides
        description.o = out.packedStrides
        if let lse { description.lse = attn_strides(head: Int64(lse.strides[0]), row: Int64(lse.strides[1]), element: 0) }

        try requireMemory(for: batch, of: attn_sequence.self)
        sequences = [attn_sequence](repeating: attn_sequence(), count: batch)
        for b in 0..<batch {
            let rows = qStarts[b + 1] - qStarts[b], keys = kStarts[b + 1] - kStarts[b]
            sequences[b].q = UnsafeRawPointer(query.pointer(byOffset: qStarts[b] &* query.strides[0]))
            sequences[b].k = UnsafeRawPointer(key.pointer(byOffset: kStarts[b] &* key.strides[0]))
            sequences[b].v = UnsafeRawPointer(value.pointer(byOffset: kStarts[b] &* value.strides[0]))
            sequences[b].o = out.pointer(byOffset: qStarts[b] &* out.strides[0])
            sequences[b].lse = lse?.pointer(byOffset: qStarts[b] &* lse!.strides[1])
            sequences[b].q_rows = Int64(rows)
            sequences[b].q_len = Int64(rows)
            sequences[b].kv_rows = Int64(keys)
            sequences[b].kv_len = Int64(keys)
            let aligned = options.causal == .upperLeft ? 0 : keys - rows
            sequences[b].query_offset = Int64(offsets?[b] ?? options.queryOffset ?? aligned)
            sequences[b].batch = Int64(b)
            longestQuery = max(longestQuery, rows)
            scoreCount += Double(heads) * Double(rows) * Double(keys)
        }
        try backward?.place(queryStarts: qStarts, keyStarts: kStarts)
    }
}

// MARK: The parts that both share

extension AttentionProblem {
    /// Dims counted from the end: headDim is always last.
    private mutating func setHeads(q: Tensor, k: Tensor, v: Tensor, headDim: Int, lengthDim: Int, headsDim: Int) throws(Failure) {
        let packed = lengthDim == 0
        let headsAt = { (t: Tensor) in t.shape[packed ? 1 : t.rank - 3] }
        let lengthAt = { (t: Tensor) in t.shape[packed ? 0 : t.rank - 2] }
        let dimAt = { (t: Tensor) in t.shape[t.rank - 1] }
        try q.expectFloating("query")
        try k.expect(dtype: q.dtype, "key", as: "query")
        try v.expect(dtype: q.dtype, "value", as: "query")
        guard dimAt(k) == dimAt(q) else { throw .shape("key: head_dim is \(dimAt(k)), query has \(dimAt(q))") }
        guard lengthAt(v) == lengthAt(k) else { throw .shape("value: length is \(lengthAt(v)), key has \(lengthAt(k))") }
        guard headsAt(v) == headsAt(k) else { throw .shape("value: heads are \(headsAt(v)), key has \(headsAt(k))") }
        let heads = headsAt(q), kvHeads = headsAt(k)
        guard kvHeads == 0 ? heads == 0 : heads % kvHeads == 0 else {
            throw .shape("key: heads are \(kvHeads), expected a divisor of the query's \(heads)")
        }
        guard dimAt(q) <= Int32.max, dimAt(v) <= Int32.max else { throw Failure.outOfMemory }
        description.dtype = q.dtype.kernel
        description.kv_dtype = k.dtype.kernel
        description.q_heads = Int64(heads)
        description.kv_heads = Int64(kvHeads)
        description.head_dim = Int64(dimAt(q))
        description.value_dim = Int64(dimAt(v))
    }

    mutating func setResults(query: Tensor, out: Tensor, outShape: Dims, lse: Tensor?, lseShape: Dims,
                                     weights: Tensor?, weightsShape: Dims) throws(Failure) {
        try out.expect(dtype: query.dtype, "out", as: "query")
        try out.expect(shape: outShape, "out")
        try out.check("out")
        if let lse {
            try lse.expect(dtype: query.dtype.computing, "lse", as: "the sum")
            try lse.expect(shape: lseShape, "lse")
            try lse.check("lse")
        }
        if let weights {
            guard weights.dtype == .float32 || weights.dtype == query.dtype else {
                throw .dtype("weights: dtype is \(weights.dtype), expected float32 or \(query.dtype)")
            }
            try weights.expect(shape: weightsShape, "weights")
            description.weights_dtype = weights.dtype.kernel
        }
    }

    /// The results of a forward, as what is written.
    func checkOutputs(_ query: Tensor, _ key: Tensor, _ value: Tensor, _ options: AttentionOptions,
                      _ out: Tensor, _ lse: Tensor?, _ weights: Tensor?,
                      as names: (key: StaticString, value: StaticString) = ("key", "value")) throws(Failure) {
        try out.checkOutput("out")
        try lse?.checkOutput("lse")
        try weights?.checkOutput("weights")
        let first = Output("out", out), second = Output("lse", lse), third = Output("weights", weights)
        try first?.expectApart(from: query, key, value, options, as: names)
        try second?.expectApart(from: query, key, value, options, as: names)
        try third?.expectApart(from: query, key, value, options, as: names)
        try first?.expectApart(from: lse, "lse")
        try first?.expectApart(from: weights, "weights")
        try second?.expectApart(from: weights, "weights")
    }

    mutating func setOptions(_ options: AttentionOptions, heads: Int) throws(Failure) {
        let scale = options.scale ?? (description.head_dim > 0 ? 1 / Double(description.head_dim).squareRoot() : 1)
        guard scale.isFinite else { throw .argument("scale: expected a finite number, got \(scale)") }
        guard options.softcap >= 0, options.softcap.isFinite else {
            throw .argument("softcap: expected 0 or a finite positive number, got \(options.softcap)")
        }
        guard options.dropoutP >= 0, options.dropoutP < 1 else {
            throw .argument("dropout_p: expected 0 <= dropout_p < 1, got \(options.dropoutP)")
        }
        func expectWindow(_ side: Int?, _ name: StaticString) throws(Failure) {
            if let side, side < -1 { throw .argument("\(name): expected -1 (unlimited) or more, got \(side)") }
        }
        try expectWindow(options.windowLeft, "window_left")
        try expectWindow(options.windowRight, "window_right")
        if let offset = options.queryOffset {
            guard options.queryOffsets == nil else {
                throw .argument("query_offset: expected one of query_offset and query_offsets, got both")
            }
            guard abs(offset.clamped) <= AttentionProblem.largestOffset else {
                throw .argument("query_offset: expected at most 2^48 in size, got \(offset)")
            }
        }
        description.scale = scale
        description.softcap = options.softcap
        description.precision = options.precision.kernel
        description.causal = options.causal != .none
        description.window_left = Int64(options.windowLeft ?? -1)
        description.window_right = Int64(options.windowRight ?? -1)
        description.dropout_threshold = UInt32((options.dropoutP * 0x1p32).rounded(.down))
        description.dropout_scale = 1 / (1 - options.dropoutP)
        description.seed = options.seed
        description.weights_stage = attn_weights_stage(rawValue: UInt32(options.weightsStage.rawValue))
        slopes = try perHead(options.alibiSlopes, "alibi_slopes", heads)
        sinks = try perHead(options.sinks, "sinks", heads)
    }

    private func perHead(_ tensor: Tensor?, _ name: StaticString, _ heads: Int) throws(Failure) -> [Double] {
        guard let tensor else { return [] }
        try tensor.check(name)
        let wide = description.dtype == ATTN_F64
        guard tensor.dtype == .float32 || (wide && tensor.dtype == .float64) else {
            throw .dtype("\(name): dtype is \(tensor.dtype), expected float32\(wide ? " or float64" : "")")
        }
        try tensor.expect(shape: [heads], name)
        return tensor.doubles()
    }

    /// Fills in the mask's dtype and strides; the result is how it steps through the batch.
    mutating func setMask(_ mask: Tensor?, leading: Dims, batch: Int, rows: Int, keys: Int, heads: Int)
        throws(Failure) -> (shape: Dims, strides: Dims) {
        guard let mask else { return ([], []) }
        try mask.checked("attn_mask").expect(rank: 1...Dims.capacity, "attn_mask")
        let qType = description.dtype
        guard mask.dtype == .bool || mask.dtype == .float32 || (mask.dtype.isFloating && mask.dtype.kernel == qType) else {
            throw .dtype("attn_mask: dtype is \(mask.dtype), expected bool, float32 or the query's")
        }
        let spread = try mask.spreadAsMask(leading: leading, batch: batch, scores: [heads, rows, keys])
        description.mask_dtype = mask.dtype.kernel
        description.mask = spread.strides
        return spread.batch
    }

    /// Lengths and query positions of padded batch entries.
    struct Positions {
        let queryLengths, keyLengths, offsets: [Int]?
        let common: Int?
        let lowerRight: Bool
        let rows, keys: Int

        init(_ options: AttentionOptions, batch: Int, rows: Int, keys: Int, lowerRight: Bool,
             keyLengths lengths: [Int]? = nil) throws(Failure) {
            queryLengths = try options.queryLengths?.integers("q_lengths", count: batch, in: 0...rows)
            let given = try options.keyValueLengths?.integers("kv_lengths", count: batch, in: 0...keys)
            keyLengths = lengths ?? given
            offsets = try options.queryOffsets?.integers(
                "query_offsets", count: batch, in: -AttentionProblem.largestOffset...AttentionProblem.largestOffset)
            common = options.queryOffset
            self.lowerRight = lowerRight
            self.rows = rows
            self.keys = keys
        }

        func set(_ sequence: inout attn_sequence, _ b: Int) {
            let queries = queryLengths?[b] ?? rows, visible = keyLengths?[b] ?? keys
            sequence.q_len = Int64(queries)
            sequence.kv_len = Int64(visible)
            sequence.query_offset = Int64(offsets?[b] ?? common ?? (lowerRight ? visible - queries : 0))
            sequence.batch = Int64(b)
        }
    }
}

extension Output {
    /// The inputs of attention, by their names in the C ABI.
    func expectApart(from query: Tensor, _ key: Tensor, _ value: Tensor, _ options: AttentionOptions,
                     as names: (key: StaticString, value: StaticString) = ("key", "value")) throws(Failure) {
        try expectApart(from: query, "query")
        try expectApart(from: key, "\(names.key)")
        try expectApart(from: value, "\(names.value)")
        if !options.hasTensors { return }
        try expectApart(from: options.mask, "attn_mask")
        try expectApart(from: options.alibiSlopes, "alibi_slopes")
        try expectApart(from: options.sinks, "sinks")
        try expectApart(from: options.queryOffsets, "query_offsets")
        try expectApart(from: options.queryLengths, "q_lengths")
        try expectApart(from: options.keyValueLengths, "kv_lengths")
    }
}

extension Int {
    /// Int.min has no magnitude of its own type.
    fileprivate var clamped: Int { self == .min ? .max : self }
}

extension Tensor {
    /// Head, row and element strides of a (..., H, T, D) view.
    var kernelStrides: attn_strides {
        attn_strides(head: Int64(strides[rank - 3]), row: Int64(strides[rank - 2]), element: Int64(strides[rank - 1]))
    }

    /// The same of a packed (total, H, D) view.
    var packedStrides: attn_strides {
        attn_strides(head: Int64(strides[1]), row: Int64(strides[0]), element: Int64(strides[2]))
    }

    /// How a mask of this shape steps through the batch, (B,) or the leading dims one by one, and through (Hq, Tq, Tk): the
    /// missing and 1-sized dims by 0.
    func spreadAsMask(leading: Dims, batch: Int, scores: Dims) throws(Failure)
        -> (batch: (shape: Dims, strides: Dims), strides: attn_strides) {
        var full = leading.count == 1 || rank != 4 || leading.isEmpty ? leading : [batch]
        if full.isEmpty { full = [1] }
        if full.count == 1, leading.count > 1, shape[0] != batch, shape[0] != 1 { full = leading }
        let target = Dims(Array(full) + Array(scores))
        let skipped = target.count - rank
        var spread = Dims(repeating: 0, count: target.count)
        for i in shape.indices {
            guard i + skipped >= 0, shape[i] == 1 || shape[i] == target[i + skipped] else {
                throw .shape("attn_mask: shape \(shape) does not broadcast to \(target)")
            }
            spread[i + skipped] = shape[i] == 1 ? 0 : strides[i]
        }
        let inner = Tensor(data: nil, dtype: dtype, shape: target, strides: spread).kernelStrides
        return ((full, spread.droppingLast(3)), inner)
    }

    func insertingDim(at position: Int) -> Tensor {
        var result = self
        result.shape.insert(1, at: position)
        result.strides.insert(0, at: position)
        return result
    }

    /// The elements of an (n,) tensor of float32 or float64.
    fileprivate func doubles() -> [Double] {
        (0..<shape[0]).map { i in
            let p = pointer(byOffset: i &* strides[0])
            return dtype == .float64 ? p.load(as: Double.self) : Double(p.load(as: Float.self))
        }
    }

    /// Offsets of packed sequences: from 0 to `total`, never decreasing, at least one sequence... or none at all.
    func cumulative(_ name: StaticString, total: Int) throws(Failure) -> [Int] {
        guard rank == 1, shape[0] >= 1 else { throw .shape("\(name): shape is \(shape), expected (B + 1,)") }
        let starts = try integers(name, count: shape[0], in: 0...total)
        guard starts[0] == 0 else { throw .argument("\(name): entry 0 is \(starts[0]), expected 0") }
        for i in 1..<max(starts.count, 1) where starts[i] < starts[i - 1] {
            throw .argument("\(name): entry \(i) is \(starts[i]), expected at least \(starts[i - 1])")
        }
        guard starts[starts.count - 1] == total else {
            throw .argument("\(name): the last entry is \(starts[starts.count - 1]), expected the total of \(total)")
        }
        return starts
    }
}
