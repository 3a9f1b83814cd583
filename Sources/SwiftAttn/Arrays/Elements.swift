/// Swift types that can be elements of a tensor.

/// A Swift type whose memory is that of a `DType`.
public protocol TensorElement: BitwiseCopyable, Sendable {
    static var dtype: DType { get }
}

/// float32, float16, bfloat16 or float64.
public protocol FloatingElement: TensorElement {
    /// The type that sums of this one are taken in: Double for Double, Float for the rest.
    associatedtype Computing: FloatingElement & BinaryFloatingPoint
}

/// Numbers of rows, lengths and positions.
public protocol IndexElement: TensorElement, FixedWidthInteger {}

extension Float: FloatingElement {
    public typealias Computing = Float
    public static var dtype: DType { .float32 }
}

extension Double: FloatingElement {
    public typealias Computing = Double
    public static var dtype: DType { .float64 }
}

#if !(os(macOS) && arch(x86_64))  // where Swift has no Float16
extension Float16: FloatingElement {
    public typealias Computing = Float
    public static var dtype: DType { .float16 }
}
#endif

extension Bool: TensorElement {
    public static var dtype: DType { .bool }
}

extension Int32: IndexElement {
    public static var dtype: DType { .int32 }
}

extension Int64: IndexElement {
    public static var dtype: DType { .int64 }
}

extension Int: IndexElement {
    public static var dtype: DType { .int64 }  // no machine that the kernels run on has another Int
}

/// The upper half of a Float: its range with 8 significand bits.
public struct BFloat16: FloatingElement, Equatable {
    public typealias Computing = Float
    public static var dtype: DType { .bfloat16 }

    public var bitPattern: UInt16

    public init(bitPattern: UInt16) { self.bitPattern = bitPattern }

    /// Rounds to nearest, ties to even; a NaN stays one.
    public init(_ value: Float) {
        let bits = value.bitPattern
        let rounded = bits &+ 0x7fff &+ (bits >> 16 & 1)
        bitPattern = UInt16(truncatingIfNeeded: (value.isNaN ? bits | 0x40_0000 : rounded) >> 16)
    }

    /// As Float, which holds every value of this type.
    public var float: Float { Float(bitPattern: UInt32(bitPattern) << 16) }

    /// As numbers compare: 0 is -0, and NaN is not NaN.
    public static func == (a: BFloat16, b: BFloat16) -> Bool { a.float == b.float }
}
