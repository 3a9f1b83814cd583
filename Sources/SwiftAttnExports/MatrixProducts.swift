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
        let c = try SwiftAttnExports.options(options, smallest: MemoryLayout<swiftattn_linear_options>.size)
        try linear(
            tensor(x, "x"), weight: tensor(weight, "weight"), bias: optionalTensor(bias, "bias"),
            residual: optionalTensor(residual, "residual"),
            activation: enumeration(c.activation, "activation", "SWIFTATTN_ACTIVATION_*"),
            precision: enumeration(c.precision, "precision", precisions), out: tensor(out, "out"))
    }
}
