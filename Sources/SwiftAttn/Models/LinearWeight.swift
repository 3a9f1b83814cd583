/// The matrices of a model, as they are held: quantised, packed float32, or float16 and bfloat16 as stored.

import CAttnKernels

/// A weight (N, K) that is applied to float32 rows.
enum LinearWeight {
    case quantised(QuantisedWeight)
    case packed(PackedWeight)
    /// Rows side by side in memory that `owner` keeps; float32, float16 or bfloat16.
    case stored(Tensor, owner: AnyObject)

    var shape: Dims {
        switch self {
        case .quantised(let weight): weight.shape
        case .packed(let weight): weight.shape
        case .stored(let weight, _): weight.shape
        }
    }

    /// Row `row` in float32; not of packed weights, which no model looks rows up in.
    func loadRow(_ row: Int, into out: UnsafeMutablePointer<Float>) {
        switch self {
        case .quantised(let weight): weight.loadRow(row, into: out)
        case .stored(let weight, _):
            attn_load_row(weight.dtype.kernel, weight.pointer(byOffset: row * weight.strides[0]), 1, Int64(weight.shape[1]), out)
        case .packed: preconditionFailure("a packed weight has no rows")
        }
    }
}

/// out = residual + activation(x · weightᵀ + bias), all rows contiguous; out may be residual.
struct LinearCall {
    let weight: LinearWeight
    let out: UnsafeMutablePointer<Float>
    var bias: UnsafeMutablePointer<Float>?
    var residual: UnsafeMutablePointer<Float>?

    /// Several weights on one x (rows, K). Quantised ones share its rounding and their threads; `coarse`: x rounded to 8 bits
    /// for them, where the machine gains by it.
    static func run(_ calls: [LinearCall], _ x: UnsafeMutablePointer<Float>, rows: Int, coarse: Bool = false) throws(Failure) {
        let k = calls[0].weight.shape[1]
        var outputs: [attn_quant_output] = []
        for call in calls {
            if case .quantised(let weight) = call.weight {
                let n = Int64(weight.shape[0])
                outputs.append(attn_quant_output(
                    format: weight.format, n: n, packed: weight.memory, c: call.out, c_row: n, bias: call.bias,
                    residual: call.residual, residual_row: n, activation: ATTN_IDENTITY))
            } else {
                try call.runFloat(x, rows: rows)
            }
        }
        if outputs.isEmpty { return }
        let done = outputs.withUnsafeBufferPointer { outputs in
            var product = attn_quant_product(m: Int64(rows), k: Int64(k), x: x, x_row: Int64(k), outputs: outputs.baseAddress,
                                             output_count: Int64(outputs.count), coarse: coarse, threads: 0)
            return attn_quant_run(&product)
        }
        guard done else { throw Failure.outOfMemory }
    }

    private func runFloat(_ x: UnsafeMutablePointer<Float>, rows: Int) throws(Failure) {
        let n = weight.shape[0], k = weight.shape[1]
        var gemm = Gemm(a: Tensor(data: x, dtype: .float32, shape: [rows, k]), b: Tensor(data: x, dtype: .float32, shape: [k, n]),
                        c: Tensor(data: out, dtype: .float32, shape: [rows, n]))
        switch weight {
        case .packed(let packed): gemm.packed = packed
        case .stored(let stored, _): gemm.b = stored.reshaped([k, n], strides: [1, stored.strides[0]])
        case .quantised: preconditionFailure("quantised weights have kernels of their own")
        }
        gemm.residual = residual.map { Tensor(data: $0, dtype: .float32, shape: [rows, n]) }
        gemm.bias = bias.map { Tensor(data: $0, dtype: .float32, shape: [n]) }
        try gemm.run()
    }
}
