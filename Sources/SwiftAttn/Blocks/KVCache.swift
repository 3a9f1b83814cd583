/// Keys and values of the tokens seen so far, in place: what decoding attends over.

import CAttnKernels
import Glibc

/// Room for `maxLength` tokens of each of `batch` sequences, taken once. Entry b holds `lengths[b]` tokens; each head's rows
/// lie side by side: keys (B, Hkv, max_len, D), values (B, Hkv, max_len, Dv).
///
/// Storage is float32, float16, bfloat16, or int8 with a float32 scale for each token and head (`CacheRows` has the formula).
/// Any number of threads may read a cache at once, while none changes it.
public final class KVCache: @unchecked Sendable {
    public let batch, kvHeads, maxLength, headDim, valueDim: Int
    public let dtype: DType
    private let keyRows, valueRows: CacheRows
    private let counts: UnsafeMutablePointer<Int>

    /// - Throws: `Failure` for a negative size, a dtype that is none of the four, or memory that cannot be had.
    public init(batch: Int, kvHeads: Int, maxLength: Int, headDim: Int, valueDim: Int? = nil,
                dtype: DType = .float32) throws(Failure) {
        try Library.requireKernels()
        let width = valueDim ?? headDim
        for (name, size) in [("batch", batch), ("kv_heads", kvHeads), ("max_len", maxLength), ("head_dim", headDim),
                             ("value_dim", width)] where size < 0 {
            throw .argument("\(name): expected at least 0, got \(size)")
        }
        guard [.float32, .float16, .bfloat16, .int8].contains(dtype) else {
            throw .dtype("dtype: expected float32, float16, bfloat16 or int8, got \(dtype)")
        }
        let (heads, o1) = batch.multipliedReportingOverflow(by: kvHeads)
        let (rows, o2) = heads.multipliedReportingOverflow(by: maxLength)
        guard !o1, !o2, batch < 1 << 40 else { throw Failure.outOfMemory }
        let keyRows = try CacheRows(rows, width: headDim, dtype)
        do {
            valueRows = try CacheRows(rows, width: width, dtype)
        } catch {
            keyRows.free()
            throw error
        }
        guard let memory = calloc(max(batch, 1), MemoryLayout<Int>.size) else {
            keyRows.free()
            valueRows.free()
            throw Failure.outOfMemory
        }
        counts = memory.bindMemory(to: Int.self, capacity: batch)
        self.keyRows = keyRows
        (self.batch, self.kvHeads, self.maxLength, self.headDim, self.valueDim) = (batch, kvHeads, maxLength, headDim, width)
        self.dtype = dtype
    }

    deinit {
        keyRows.free()
        valueRows.free()
        free(counts)
    }

    /// Tokens that each entry holds.
    public var lengths: [Int] { Array(UnsafeBufferPointer(start: counts, count: batch)) }

    /// Tokens of the longest entry.
    public var longest: Int { lengths.max() ?? 0 }
}

// MARK: Views

extension KVCache {
    private var shape: Dims { [batch, kvHeads, longest] }
    private var rowStrides: Dims { [kvHeads &* maxLength, maxLength, 1] }

    /// (B, Hkv, longest, D): what the entries hold; past its length, an entry's rows may hold anything.
    public var keys: Tensor { keyRows.view(shape, rowStrides: rowStrides) }

    /// (B, Hkv, longest, Dv), as `keys`.
    public var values: Tensor { valueRows.view(shape, rowStrides: rowStrides) }

    /// (B, Hkv, longest) float32; nil unless the storage is int8.
    public var keyScales: Tensor? { keyRows.scalesView(shape, rowStrides: rowStrides) }

    /// (B, Hkv, longest) float32; nil unless the storage is int8.
    public var valueScales: Tensor? { valueRows.scalesView(shape, rowStrides: rowStrides) }

    /// (B,) int64: `lengths` as they are at any time.
    public var lengthsView: Tensor { Tensor(data: UnsafeMutableRawPointer(counts), dtype: .int64, shape: [batch]) }
}

// MARK: Changes

