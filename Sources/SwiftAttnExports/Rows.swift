/// Chapter "Rows: softmax and norms" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_softmax")
public func swiftattn_softmax(_ x: TensorPointer?, _ axis: Int64, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in try softmax(tensor(x, "x"), axis: Int(axis), out: tensor(out, "out")) }
}

@_cdecl("swiftattn_layer_norm")
public func swiftattn_layer_norm(
    _ x: TensorPointer?, _ weight: TensorPointer?, _ bias: TensorPointer?, _ eps: Double, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try layerNorm(tensor(x, "x"), weight: optionalTensor(weight, "weight"), bias: optionalTensor(bias, "bias"), eps: eps,
                      out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_rms_norm")
public func swiftattn_rms_norm(_ x: TensorPointer?, _ weight: TensorPointer?, _ eps: Double, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try rmsNorm(tensor(x, "x"), weight: optionalTensor(weight, "weight"), eps: eps, out: tensor(out, "out"))
    }
}
