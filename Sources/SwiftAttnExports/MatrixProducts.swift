/// Chapter "Matrix products" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

private let precisions: StaticString = "SWIFTATTN_PRECISION_HIGHEST, HIGH or MEDIUM"

@_cdecl("swiftattn_matmul")
public func swiftattn_matmul(_ a: TensorPointer?, _ b: TensorPointer?, _ precision: Int32, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try matmul(tensor(a, "a"), tensor(b, "b"), precision: enumeration(precision, "precision", precisions),
                   out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_linear")
public func swiftattn_linear(
    _ x: TensorPointer?, _ weight: TensorPointer?, _ bias: TensorPointer?, _ residual: TensorPointer?,
    _ options: UnsafePointer<swiftattn_linear_options>?, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        let (activation, precision) = try linearOptions(options)
        try linear(
            tensor(x, "x"), weight: tensor(weight, "weight"), bias: optionalTensor(bias, "bias"),
            residual: optionalTensor(residual, "residual"), activation: activation, precision: precision,
            out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_pack_weight")
public func swiftattn_pack_weight(_ weight: TensorPointer?, _ packed: UnsafeMutablePointer<OpaquePointer?>?) -> Int32 {
    status { () throws(Failure) in
        guard let packed else { throw Failure(.nullPointer, "packed: is NULL, expected a place for the handle") }
        packed.pointee = handle(try PackedWeight(tensor(weight, "weight")))
    }
}

@_cdecl("swiftattn_packed_weight_destroy")
public func swiftattn_packed_weight_destroy(_ packed: OpaquePointer?) {
    release(packed, PackedWeight.self)
}

@_cdecl("swiftattn_linear_packed")
public func swiftattn_linear_packed(
    _ x: TensorPointer?, _ packed: OpaquePointer?, _ bias: TensorPointer?, _ residual: TensorPointer?,
    _ options: UnsafePointer<swiftattn_linear_options>?, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        let weight = try object(packed, PackedWeight.self, "packed", "a packed weight")
        let (activation, precision) = try linearOptions(options)
        try linear(
            tensor(x, "x"), weight: weight,
            bias: optionalTensor(bias, "bias"), residual: optionalTensor(residual, "residual"),
            activation: activation, precision: precision, out: tensor(out, "out"))
    }
}

func linearOptions(_ pointer: UnsafePointer<swiftattn_linear_options>?) throws(Failure) -> (Activation, Precision) {
    let c = try options(pointer, smallest: MemoryLayout<swiftattn_linear_options>.size)
    return (try enumeration(c.activation, "activation", "SWIFTATTN_ACTIVATION_*"),
            try enumeration(c.precision, "precision", precisions))
}