extension KVCache {
    /// Adds tokens behind those that each entry holds, rounded or quantised to the storage's dtype.
    ///
    /// - Parameters:
    ///   - key: (B, Hkv, T, D), float32, float16 or bfloat16, any strides.
    ///   - value: (B, Hkv, T, Dv), likewise.
    ///   - lengths: how many of the T tokens each entry takes, the first ones; nil is all.
    /// - Throws: `Failure` for whatever does not fit, tokens beyond `maxLength` included; nothing is changed then.
    public func append(key: Tensor, value: Tensor, lengths: [Int]? = nil) throws(Failure) {
        try Library.requireKernels()
        try check(key, "key", headDim)
        try check(value, "value", valueDim)
        let tokens = key.shape[2]
        guard value.shape[2] == tokens else {
            throw .shape("value: length is \(value.shape[2]), key has \(tokens)")
        }
        if let lengths {
            guard lengths.count == batch else { throw .shape("lengths: shape is (\(lengths.count),), expected (\(batch),)") }
            for b in 0..<batch where !(0...tokens).contains(lengths[b]) {
                throw .argument("lengths: entry \(b) is \(lengths[b]), expected 0 to \(tokens)")
            }
        }
        for b in 0..<batch {
            let added = lengths?[b] ?? tokens
            guard added <= maxLength - counts[b] else {
                throw .argument("key: entry \(b) holds \(counts[b]) tokens of at most \(maxLength), \(added) more do not fit")
            }
        }
        for rows in [keyRows, valueRows] {
            let whole = Output("cache", rows.view([batch &* kvHeads &* maxLength], rowStrides: [1]))
            try whole?.expectApart(from: key, "key")
            try whole?.expectApart(from: value, "value")
        }
        let cost = max(tokens &* (headDim &+ valueDim), 1)
        parallelFor(batch &* kvHeads, grain: max(elementsPerRange / cost, 1)) { heads in
            for head in heads {
                let (b, h) = head.quotientAndRemainder(dividingBy: kvHeads)
                let count = lengths?[b] ?? tokens, first = head &* maxLength &+ counts[b]
                for (rows, new) in [(keyRows, key), (valueRows, value)] {
                    rows.store(new.pointer(byOffset: b &* new.strides[0] &+ h &* new.strides[1]), new.dtype,
                               strides: (new.strides[2], new.strides[3]), count: count, at: first)
                }
            }
        }
        for b in 0..<batch { counts[b] += lengths?[b] ?? tokens }
    }

    private func check(_ new: Tensor, _ name: StaticString, _ width: Int) throws(Failure) {
        try new.checked(name).expect(rank: 4...4, name)
        guard [.float32, .float16, .bfloat16].contains(new.dtype) else {
            throw .dtype("\(name): dtype is \(new.dtype), expected float32, float16 or bfloat16")
        }
        try new.expect(shape: [batch, kvHeads, new.shape[2], width], name)
    }

    /// Forgets all but the first `length` tokens of each entry; entries that hold fewer stay as they are. 0 empties the cache.
    public func truncate(to length: Int) throws(Failure) {
        guard length >= 0 else { throw .argument("length: expected at least 0, got \(length)") }
        for b in 0..<batch { counts[b] = min(counts[b], length) }
    }

    /// The same with a length for each entry.
    public func truncate(to lengths: [Int]) throws(Failure) {
        guard lengths.count == batch else { throw .shape("lengths: shape is (\(lengths.count),), expected (\(batch),)") }
        for b in 0..<batch where lengths[b] < 0 {
            throw .argument("lengths: entry \(b) is \(lengths[b]), expected at least 0")
        }
        for b in 0..<batch { counts[b] = min(counts[b], lengths[b]) }
    }

    /// A cache whose entry i is a copy of this one's entry `indices[i]`; nil copies all. Room and storage are the same.
    public func fork(_ indices: [Int]? = nil) throws(Failure) -> KVCache {
        let sources = indices ?? Array(0..<batch)
        try check(sources)
        let fork = try KVCache(batch: sources.count, kvHeads: kvHeads, maxLength: maxLength, headDim: headDim,
                               valueDim: valueDim, dtype: dtype)
        let moves = sources.enumerated().map { Move(from: .entry($1), to: .entry($0), tokens: counts[$1]) }
        move(moves, to: fork, spare: nil)
        for (b, source) in sources.enumerated() { fork.counts[b] = counts[source] }
        return fork
    }

