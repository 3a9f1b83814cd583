/// Chapter "Gradients" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

private let forms: StaticString = "SWIFTATTN_GELU_NONE or TANH"

@_cdecl("swiftattn_linear_backward")
public func swiftattn_linear_backward(
    _ grad_out: TensorPointer?, _ x: TensorPointer?, _ weight: TensorPointer?, _ bias: TensorPointer?,
    _ pre_activation: TensorPointer?, _ options: UnsafePointer<swiftattn_linear_options>?,
    _ dx: TensorPointer?, _ dweight: TensorPointer?, _ dbias: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        let (activation, precision) = try linearOptions(options)
        try linearBackward(
            gradOut: tensor(grad_out, "grad_out"), tensor(x, "x"), weight: tensor(weight, "weight"),
            bias: optionalTensor(bias, "bias"), preActivation: optionalTensor(pre_activation, "pre_activation"),
            activation: activation, precision: precision, dx: optionalTensor(dx, "dx"),
            dweight: optionalTensor(dweight, "dweight"), dbias: optionalTensor(dbias, "dbias"))
    }
}

@_cdecl("swiftattn_softmax_backward")
public func swiftattn_softmax_backward(
    _ grad_out: TensorPointer?, _ y: TensorPointer?, _ axis: Int64, _ dx: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try softmaxBackward(gradOut: tensor(grad_out, "grad_out"), tensor(y, "y"), axis: Int(axis), dx: tensor(dx, "dx"))
    }
}

@_cdecl("swiftattn_layer_norm_backward")
public func swiftattn_layer_norm_backward(
    _ grad_out: TensorPointer?, _ x: TensorPointer?, _ weight: TensorPointer?, _ eps: Double,
    _ dx: TensorPointer?, _ dweight: TensorPointer?, _ dbias: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try layerNormBackward(gradOut: tensor(grad_out, "grad_out"), tensor(x, "x"), weight: optionalTensor(weight, "weight"),
                              eps: eps, dx: optionalTensor(dx, "dx"), dweight: optionalTensor(dweight, "dweight"),
                              dbias: optionalTensor(dbias, "dbias"))
    }
}

@_cdecl("swiftattn_rms_norm_backward")
public func swiftattn_rms_norm_backward(
    _ grad_out: TensorPointer?, _ x: TensorPointer?, _ weight: TensorPointer?, _ eps: Double,
    _ dx: TensorPointer?, _ dweight: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try rmsNormBackward(gradOut: tensor(grad_out, "grad_out"), tensor(x, "x"), weight: optionalTensor(weight, "weight"),
                            eps: eps, dx: optionalTensor(dx, "dx"), dweight: optionalTensor(dweight, "dweight"))
    }
}

@_cdecl("swiftattn_relu_backward")
public func swiftattn_relu_backward(_ grad_out: TensorPointer?, _ x: TensorPointer?, _ dx: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try reluBackward(gradOut: tensor(grad_out, "grad_out"), tensor(x, "x"), dx: tensor(dx, "dx"))
    }
}

@_cdecl("swiftattn_gelu_backward")
public func swiftattn_gelu_backward(
    _ grad_out: TensorPointer?, _ x: TensorPointer?, _ approximate: Int32, _ dx: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try geluBackward(gradOut: tensor(grad_out, "grad_out"), tensor(x, "x"),
                         enumeration(approximate, "approximate", forms), dx: tensor(dx, "dx"))
    }
}

@_cdecl("swiftattn_silu_backward")
public func swiftattn_silu_backward(_ grad_out: TensorPointer?, _ x: TensorPointer?, _ dx: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try siluBackward(gradOut: tensor(grad_out, "grad_out"), tensor(x, "x"), dx: tensor(dx, "dx"))
    }
}

@_cdecl("swiftattn_swiglu_backward")
public func swiftattn_swiglu_backward(
    _ grad_out: TensorPointer?, _ gate: TensorPointer?, _ up: TensorPointer?, _ dgate: TensorPointer?, _ dup: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try swigluBackward(gradOut: tensor(grad_out, "grad_out"), gate: tensor(gate, "gate"), up: tensor(up, "up"),
                           dgate: optionalTensor(dgate, "dgate"), dup: optionalTensor(dup, "dup"))
    }
}

@_cdecl("swiftattn_geglu_backward")
public func swiftattn_geglu_backward(
    _ grad_out: TensorPointer?, _ gate: TensorPointer?, _ up: TensorPointer?, _ approximate: Int32,
    _ dgate: TensorPointer?, _ dup: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try gegluBackward(gradOut: tensor(grad_out, "grad_out"), gate: tensor(gate, "gate"), up: tensor(up, "up"),
                          enumeration(approximate, "approximate", forms), dgate: optionalTensor(dgate, "dgate"),
                          dup: optionalTensor(dup, "dup"))
    }
}

@_cdecl("swiftattn_embedding_backward")
public func swiftattn_embedding_backward(
    _ grad_out: TensorPointer?, _ ids: TensorPointer?, _ dtable: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try embeddingBackward(gradOut: tensor(grad_out, "grad_out"), ids: tensor(ids, "ids"), dtable: tensor(dtable, "dtable"))
    }
}
