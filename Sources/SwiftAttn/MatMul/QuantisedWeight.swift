/// Weights that stay quantised, in the order in which products read them.

import CAttnKernels

/// A weight (N, K) in one of GGUF's quantised formats. It owns a repacked copy that takes no more room than the stored bytes
/// but for N up to a multiple of 16, and 3 % with Q4_K.
final class QuantisedWeight: @unchecked Sendable {
    let format: attn_quant
    /// (N, K)
    let shape: Dims
    let memory: UnsafeMutableRawPointer

    /// - Parameter stored: the rows as a file holds them; K is a multiple of the format's block.
    init(_ format: attn_quant, _ stored: UnsafeRawPointer, shape: Dims) throws(Failure) {
        let n = Int64(shape[0]), k = Int64(shape[1])
        guard let memory = attn_allocate(attn_quant_packed_size(format, n, k)) else { throw Failure.outOfMemory }
        attn_quant_pack(format, stored, n, k, memory)
        self.format = format
        self.shape = shape
        self.memory = memory
    }

    deinit { attn_free(memory) }

    func loadRow(_ row: Int, into out: UnsafeMutablePointer<Float>) {
        attn_quant_packed_row(format, memory, Int64(shape[1]), Int64(row), out)
    }
}