    /// Entry i becomes what entry `indices[i]` was, in place: beams that live on.
    public func reorder(_ indices: [Int]) throws(Failure) {
        guard indices.count == batch else { throw .shape("indices: shape is (\(indices.count),), expected (\(batch),)") }
        try check(indices)
        let old = lengths, moves = plan(indices)
        let needsSpare = moves.contains { $0.to == .spare }
        let spare = needsSpare ? try KVCache(batch: 1, kvHeads: kvHeads, maxLength: longest, headDim: headDim,
                                             valueDim: valueDim, dtype: dtype) : nil
        move(moves, to: self, spare: spare)
        for b in 0..<batch { counts[b] = old[indices[b]] }
    }

    private func check(_ indices: [Int]) throws(Failure) {
        for (i, index) in indices.enumerated() where !(0..<batch).contains(index) {
            throw .argument("indices: entry \(i) is \(index), expected 0 <= index < \(batch)")
        }
    }
}

// MARK: Moving entries

extension KVCache {
    private enum Place: Equatable { case entry(Int), spare }

    private struct Move {
        let from, to: Place
        let tokens: Int
    }

    /// The moves of a reordering one after another, none overwriting what a later one reads: first those to entries that
    /// nobody needs any more; what is left then are cycles, each broken with the spare place.
    private func plan(_ source: [Int]) -> [Move] {
        var moves: [Move] = []
        var readers = [Int](repeating: 0, count: batch), isDone = source.indices.map { source[$0] == $0 }
        for b in source.indices where source[b] != b { readers[source[b]] += 1 }
        for start in source.indices {
            var b = start
            while !isDone[b] && readers[b] == 0 {
                moves.append(Move(from: .entry(source[b]), to: .entry(b), tokens: counts[source[b]]))
                isDone[b] = true
                b = source[b]
                readers[b] -= 1
            }
        }
        for start in source.indices where !isDone[start] {
            moves.append(Move(from: .entry(start), to: .spare, tokens: counts[start]))
            var b = start
            while !isDone[b] {
                let from: Place = source[b] == start ? .spare : .entry(source[b])
                moves.append(Move(from: from, to: .entry(b), tokens: counts[source[b]]))
                isDone[b] = true
                b = source[b]
            }
        }
        return moves
    }

    private func move(_ moves: [Move], to target: KVCache, spare: KVCache?) {
        let elements = moves.reduce(0) { $0 + $1.tokens } &* (headDim &+ valueDim)
        parallelFor(kvHeads, grain: max(elementsPerRange / max(elements, 1), 1)) { heads in
            for h in heads {
                for move in moves {
                    let (from, source) = place(move.from, h, in: self, spare), (to, destination) = place(move.to, h, in: target, spare)
                    destination.keyRows.copy(move.tokens, from: source.keyRows, from, at: to)
                    destination.valueRows.copy(move.tokens, from: source.valueRows, from, at: to)
                }
            }
        }
    }

    /// The first row of head h.
    private func place(_ place: Place, _ h: Int, in cache: KVCache, _ spare: KVCache?) -> (row: Int, cache: KVCache) {
        switch place {
        case .entry(let b): ((b &* kvHeads &+ h) &* cache.maxLength, cache)
        case .spare: (h &* spare!.maxLength, spare!)
        }
    }
}

// MARK: Windows

extension KVCache {
    /// Forgets the first `dropped` tokens of an entry; those that stay move to the front.
    func dropFirst(_ dropped: Int, of entry: Int) {
        let kept = counts[entry] - dropped
        parallelFor(kvHeads, grain: max(elementsPerRange / max(kept &* (headDim &+ valueDim), 1), 1)) { heads in
            for h in heads {
                let first = (entry &* kvHeads &+ h) &* maxLength
                keyRows.copy(kept, from: keyRows, first &+ dropped, at: first)
                valueRows.copy(kept, from: valueRows, first &+ dropped, at: first)
            }
        }
        counts[entry] = kept
    }
}
