/// Keys and values in blocks that sequences take as they grow, and share where they began alike.

import CAttnKernels

/// `blockCount` blocks of `blockSize` tokens: keys (blocks, block_size, Hkv, D) and values (blocks, block_size, Hkv, Dv), as
/// `attentionPaged` takes them; storage as in `KVCache`.
///
/// A sequence is known by a number, which is never given twice. Its blocks are counted: `fork` shares them, and who appends
/// to a block that is shared takes a copy of its own first. Any number of threads may read a cache at once, while none
/// changes it. Source: Kwon et al. 2023 (PagedAttention).
public final class PagedKVCache: @unchecked Sendable {
    public let blockCount, blockSize, kvHeads, headDim, valueDim: Int
    public let dtype: DType
    private let memory: CacheMemory
    /// How many sequences hold each block.
    private var holders: [Int]
    /// The blocks that nobody holds; the next one to take is last.
    private var free: [Int]
    private var sequences: [Int: Held] = [:]
    private var nextNumber = 0

    /// What a sequence holds: ceil(length / blockSize) blocks.
    private struct Held {
        var blocks: [Int] = []
        var length = 0
    }

    /// - Throws: `Failure` for a negative size, a dtype that is none of the four, or memory that cannot be had.
    public init(blocks: Int, blockSize: Int, kvHeads: Int, headDim: Int, valueDim: Int? = nil,
                dtype: DType = .float32) throws(Failure) {
        try Library.requireKernels()
        let width = valueDim ?? headDim
        for (name, size, least) in [("num_blocks", blocks, 0), ("block_size", blockSize, 1), ("kv_heads", kvHeads, 0),
                                    ("head_dim", headDim, 0), ("value_dim", width, 0)] where size < least {
            throw .argument("\(name): expected at least \(least), got \(size)")
        }
        guard blocks <= Int32.max else { throw .argument("num_blocks: expected at most 2^31 - 1, got \(blocks)") }
        let (tokens, o1) = blocks.multipliedReportingOverflow(by: blockSize)
        let (rows, o2) = tokens.multipliedReportingOverflow(by: kvHeads)
        guard !o1, !o2 else { throw Failure.outOfMemory }
        try requireMemory(for: 2 * blocks, of: Int.self)
        memory = try CacheMemory(rows, headDim: headDim, valueDim: width, dtype)
        holders = Array(repeating: 0, count: blocks)
        free = (0..<blocks).reversed()
        (blockCount, self.blockSize, self.kvHeads, self.headDim, self.valueDim) = (blocks, blockSize, kvHeads, headDim, width)
        self.dtype = dtype
    }

    deinit { memory.free() }

    /// Blocks that nobody holds.
    public var freeBlocks: Int { free.count }
}

// MARK: Sequences

extension PagedKVCache {
    /// A new sequence without tokens.
    public func open() -> Int {
        sequences[nextNumber] = Held()
        nextNumber += 1
        return nextNumber - 1
    }

    /// A new sequence that begins with the first `length` tokens of another one, nil is all of them, and shares their blocks.
    public func fork(_ number: Int, length: Int? = nil) throws(Failure) -> Int {
        var copy = try sequence(number)
        if let length {
            guard (0...copy.length).contains(length) else {
                throw .argument("length: expected 0 to \(copy.length), got \(length)")
            }
            copy.length = length
            copy.blocks.removeLast(copy.blocks.count - blocksFor(length))
        }
        for block in copy.blocks { holders[block] += 1 }
        let fork = open()
        sequences[fork] = copy
        return fork
    }

    /// Gives a sequence up; its number means nothing from now on.
    public func close(_ number: Int) throws(Failure) {
        for block in try sequence(number).blocks { release(block) }
        sequences[number] = nil
    }

    /// Forgets all but the first `length` tokens; a shorter sequence stays as it is.
    public func truncate(_ number: Int, to length: Int) throws(Failure) {
        guard length >= 0 else { throw .argument("length: expected at least 0, got \(length)") }
        var shorter = try sequence(number)
        guard length < shorter.length else { return }
        shorter.length = length
        while shorter.blocks.count > blocksFor(length) { release(shorter.blocks.removeLast()) }
        sequences[number] = shorter
    }

    /// Tokens that each of these sequences holds.
    public func lengths(_ numbers: [Int]) throws(Failure) -> [Int] {
        var result: [Int] = []
        for number in numbers { try result.append(sequence(number).length) }
        return result
    }

    /// The blocks of each of these sequences, in order.
    public func blocks(_ numbers: [Int]) throws(Failure) -> [[Int]] {
        var result: [[Int]] = []
        for number in numbers { try result.append(sequence(number).blocks) }
        return result
    }

    /// Writes what `attentionPaged` takes for these sequences.
    ///
    /// - Parameters:
    ///   - blockTable: (B, N) int32 or int64, N at least the blocks of the longest; -1 past the blocks of a sequence.
    ///   - lengths: (B,) int32 or int64.
    public func describe(_ numbers: [Int], blockTable: Tensor? = nil, lengths: Tensor? = nil) throws(Failure) {
        let (blocks, tokens) = (try blocks(numbers), try self.lengths(numbers))
        if let blockTable {
            try blockTable.expectIntegers("block_table", rank: 2)
            guard blockTable.shape[0] == numbers.count, blockTable.shape[1] >= blocks.map(\.count).max() ?? 0 else {
                throw .shape("block_table: shape is \(blockTable.shape), "
                    + "expected (\(numbers.count), \(blocks.map(\.count).max() ?? 0)) or wider")
            }
        }
        if let lengths {
            try lengths.expectIntegers("lengths", rank: 1)
            try lengths.expect(shape: [numbers.count], "lengths")
            guard lengths.dtype == .int64 || tokens.allSatisfy({ $0 <= Int32.max }) else {
                throw .dtype("lengths: dtype is int32, expected int64 for so many tokens")
            }
            try Output("lengths", lengths)?.expectApart(from: blockTable, "block_table")
        }
        for b in numbers.indices {
            if let lengths { lengths.store(tokens[b], byOffset: b &* lengths.strides[0]) }
            guard let blockTable else { continue }
            for i in 0..<blockTable.shape[1] {
                blockTable.store(i < blocks[b].count ? blocks[b][i] : -1,
                                 byOffset: b &* blockTable.strides[0] &+ i &* blockTable.strides[1])
            }
        }
    }

