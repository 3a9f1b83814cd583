/// Weights that stay quantised, in the order in which products read them.

import CAttnKernels

/// Room for many weights in one block, so that small ones share its huge pages.
final class WeightArena: @unchecked Sendable {
    private let memory: UnsafeMutableRawPointer
    private let size: Int
    private var used = 0

    /// Room for weights of so many bytes each.
    init(_ sizes: [Int]) throws(Failure) {
        size = sizes.reduce(0) { $0 + WeightArena.rounded($1) }
        guard let memory = attn_allocate(max(size, 1)) else { throw Failure.outOfMemory }
        self.memory = memory
    }

    deinit { attn_free(memory) }

    private static func rounded(_ bytes: Int) -> Int { (bytes + 63) / 64 * 64 }

    /// The next `bytes`, 64-byte aligned; nil beyond what was asked for.
    func take(_ bytes: Int) -> UnsafeMutableRawPointer? {
        guard bytes <= size - used else { return nil }
        defer { used += WeightArena.rounded(bytes) }
        return memory + used
    }
}

/// A weight (N, K) in one of GGUF's quantised formats: a repacked copy that takes no more room than the stored bytes but for N up
/// to a multiple of 16, and 3 % with Q4_K.
final class QuantisedWeight: @unchecked Sendable {
    let format: attn_quant
    /// (N, K)
    let shape: Dims
    let memory: UnsafeMutableRawPointer
    private let arena: WeightArena

    /// - Parameters:
    ///   - stored: the rows as a file holds them; K is a multiple of the format's block.
    ///   - arena: with room left for `packedSize`.
    init(_ format: attn_quant, _ stored: UnsafeRawPointer, shape: Dims, in arena: WeightArena) throws(Failure) {
        guard let memory = arena.take(QuantisedWeight.packedSize(format, shape: shape)) else { throw Failure.outOfMemory }
        attn_quant_pack(format, stored, Int64(shape[0]), Int64(shape[1]), memory)
        self.arena = arena
        self.format = format
        self.shape = shape
        self.memory = memory
    }

    static func packedSize(_ format: attn_quant, shape: Dims) -> Int {
        attn_quant_packed_size(format, Int64(shape[0]), Int64(shape[1]))
    }

    func loadRow(_ row: Int, into out: UnsafeMutablePointer<Float>) {
        attn_quant_packed_row(format, memory, Int64(shape[1]), Int64(row), out)
    }
}
