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

    /// Below this many floating-point operations for each thread, waking it costs more than it saves.
    private static let flopsPerThread = 200_000.0

    func run() throws(Failure) {
        if c.isEmpty { return }
        let leading = c.leading(2).shape
        let batch = leading.reduce(1, *)
        let m = c.shape[c.rank - 2], n = c.shape[c.rank - 1], k = a.shape[a.rank - 1]
        let flops = 2 * Double(batch) * Double(m) * Double(n) * Double(k)
        let threads = max(1, min(Double(attn_get_num_threads()), flops / Gemm.flopsPerThread))
        let matrices = (matrices(a, leading), matrices(b, leading), matrices(c, leading), residual.map { self.matrices($0, leading) })
        let done = matrices.0.withUnsafeBufferPointer { a in
            matrices.1.withUnsafeBufferPointer { b in
                matrices.2.withUnsafeBufferPointer { c in
                    (matrices.3 ?? []).withUnsafeBufferPointer { residual in
                        var gemm = attn_gemm()
                        gemm.dtype = self.a.dtype.kernel
                        gemm.b_dtype = self.b.dtype.kernel
                        gemm.precision = precision.kernel
                        gemm.m = Int64(m)
                        gemm.n = Int64(n)
                        gemm.k = Int64(k)
                        gemm.batch = Int64(batch)
                        gemm.a = a.baseAddress
                        gemm.b = b.baseAddress
                        gemm.c = c.baseAddress
                        gemm.packed_b = packed.map { UnsafeRawPointer($0.memory) }
                        gemm.residual = matrices.3 == nil ? nil : residual.baseAddress
                        if let bias {
                            gemm.bias = UnsafeRawPointer(bias.data)
                            gemm.bias_stride = Int64(bias.strides[0])
                        }
                        gemm.activation = activation.kernel
                        gemm.threads = Int32(threads)
                        return attn_gemm_run(&gemm)
                    }
                }
            }
        }
        guard done else { throw Failure.outOfMemory }
    }

    private func matrices(_ t: Tensor, _ leading: Dims) -> [attn_matrix] {
        var result: [attn_matrix] = []
        let row = Int64(t.strides[t.rank - 2]), column = Int64(t.strides[t.rank - 1])
        forEachOffset(leading, t.leading(2).strides) { _, offset in
            result.append(attn_matrix(data: UnsafeRawPointer(t.pointer(byOffset: offset)), row: row, column: column))
        }
        return result
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
