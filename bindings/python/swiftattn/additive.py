"""Additive attention (Bahdanau), and its gradients."""

from __future__ import annotations

from . import _ffi
from ._tensor import Array, ArrayLike, Tensor, borrow, borrow_mask, broadcast, empty


def additive_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    w_query: ArrayLike,
    w_key: ArrayLike,
    v_score: ArrayLike,
    attn_mask: ArrayLike | None = None,
    *,
    return_weights: bool = False,
) -> Array | tuple[Array, Array]:
    """softmax(score) . value with score[i, j] = v_score . tanh(w_query . query[i] + w_key . key[j]) (+ attn_mask[i, j]).

    Args:
        query: (..., Tq, Dq); key: (..., Tk, Dk); value: (..., Tk, Dv). Leading dims broadcast.
        w_query: (H, Dq); w_key: (H, Dk); v_score: (H,). All of one dtype: float32, float16, bfloat16 or float64.
        attn_mask: bool (True = visible) or float of that dtype or float32 (added), broadcast to (..., Tq, Tk). A key at
            -inf or NaN is hidden: what it and its value hold does not matter.
        return_weights: also returns the weights (..., Tq, Tk).

    Returns:
        (..., Tq, Dv), and the weights in float32 (float64). A row that sees no key is 0, and so are its weights. No
        (Tq, Tk, H) array is stored.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message. Source: Bahdanau et al. 2015.
    """
    tensors = _inputs(query, key, value, w_query, w_key, v_score)
    q, k, v = tensors[:3]
    leading = broadcast(q.dims[:-2], k.dims[:-2], v.dims[:-2])
    out = empty([*leading, *q.dims[-2:-1], *v.dims[-1:]], q)
    weights = None
    if return_weights:
        weights = empty([*leading, *q.dims[-2:-1], *k.dims[-2:-1]], q, "float64" if q.dtype.bits == 64 else "float32")
    _ffi.additive_attention(*tensors, _mask(attn_mask, q), out, weights)
    return (out.owner, weights.owner) if return_weights else out.owner


def additive_attention_backward(
    grad_out: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    w_query: ArrayLike,
    w_key: ArrayLike,
    v_score: ArrayLike,
    attn_mask: ArrayLike | None = None,
) -> tuple[Array, ...]:
    """Gradients of additive_attention: dquery, dkey, dvalue, dw_query, dw_key, dv_score.

    Args:
        grad_out: (..., Tq, Dv), of query's dtype. The other arguments are those of additive_attention; query, key and
            value have the same leading dims.

    Returns:
        Six arrays like their inputs. Hidden keys get no gradient, whatever they hold. The order of sums depends on the
        shapes alone.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """
    gradient = borrow(grad_out, "grad_out")
    tensors = _inputs(query, key, value, w_query, w_key, v_score)
    outputs = [empty(tensor.dims, tensor) for tensor in tensors]
    _ffi.additive_attention_backward(gradient, *tensors, _mask(attn_mask, tensors[0]), *outputs)
    return tuple(output.owner for output in outputs)


def _inputs(*arrays: ArrayLike) -> list[Tensor]:
    return [
        borrow(array, name) for array, name in zip(arrays, ("query", "key", "value", "w_query", "w_key", "v_score"))
    ]


def _mask(attn_mask: ArrayLike | None, query: Tensor) -> Tensor | None:
    return None if attn_mask is None else borrow_mask(attn_mask, "attn_mask", query)
