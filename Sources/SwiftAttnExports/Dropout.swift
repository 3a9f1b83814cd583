/// Chapter "Dropout" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_dropout")
public func swiftattn_dropout(
    _ x: TensorPointer?, _ p: Double, _ seed: UInt64, _ draw: UInt64, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in try dropout(tensor(x, "x"), p: p, seed: seed, draw: draw, out: tensor(out, "out")) }
}

@_cdecl("swiftattn_dropout_backward")
public func swiftattn_dropout_backward(
    _ grad_out: TensorPointer?, _ p: Double, _ seed: UInt64, _ draw: UInt64, _ dx: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try dropoutBackward(gradOut: tensor(grad_out, "grad_out"), p: p, seed: seed, draw: draw, dx: tensor(dx, "dx"))
    }
}
