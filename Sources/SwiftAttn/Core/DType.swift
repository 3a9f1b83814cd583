/// Element types of tensors.

import CAttnKernels

/// An element type. float16 and bfloat16 are computed in float32, float64 in float64.
public enum DType: UInt8, Sendable, CustomStringConvertible {
    case float32, float16, bfloat16, float64
    case bool, int32, int64
    /// Of quantised rows, whose scales lie beside them: see `KVCache`.
    case int8

    /// Bytes of one element.
    public var size: Int {
        switch self {
        case .bool, .int8: 1
        case .float16, .bfloat16: 2
        case .float32, .int32: 4
        case .float64, .int64: 8
        }
    }

    public var isFloating: Bool { rawValue <= DType.float64.rawValue }

    public var description: String {
        switch self {
        case .float32: "float32"
        case .float16: "float16"
        case .bfloat16: "bfloat16"
        case .float64: "float64"
        case .bool: "bool"
        case .int32: "int32"
        case .int64: "int64"
        case .int8: "int8"
        }
    }

    /// The type that sums of this one are taken in: float64 for float64, float32 for the rest.
    var computing: DType { self == .float64 ? .float64 : .float32 }

    /// The kernels' name for it; integers never reach a kernel.
    var kernel: attn_dtype {
        switch self {
        case .float32: ATTN_F32
        case .float16: ATTN_F16
        case .bfloat16: ATTN_BF16
        case .float64: ATTN_F64
        case .int8: ATTN_I8
        default: ATTN_BOOL
        }
    }
}
