/// Caches on arrays: the numbers of plain attention.

import SwiftAttn
import Testing

@Suite struct CacheTests {
    /// Numbers without a pattern, the same in every run.
    private static func numbers(_ shape: [Int], _ seed: UInt64) throws -> NDArray<Float> {
        var state = seed
        return try NDArray((0..<shape.reduce(1, *)).map { _ in
            state = state &* 6364136223846793005 &+ 1442695040888963407
            return Float(Int32(truncatingIfNeeded: state >> 33)) / Float(Int32.max)
        }, shape: shape)
    }

    @Test func decodingHasTheBitsOfTheFullPass() throws {
        let query = try Self.numbers([1, 4, 3, 8], 1), key = try Self.numbers([1, 2, 3, 8], 2)
        let value = try Self.numbers([1, 2, 3, 5], 3)
        var options = AttentionOptions()
        options.causal = .lowerRight
        let cache = try KVCache(batch: 1, kvHeads: 2, maxLength: 4, headDim: 8, valueDim: 5)
        try cache.append(key: key, value: value)
        #expect(cache.lengths == [3])
        let full = try scaledDotProductAttention(query: query, key: key, value: value, options: options)
        #expect(try attentionKVCache(query: query, cache: cache, options: options).elements == full.elements)
        #expect(throws: Failure.self) { try cache.append(key: key, value: value) }
        #expect(cache.lengths == [3])
        let fork = try cache.fork([0, 0])
        try fork.truncate(to: [1, 3])
        #expect(fork.lengths == [1, 3] && cache.lengths == [3])
        try fork.reorder([1, 0])
        #expect(fork.lengths == [3, 1])
    }

    @Test func blocksHaveTheBitsOfOnePiece() throws {
        let query = try Self.numbers([1, 2, 1, 4], 4), rows = try Self.numbers([3, 2, 2, 4], 5)
        /* block 2, then block 0: rows 2.0, 2.1, 0.0 of each head */
        var tokens: [Float] = []
        for h in 0..<2 {
            for (block, row) in [(2, 0), (2, 1), (0, 0)] {
                let first = ((block * 2 + row) * 2 + h) * 4
                tokens += rows.elements[first..<first + 4]
            }
        }
        let one = try NDArray<Float>(tokens, shape: [1, 2, 3, 4])
        let paged = try attentionPaged(query: query, keyCache: rows, valueCache: rows, blocks: [[2, 0, 99]], lengths: [3])
        let plain = try scaledDotProductAttention(query: query, key: one, value: one)
        #expect(paged.elements == plain.elements)
        #expect(throws: Failure.self) {
            try attentionPaged(query: query, keyCache: rows, valueCache: rows, blocks: [[2, 3]], lengths: [3])
        }
    }

    @Test func sharedBlocksAreCounted() throws {
        let cache = try PagedKVCache(blocks: 4, blockSize: 2, kvHeads: 1, headDim: 4)
        let token = try Self.numbers([1, 1, 3, 4], 6)
        let first = cache.open()
        try token.withTensor { (t) throws(Failure) in try cache.append([first], key: t, value: t) }
        let second = try cache.fork(first)
        #expect(cache.freeBlocks == 2)
        try token.withTensor { (t) throws(Failure) in try cache.append([second], key: t, value: t, lengths: [1]) }
        #expect(cache.freeBlocks == 1)
        #expect(try cache.lengths([first, second]) == [3, 4])
        try cache.close(first)
        try cache.close(second)
        #expect(cache.freeBlocks == 4)
    }
}
