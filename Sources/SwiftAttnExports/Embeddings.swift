/// Chapter "Embeddings" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_embedding")
public func swiftattn_embedding(
    _ ids: TensorPointer?, _ table: TensorPointer?, _ residual: TensorPointer?, _ out: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try embedding(tensor(ids, "ids"), table: tensor(table, "table"), residual: optionalTensor(residual, "residual"),
                      out: tensor(out, "out"))
    }
}

@_cdecl("swiftattn_sinusoidal_positions")
public func swiftattn_sinusoidal_positions(_ out: TensorPointer?) -> Int32 {
    status { () throws(Failure) in try sinusoidalPositions(out: tensor(out, "out")) }
}
