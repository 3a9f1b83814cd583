/// Chapter "Attention backward" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_scaled_dot_product_attention_backward")
public func swiftattn_scaled_dot_product_attention_backward(
    _ grad_out: TensorPointer?, _ query: TensorPointer?, _ key: TensorPointer?, _ value: TensorPointer?,
    _ out: TensorPointer?, _ lse: TensorPointer?, _ options: UnsafePointer<swiftattn_attention_options>?,
    _ dq: TensorPointer?, _ dk: TensorPointer?, _ dv: TensorPointer?, _ dbias: TensorPointer?, _ dsinks: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try scaledDotProductAttentionBackward(
            outGradient: tensor(grad_out, "grad_out"), query: tensor(query, "query"), key: tensor(key, "key"),
            value: tensor(value, "value"), out: tensor(out, "out"), lse: tensor(lse, "lse"),
            options: attentionOptions(options), dq: optionalTensor(dq, "dq"), dk: optionalTensor(dk, "dk"),
            dv: optionalTensor(dv, "dv"), dBias: optionalTensor(dbias, "dbias"), dSinks: optionalTensor(dsinks, "dsinks"))
    }
}

@_cdecl("swiftattn_attention_varlen_backward")
public func swiftattn_attention_varlen_backward(
    _ grad_out: TensorPointer?, _ query: TensorPointer?, _ key: TensorPointer?, _ value: TensorPointer?,
    _ out: TensorPointer?, _ lse: TensorPointer?, _ cu_seqlens_q: TensorPointer?, _ cu_seqlens_k: TensorPointer?,
    _ options: UnsafePointer<swiftattn_attention_options>?,
    _ dq: TensorPointer?, _ dk: TensorPointer?, _ dv: TensorPointer?, _ dsinks: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try attentionVarlenBackward(
            outGradient: tensor(grad_out, "grad_out"), query: tensor(query, "query"), key: tensor(key, "key"),
            value: tensor(value, "value"), out: tensor(out, "out"), lse: tensor(lse, "lse"),
            cumulativeQueries: tensor(cu_seqlens_q, "cu_seqlens_q"), cumulativeKeys: tensor(cu_seqlens_k, "cu_seqlens_k"),
            options: attentionOptions(options), dq: optionalTensor(dq, "dq"), dk: optionalTensor(dk, "dk"),
            dv: optionalTensor(dv, "dv"), dSinks: optionalTensor(dsinks, "dsinks"))
    }
}
