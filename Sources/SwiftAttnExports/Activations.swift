/// Chapter "Activations" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

private let forms: StaticString = "SWIFTATTN_GELU_NONE or TANH"

@_cdecl("swiftattn_relu")
public func swiftattn_relu(_ x: TensorPointer?, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in try relu(tensor(x, "x"), out: tensor(out, "out")) }
}

@_cdecl("swiftattn_gelu")
public func swiftattn_gelu(_ x: TensorPointer?, _ approximate: Int32, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in
        try gelu(tensor(x, "x"), enumeration(approximate, "approximate", forms), out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_silu")
public func swiftattn_silu(_ x: TensorPointer?, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in try silu(tensor(x, "x"), out: tensor(out, "out")) }
}

@_cdecl("swiftattn_swiglu")
public func swiftattn_swiglu(_ gate: TensorPointer?, _ up: TensorPointer?, _ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in try swiglu(gate: tensor(gate, "gate"), up: tensor(up, "up"), out: tensor(out, "out")) }
}

@_cdecl("swiftattn_geglu")
public func swiftattn_geglu(
    _ gate: TensorPointer?, _ up: TensorPointer?, _ approximate: Int32, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try geglu(gate: tensor(gate, "gate"), up: tensor(up, "up"), enumeration(approximate, "approximate", forms),
                  out: tensor(out, "out"))
    }
}
