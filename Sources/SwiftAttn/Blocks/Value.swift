/// What passes compute with: tensors that own their memory, and the pool that it comes from.

import CAttnKernels

/// Memory of one pass: what one value leaves behind, the next one takes. Used by one thread at a time.
final class Pool {
    private var free: [Int: [UnsafeMutableRawPointer]] = [:]

    /// Sizes that differ by less than an eighth share their memory.
    private static func rounded(_ bytes: Int) -> Int {
        let step = max(64, 1 << max(Int.bitWidth - bytes.leadingZeroBitCount - 4, 0))
        return (bytes + step - 1) / step * step
    }

    func take(_ bytes: Int) throws(Failure) -> UnsafeMutableRawPointer {
        guard bytes < 1 << 56 else { throw Failure.outOfMemory }
        let size = Pool.rounded(max(bytes, 1))
        if let memory = free[size]?.popLast() { return memory }
        guard let memory = attn_allocate(size) else { throw Failure.outOfMemory }
        return memory
    }

    func give(_ memory: UnsafeMutableRawPointer, _ bytes: Int) {
        free[Pool.rounded(max(bytes, 1)), default: []].append(memory)
    }

    deinit {
        for memory in free.values.joined() { attn_free(memory) }
    }
}

/// A tensor that a pass made, contiguous and with its memory, or one that the caller lent.
final class Value {
    let tensor: Tensor
    /// In the backward of a pass: of the loss with respect to this value, as far as it is known.
    var gradient: Value?
    private let pool: Pool?

    init(lent tensor: Tensor) {
        self.tensor = tensor
        pool = nil
    }

    /// The elements are whatever the memory held.
    init(_ dtype: DType, _ shape: Dims, in pool: Pool) throws(Failure) {
        tensor = Tensor(data: try pool.take(try shape.bytes(of: dtype)), dtype: dtype, shape: shape)
        self.pool = pool
    }

    deinit {
        if let pool { pool.give(tensor.data!, tensor.shape.reduce(tensor.dtype.size, *)) }
    }

    /// The gradient, which is then gone: every operation asks for its result's once, when all that used it have run.
    func takeGradient() -> Value? {
        defer { gradient = nil }
        return gradient
    }

    /// Columns of the rows of a (B, T, W) value as `count` heads (B, count, T, dim); of a packed (rows, W) value as
    /// (rows, count, dim).
    func heads(from column: Int, count: Int, dim: Int) -> Tensor {
        let steps = tensor.strides
        let isPacked = tensor.rank == 2
        var result = isPacked
            ? tensor.reshaped([tensor.shape[0], count, dim], strides: [steps[0], dim &* steps[1], steps[1]])
            : tensor.reshaped([tensor.shape[0], count, tensor.shape[1], dim],
                              strides: [steps[0], dim &* steps[2], steps[1], steps[2]])
        result.data = tensor.pointer(byOffset: column &* steps[tensor.rank - 1])
        return result
    }
}

extension Dims {
    /// Memory of a contiguous tensor of this shape.
    func bytes(of dtype: DType) throws(Failure) -> Int {
        var bytes = dtype.size
        for size in self {
            let (product, overflow) = bytes.multipliedReportingOverflow(by: size)
            guard !overflow else { throw Failure.outOfMemory }
            bytes = product
        }
        return bytes
    }

    /// This shape with another last dim.
    func withLast(_ size: Int) -> Dims {
        var result = self
        result[count - 1] = size
        return result
    }
}
