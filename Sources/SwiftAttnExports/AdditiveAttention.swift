/// Chapter "Additive attention" of swiftattn.h.

import CSwiftAttn
import SwiftAttn

@_cdecl("swiftattn_additive_attention")
public func swiftattn_additive_attention(
    _ query: TensorPointer?, _ key: TensorPointer?, _ value: TensorPointer?,
    _ w_query: TensorPointer?, _ w_key: TensorPointer?, _ v_score: TensorPointer?,
    _ attn_mask: TensorPointer?, _ out: TensorPointer?, _ weights: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try additiveAttention(inputs(query, key, value, w_query, w_key, v_score, attn_mask), out: tensor(out, "out"),
                              weights: optionalTensor(weights, "weights"))
    }
}

@_cdecl("swiftattn_additive_attention_backward")
public func swiftattn_additive_attention_backward(
    _ grad_out: TensorPointer?, _ query: TensorPointer?, _ key: TensorPointer?,
    _ value: TensorPointer?, _ w_query: TensorPointer?, _ w_key: TensorPointer?,
    _ v_score: TensorPointer?, _ attn_mask: TensorPointer?, _ dquery: TensorPointer?,
    _ dkey: TensorPointer?, _ dvalue: TensorPointer?, _ dw_query: TensorPointer?,
    _ dw_key: TensorPointer?, _ dv_score: TensorPointer?
) -> Int32 {
    status { () throws(Failure) in
        try additiveAttentionBackward(
            gradOut: tensor(grad_out, "grad_out"), inputs(query, key, value, w_query, w_key, v_score, attn_mask),
            AdditiveGradients(query: optionalTensor(dquery, "dquery"), key: optionalTensor(dkey, "dkey"),
                              value: optionalTensor(dvalue, "dvalue"), queryWeight: optionalTensor(dw_query, "dw_query"),
                              keyWeight: optionalTensor(dw_key, "dw_key"), scoreWeight: optionalTensor(dv_score, "dv_score")))
    }
}

private func inputs(
    _ query: TensorPointer?, _ key: TensorPointer?, _ value: TensorPointer?, _ w_query: TensorPointer?,
    _ w_key: TensorPointer?, _ v_score: TensorPointer?, _ attn_mask: TensorPointer?
) throws(Failure) -> AdditiveInputs {
    AdditiveInputs(query: try tensor(query, "query"), key: try tensor(key, "key"), value: try tensor(value, "value"),
                   queryWeight: try tensor(w_query, "w_query"), keyWeight: try tensor(w_key, "w_key"),
                   scoreWeight: try tensor(v_score, "v_score"), mask: try optionalTensor(attn_mask, "attn_mask"))
}
