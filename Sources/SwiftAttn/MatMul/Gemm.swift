/// What matmul and linear share: a checked batch of matrix products for the C driver.

import CAttnKernels

/// Values of the activation fused behind a linear layer.
public enum Activation: Int32, Sendable {
    case none = 0
    case relu = 1
    /// x/2 * (1 + erf(x / sqrt 2))
    case gelu = 2
    /// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
    case geluTanh = 3
    /// x / (1 + exp(-x))
    case silu = 4

    var kernel: attn_activation { attn_activation(rawValue: UInt32(rawValue)) }
}

/// c[m,n] = residual[m,n] + activation(sum_k a[m,k] b[k,n] + bias[n]) for every index of the leading dims.
/// All views have these leading dims (broadcast ones with stride 0) before their last two, and one dtype; with float32 operands b
/// may be float16 or bfloat16.
struct Gemm {
    var a, b, c: Tensor
    var residual: Tensor?
    var bias: Tensor?
    var activation = Activation.none
    var precision = Precision.highest
    /// b as it was packed; then b only has b's shape.
    var packed: PackedWeight?

    func run() throws(Failure) {
        if c.isEmpty { return }
        let leading = c.leading(2).shape
        var batch = 1
        for dim in leading { batch *= dim }
        let m = c.shape[c.rank - 2], n = c.shape[c.rank - 1], k = a.shape[a.rank - 1]
        let flops = 2 * Double(batch) * Double(m) * Double(n) * Double(k)
        var gemm = attn_gemm()
        gemm.dtype = a.dtype.kernel
        gemm.b_dtype = b.dtype.kernel
        gemm.precision = precision.kernel
        gemm.m = Int64(m)
        gemm.n = Int64(n)
        gemm.k = Int64(k)
        gemm.batch = Int64(batch)
        gemm.packed_b = packed.map { UnsafeRawPointer($0.memory) }
        if let bias {
            gemm.bias = UnsafeRawPointer(bias.data)
            gemm.bias_stride = Int64(bias.strides[0])
        }
        gemm.activation = activation.kernel
        gemm.threads = Int32(threadCount(flops: flops))
        let (places, overflow) = batch.multipliedReportingOverflow(by: 4)
        guard !overflow else { throw Failure.outOfMemory }
        let done = withUnsafeTemporaryAllocation(of: attn_matrix.self, capacity: places) { matrices in
            let each = matrices.baseAddress!
            gemm.a = Gemm.describe(a, leading, each)
            gemm.b = Gemm.describe(b, leading, each + batch)
            gemm.c = Gemm.describe(c, leading, each + 2 * batch)
            gemm.residual = residual.map { Gemm.describe($0, leading, each + 3 * batch) }
            return attn_gemm_run(&gemm)
        }
        guard done else { throw Failure.outOfMemory }
    }

    /// The matrices of `t` for every index of the leading dims, written to `place`.
    private static func describe(_ t: Tensor, _ leading: Dims,
                                 _ place: UnsafeMutablePointer<attn_matrix>) -> UnsafePointer<attn_matrix> {
        let row = Int64(t.strides[t.rank - 2]), column = Int64(t.strides[t.rank - 1])
        forEachOffset(leading, t.leading(2).strides) { number, offset in
            let first = UnsafeRawPointer(t.pointer(byOffset: offset))
            (place + number).initialize(to: attn_matrix(data: first, row: row, column: column))
        }
        return UnsafePointer(place)
    }
}

extension Tensor {
    /// The same memory with other dims.
    func reshaped(_ shape: [Int], strides: [Int]) -> Tensor {
        Tensor(data: data, dtype: dtype, shape: Dims(shape), strides: Dims(strides))
    }

    /// This view as broadcast to `shape`, NumPy's rule.
    func broadcast(toShape shape: Dims, _ name: StaticString) throws(Failure) -> Tensor {
        guard rank <= shape.count else { throw .shape("\(name): shape is \(self.shape), expected at most the rank of \(shape)") }
        return try broadcast(to: shape, kept: 0, name)
    }
}
