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
    private let memory: CacheMemory
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
        let (heads, o1) = batch.multipliedReportingOverflow(by: kvHeads)
        let (rows, o2) = heads.multipliedReportingOverflow(by: maxLength)
        guard !o1, !o2, batch < 1 << 40 else { throw Failure.outOfMemory }
        let rowsOfAll = try CacheMemory(rows, headDim: headDim, valueDim: width, dtype)
        guard let lengths = calloc(max(batch, 1), MemoryLayout<Int>.size) else {
            rowsOfAll.free()
            throw Failure.outOfMemory
        }
        memory = rowsOfAll
        counts = lengths.bindMemory(to: Int.self, capacity: batch)
        (self.batch, self.kvHeads, self.maxLength, self.headDim, self.valueDim) = (batch, kvHeads, maxLength, headDim, width)
        self.dtype = dtype
    }

    deinit {
        memory.free()
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
    public var keys: Tensor { memory.keys.view(shape, rowStrides: rowStrides) }

    /// (B, Hkv, longest, Dv), as `keys`.
    public var values: Tensor { memory.values.view(shape, rowStrides: rowStrides) }

    /// (B, Hkv, longest) float32; nil unless the storage is int8.
    public var keyScales: Tensor? { memory.keys.scalesView(shape, rowStrides: rowStrides) }

    /// (B, Hkv, longest) float32; nil unless the storage is int8.
    public var valueScales: Tensor? { memory.values.scalesView(shape, rowStrides: rowStrides) }

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
        let added = try memory.checked(key: key, value: value, lengths: lengths, batch: batch, heads: kvHeads)
        for b in 0..<batch {
            guard added[b] <= maxLength - counts[b] else {
                throw .argument("key: entry \(b) holds \(counts[b]) tokens of at most \(maxLength), \(added[b]) more do not fit")
            }
        }
        parallelFor(batch &* kvHeads, grain: cacheGrain(key.shape[2] &* (headDim &+ valueDim))) { heads in
            for head in heads {
                let (b, h) = head.quotientAndRemainder(dividingBy: kvHeads)
                memory.store(key: key, value: value, b, h, 0..<added[b], at: head &* maxLength &+ counts[b])
            }
        }
        for b in 0..<batch { counts[b] += added[b] }
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
        parallelFor(kvHeads, grain: cacheGrain(elements)) { heads in
            for h in heads {
                for move in moves {
                    let (from, source) = place(move.from, h, in: self, spare), (to, other) = place(move.to, h, in: target, spare)
                    other.memory.copy(move.tokens, from: source.memory, from, at: to)
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
        parallelFor(kvHeads, grain: cacheGrain(kept &* (headDim &+ valueDim))) { heads in
            for h in heads {
                let first = (entry &* kvHeads &+ h) &* maxLength
                memory.copy(kept, from: memory, first &+ dropped, at: first)
            }
        }
        counts[entry] = kept
    }
}