    private func sequence(_ number: Int) throws(Failure) -> Held {
        guard let sequence = sequences[number] else { throw .argument("sequence: \(number) is not open") }
        return sequence
    }

    private func blocksFor(_ length: Int) -> Int { length == 0 ? 0 : (length - 1) / blockSize + 1 }

    private func release(_ block: Int) {
        holders[block] -= 1
        if holders[block] == 0 { free.append(block) }
    }

    private func take() -> Int {
        let block = free.removeLast()
        holders[block] = 1
        return block
    }
}

// MARK: Tokens

extension PagedKVCache {
    /// Adds tokens behind those that each sequence holds, rounded or quantised to the storage's dtype.
    ///
    /// - Parameters:
    ///   - numbers: B sequences, each once.
    ///   - key: (B, Hkv, T, D), float32, float16 or bfloat16, any strides.
    ///   - value: (B, Hkv, T, Dv), likewise.
    ///   - lengths: how many of the T tokens each sequence takes, the first ones; nil is all.
    /// - Throws: `Failure` for whatever does not fit, too few free blocks included; nothing is changed then.
    public func append(_ numbers: [Int], key: Tensor, value: Tensor, lengths: [Int]? = nil) throws(Failure) {
        try Library.requireKernels()
        let added = try memory.checked(key: key, value: value, lengths: lengths, batch: numbers.count, heads: kvHeads)
        let old = try self.lengths(numbers)
        guard Set(numbers).count == numbers.count else { throw .argument("sequences: expected each once, got \(numbers)") }
        let needed = try blocksNeeded(numbers, added)
        guard needed <= free.count else {
            throw .argument("key: \(needed) more blocks are needed, \(free.count) of \(blockCount) are free")
        }
        for (number, tokens) in zip(numbers, added) where tokens > 0 { grow(number, by: tokens) }
        let grown = try blocks(numbers)
        parallelFor(numbers.count &* kvHeads, grain: cacheGrain(key.shape[2] &* (headDim &+ valueDim))) { heads in
            for head in heads {
                let (b, h) = head.quotientAndRemainder(dividingBy: kvHeads)
                var token = 0
                while token < added[b] {
                    let (block, row) = (old[b] + token).quotientAndRemainder(dividingBy: blockSize)
                    let some = min(blockSize - row, added[b] - token)
                    memory.store(key: key, value: value, b, h, token..<token + some,
                                 at: (grown[b][block] &* blockSize &+ row) &* kvHeads &+ h, step: kvHeads)
                    token += some
                }
            }
        }
    }

    /// What `grow` will take, for one sequence after another: a shared last block that is not full needs a copy, for all who
    /// append but the last one that holds it.
    private func blocksNeeded(_ numbers: [Int], _ added: [Int]) throws(Failure) -> Int {
        var needed = 0, copied: [Int: Int] = [:]
        for (number, tokens) in zip(numbers, added) where tokens > 0 {
            let sequence = try sequence(number)
            let (length, overflow) = sequence.length.addingReportingOverflow(tokens)
            guard !overflow else { throw Failure.outOfMemory }
            needed += blocksFor(length) - sequence.blocks.count
            if sequence.length % blockSize != 0, let last = sequence.blocks.last, holders[last] - copied[last, default: 0] > 1 {
                copied[last, default: 0] += 1
                needed += 1
            }
        }
        return needed
    }

    private func grow(_ number: Int, by tokens: Int) {
        var sequence = sequences[number]!
        let rows = sequence.length % blockSize
        if rows != 0, let last = sequence.blocks.last, holders[last] > 1 {
            let copy = take()
            memory.copy(rows &* kvHeads, from: memory, last &* blockSize &* kvHeads, at: copy &* blockSize &* kvHeads)
            release(last)
            sequence.blocks[sequence.blocks.count - 1] = copy
        }
        sequence.length += tokens
        while sequence.blocks.count < blocksFor(sequence.length) { sequence.blocks.append(take()) }
        sequences[number] = sequence
    }
}

// MARK: Views

extension PagedKVCache {
    private var shape: Dims { [blockCount, blockSize, kvHeads] }
    private var rowStrides: Dims { [blockSize &* kvHeads, kvHeads, 1] }

    /// (num_blocks, block_size, Hkv, D): all blocks; rows that hold no token may hold anything.
    public var keys: Tensor { memory.keys.view(shape, rowStrides: rowStrides) }

    /// (num_blocks, block_size, Hkv, Dv), as `keys`.
    public var values: Tensor { memory.values.view(shape, rowStrides: rowStrides) }

    /// (num_blocks, block_size, Hkv) float32; nil unless the storage is int8.
    public var keyScales: Tensor? { memory.keys.scalesView(shape, rowStrides: rowStrides) }

    /// (num_blocks, block_size, Hkv) float32; nil unless the storage is int8.
    public var valueScales: Tensor? { memory.values.scalesView(shape, rowStrides: rowStrides) }
}
