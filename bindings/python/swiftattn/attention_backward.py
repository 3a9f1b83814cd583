"""The gradients of attention, over dense batches and over packed sequences."""

from __future__ import annotations

from . import _ffi
from ._ffi import Tensor
from ._tensor import Array, ArrayLike, borrow, borrow_floats, borrow_integers, choice, empty
from .attention import _CAUSAL, _CAUSAL_AT_END, _options, _set_padding


def scaled_dot_product_attention_backward(
    grad_out: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    out: ArrayLike,
    lse: ArrayLike,
    attn_mask: ArrayLike | None = None,
    dropout_p: float = 0.0,
    is_causal: bool | str = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    query_offset: int | ArrayLike | None = None,
    window: tuple[int | None, int | None] | None = None,
    softcap: float = 0.0,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    q_lengths: ArrayLike | None = None,
    kv_lengths: ArrayLike | None = None,
    seed: int = 0,
    precision: str = "highest",
    bias_grad: bool = False,
    sink_grad: bool = False,
) -> tuple[Array, ...]:
    """Gradients of scaled_dot_product_attention with respect to query, key and value.

    With P the weights and z what dropout multiplied them with (1 without)::

        delta[i] = grad_out[i] . out[i]
        ds[i,j]  = P[i,j] * (z[i,j] * grad_out[i] . v[j] - delta[i])        0 where key j is not visible
        dt[i,j]  = scale * ds[i,j] * (1 - tanh(scale * q[i] . k[j] / softcap)^2)     the last factor with a softcap only
        dq[i]    = sum_j dt[i,j] * k[j]
        dk[j]    = sum_i dt[i,j] * q[i]                 summed over the query heads of the group, too
        dv[j]    = sum_i z[i,j] * P[i,j] * grad_out[i]

    Args:
        grad_out: (..., Hq, Tq, Dv), the loss's gradient with respect to out; in query's dtype.
        query: (..., Hq, Tq, D); key and value, and all options, as in the forward call.
        out: what the forward returned.
        lse: (..., Hq, Tq), what it returned with return_lse=True.
        bias_grad: also return the gradient of attn_mask, which must be of floats: ds, summed over the dims that the
            mask is broadcast over.
        sink_grad: also return the gradient of sinks, which must be given.

    Returns:
        (dq, dk, dv[, dbias][, dsinks]), each with the shape and dtype of its input. The gradient of an input that is
        broadcast over leading dims is the sum over them. Of attn_mask and sinks the dtype is the one they are used in:
        sinks that were converted to float32 get float32 gradients.

    A row that sees no key gives and gets zero gradients. A key that is not visible never matters, NaN and Inf included,
    and its gradients are 0. Bits depend neither on threads nor on the batch.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    Source: Dao 2023 (FlashAttention-2).
    """
    q, k, v = borrow(query, "query"), borrow(key, "key"), borrow(value, "value")
    options = _options(
        *(q, choice(_CAUSAL, is_causal, "is_causal")),
        *(dropout_p, scale, query_offset, window, softcap, alibi_slopes, sinks, seed, precision),
    )
    mask = _set_padding(options, q, attn_mask, q_lengths, kv_lengths)
    if bias_grad and mask is None:
        raise ValueError("bias_grad: expected a float attn_mask, got None")
    dbias = empty(mask.dims, mask) if bias_grad else None
    given = [borrow(array, name) for array, name in ((grad_out, "grad_out"), (out, "out"), (lse, "lse"))]
    gradients = [empty(tensor.dims, tensor) for tensor in (q, k, v)]
    dsinks = _sink_gradient(sinks, q) if sink_grad else None
    _ffi.scaled_dot_product_attention_backward(given[0], q, k, v, *given[1:], options, *gradients, dbias, dsinks)
    return tuple(tensor.owner for tensor in (*gradients, dbias, dsinks) if tensor is not None)


def attention_varlen_backward(
    grad_out: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    out: ArrayLike,
    lse: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    dropout_p: float = 0.0,
    is_causal: bool | str = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    query_offset: int | ArrayLike | None = None,
    window: tuple[int | None, int | None] | None = None,
    softcap: float = 0.0,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    seed: int = 0,
    precision: str = "highest",
    sink_grad: bool = False,
) -> tuple[Array, ...]:
    """Gradients of attention_varlen: formula, options and edge rows as in scaled_dot_product_attention_backward.

    Args:
        grad_out: (total_q, Hq, Dv), the loss's gradient with respect to out.
        query: (total_q, Hq, D); key (total_k, Hkv, D), value (total_k, Hkv, Dv), offsets and options as in the forward.
        out: what the forward returned.
        lse: (Hq, total_q), what it returned with return_lse=True.
        sink_grad: also return the gradient of sinks, which must be given.

    Returns:
        (dq, dk, dv[, dsinks]).
    """
    q, k, v = borrow(query, "query"), borrow(key, "key"), borrow(value, "value")
    options = _options(
        *(q, choice(_CAUSAL_AT_END, is_causal, "is_causal")),
        *(dropout_p, scale, query_offset, window, softcap, alibi_slopes, sinks, seed, precision),
    )
    starts = [borrow_integers(cu_seqlens_q, "cu_seqlens_q"), borrow_integers(cu_seqlens_k, "cu_seqlens_k")]
    given = [borrow(array, name) for array, name in ((grad_out, "grad_out"), (out, "out"), (lse, "lse"))]
    gradients = [empty(tensor.dims, tensor) for tensor in (q, k, v)]
    dsinks = _sink_gradient(sinks, q) if sink_grad else None
    _ffi.attention_varlen_backward(given[0], q, k, v, *given[1:], *starts, options, *gradients, dsinks)
    return tuple(tensor.owner for tensor in (*gradients, dsinks) if tensor is not None)


def _sink_gradient(sinks: ArrayLike | None, query: Tensor) -> Tensor:
    if sinks is None:
        raise ValueError("sink_grad: expected sinks, got None")
    tensor = borrow_floats(sinks, "sinks", query)
    return empty(tensor.dims, tensor)
