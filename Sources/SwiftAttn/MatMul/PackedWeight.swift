/// Weights in the order in which products read them.

import CAttnKernels

/// A weight (N, K), packed once and used in many calls, from any number of threads at once. It owns a copy.
///
/// - Throws: `Failure` if the tensor is not a floating matrix, or memory cannot be had.
public final class PackedWeight: @unchecked Sendable {
    public let dtype: DType
    /// (N, K)
    public let shape: Dims
    let memory: UnsafeMutableRawPointer

    public init(_ weight: Tensor) throws(Failure) {
        try Library.requireKernels()
        try weight.checked("weight").expect(rank: 2...2, "weight")
        try weight.expectFloating("weight")
        let n = weight.shape[0], k = weight.shape[1]
        var bytes = 0
        if n > 0 && k > 0 {
            let (elements, overflow) = n.multipliedReportingOverflow(by: k)
            guard !overflow, elements < 1 << 56 else { throw Failure.outOfMemory }
            bytes = attn_packed_size(weight.dtype.kernel, Int64(k), Int64(n))
        }
        guard let memory = attn_allocate(max(bytes, 1)) else { throw Failure.outOfMemory }
        if bytes > 0 {
            var b = attn_matrix(data: UnsafeRawPointer(weight.pointer(byOffset: 0)), row: Int64(weight.strides[1]),
                                column: Int64(weight.strides[0]))
            attn_pack(weight.dtype.kernel, &b, Int64(k), Int64(n), memory)
        }
        dtype = weight.dtype
        shape = weight.shape
        self.memory = memory
    }

    deinit { attn_free(memory) }
}
