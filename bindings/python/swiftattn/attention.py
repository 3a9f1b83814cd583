"""Attention: over dense batches, over packed sequences of different lengths, and the merge of partial results."""

from __future__ import annotations

import ctypes
from typing import Any, Iterable, Sequence

from . import _ffi
from ._ffi import AttentionOptions, Tensor
from ._tensor import (
    Array,
    ArrayLike,
    borrow,
    borrow_floats,
    borrow_integers,
    borrow_mask,
    broadcast,
    choice,
    empty,
    integer,
    real,
)

_DEFAULTS = AttentionOptions(struct_size=ctypes.sizeof(AttentionOptions))

_CAUSAL = {
    False: _ffi.CAUSAL_NONE,
    True: _ffi.CAUSAL_UPPER_LEFT,
    "upper_left": _ffi.CAUSAL_UPPER_LEFT,
    "lower_right": _ffi.CAUSAL_LOWER_RIGHT,
}
_CAUSAL_AT_END = {**_CAUSAL, True: _ffi.CAUSAL_LOWER_RIGHT}


def _options(
    query: Tensor,
    causal: int,
    dropout_p: Any,
    scale: Any,
    query_offset: Any,
    window: Any,
    softcap: Any,
    alibi_slopes: Any,
    sinks: Any,
    seed: Any,
    precision: Any,
) -> AttentionOptions:
    """The options that all kinds of attention share."""
    options = AttentionOptions.from_buffer_copy(_DEFAULTS)
    options.causal = causal
    if scale is not None:
        options.flags |= _ffi.HAS_SCALE
        options.scale = real(scale, "scale")
    if softcap:
        options.softcap = real(softcap, "softcap")
    if dropout_p:
        options.dropout_p = real(dropout_p, "dropout_p")
    if seed:
        options.seed = integer(seed, "seed", 0, 2**64 - 1)
    if precision != "highest":
        options.precision = choice(_ffi.PRECISIONS, precision, "precision")
    if query_offset is not None:
        if getattr(query_offset, "ndim", 0) == 0 and not isinstance(query_offset, (list, tuple)):
            options.flags |= _ffi.HAS_QUERY_OFFSET
            options.query_offset = integer(query_offset, "query_offset")
        else:
            options.query_offsets = ctypes.pointer(borrow_integers(query_offset, "query_offset"))
    if window is not None:
        try:
            left, right = window
        except (TypeError, ValueError):
            raise TypeError(f"window: expected None or a pair (left, right), got {window!r}") from None
        if left is not None:
            options.flags |= _ffi.HAS_WINDOW_LEFT
            options.window_left = integer(left, "window")
        if right is not None:
            options.flags |= _ffi.HAS_WINDOW_RIGHT
            options.window_right = integer(right, "window")
    if alibi_slopes is not None:
        options.alibi_slopes = ctypes.pointer(borrow_floats(alibi_slopes, "alibi_slopes", query))
    if sinks is not None:
        options.sinks = ctypes.pointer(borrow_floats(sinks, "sinks", query))
    return options


def _set_padding(
    options: AttentionOptions, query: Tensor, attn_mask: Any, q_lengths: Any, kv_lengths: Any = None
) -> Tensor | None:
    """The options that only padded batches have; returns the mask as it is borrowed."""
    mask = None
    if attn_mask is not None:
        mask = borrow_mask(attn_mask, "attn_mask", query)
        options.attn_mask = ctypes.pointer(mask)
    if q_lengths is not None:
        options.q_lengths = ctypes.pointer(borrow_integers(q_lengths, "q_lengths"))
    if kv_lengths is not None:
        options.kv_lengths = ctypes.pointer(borrow_integers(kv_lengths, "kv_lengths"))
    return mask


def _results(
    query: Tensor,
    options: AttentionOptions,
    shape: Sequence[int],
    width: Sequence[int],
    columns: Sequence[int],
    return_lse: bool,
    return_weights: bool | str,
    out: Any,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """out (*shape, *width), lse (*shape,) and weights (*shape, *columns), where they are asked for."""
    result = empty([*shape, *width], query) if out is None else borrow(out, "out", True)
    lse = empty(shape, query, "float64" if query.dtype.bits == 64 else "float32") if return_lse else None
    weights = None
    if return_weights:
        options.weights_stage = choice(_ffi.WEIGHTS_STAGES, return_weights, "return_weights")
        weights = empty([*shape, *columns], query)
    return result, lse, weights


def _score_shape(query: tuple, key: tuple, value: tuple) -> list[int]:
    """(..., Hq, Tq) of the result; the leading dims of query, key and value are broadcast."""
    return [*broadcast(query[:-3], key[:-3], value[:-3]), *query[-3:-1]]


def scaled_dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
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
    return_lse: bool = False,
    return_weights: bool | str = False,
    out: Array | None = None,
) -> Array | tuple[Array, ...]:
    """Scaled dot-product attention: softmax(scale * query . key^T + masks) . value, fused.

    For query head h, key/value head h // (Hq / Hkv), query i at position p = i + query_offset, key j::

        s[i,j] = scale * query[i] . key[j]
        s      = softcap * tanh(s / softcap)        if softcap > 0
        s     += attn_mask[b,h,i,j]                 if it is a float mask
        s     += -alibi_slopes[h] * |p - j|         if given
        s      = -inf where key j is not visible
        m      = max(max_j s, sinks[h]);  l = sum_j exp(s - m) + exp(sinks[h] - m)     sink terms only if given
        P      = exp(s - m) / l
        out    = dropout(P) . value;  lse = m + ln(l)

    Args:
        query: (..., Hq, Tq, D). float32, float16, bfloat16 or float64, as key and value; rank 2 to 8.
        key: (..., Hkv, Tk, D); Hkv divides Hq. Leading dims are broadcast between the three.
        value: (..., Hkv, Tk, Dv).
        attn_mask: broadcast to (B, Hq, Tq, Tk). bool: True means visible. Floats of query's dtype or float32 are
            added to the scores; -inf hides a key, and so does NaN.
        dropout_p: probability of dropping a weight, 0 <= dropout_p < 1; drawn by Philox4x32-10 from `seed`.
        is_causal: True or "upper_left" puts query 0 at key 0 (PyTorch), "lower_right" the last query at the last key
            (FlashAttention, KV caches). A key is visible up to the query's position.
        scale: default 1/sqrt(D); may be 0 or negative.
        enable_gqa: accepted for PyTorch's sake; grouped heads are recognised from the shapes.
        query_offset: position of query 0, an int or (B,) integers; may be negative. Overrides is_causal's alignment.
        window: (left, right) keys around the query's position that are visible besides its own; None or -1: all.
        softcap: 0 means none.
        alibi_slopes: (Hq,), see swiftattn.alibi_slopes.
        sinks: (Hq,), a logit per head that takes part in the softmax without a value.
        q_lengths: (B,), queries at or past it see no key.
        kv_lengths: (B,), keys at or past it are not visible.
        precision: of float32 products: "highest", "high" (about 16 significand bits) or "medium" (bfloat16).
        return_lse: also return lse (..., Hq, Tq), float32 (float64 for float64).
        return_weights: also return (..., Hq, Tq, Tk) in query's dtype: True the weights P, "scaled" the scores before
            softcap, "capped" after it, "biased" after attn_mask and ALiBi with -inf where a key is not visible.
        out: an array to write the result to; it may not overlap an input.

    Returns:
        out (..., Hq, Tq, Dv), or a tuple with lse and the weights, in this order.

    A row that sees no key: out 0, weights 0, lse -inf (with a sink: the sink). A key that is not visible never
    matters, NaN and Inf included. NaN in a visible key, value or query makes that row NaN and no other. The bits of a
    row depend on its own inputs and the options only.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    Source: Vaswani et al. 2017; Dao 2023 (FlashAttention-2).
    """
    q = borrow(query, "query")
    k = borrow(key, "key")
    v = borrow(value, "value")
    options = _options(
        *(q, choice(_CAUSAL, is_causal, "is_causal")),
        *(dropout_p, scale, query_offset, window, softcap, alibi_slopes, sinks, seed, precision),
    )
    _set_padding(options, q, attn_mask, q_lengths, kv_lengths)
    shape = _score_shape(q.dims, k.dims, v.dims)
    results = _results(q, options, shape, v.dims[-1:], k.dims[-2:-1], return_lse, return_weights, out)
    _ffi.scaled_dot_product_attention(q, k, v, options, *results)
    return _returned(results[0] if out is None else out, *results[1:])


def attention_varlen(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
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
    return_lse: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Attention over B sequences of different lengths, packed without padding.

    Args:
        query: (total_q, Hq, D).
        key: (total_k, Hkv, D); Hkv divides Hq.
        value: (total_k, Hkv, Dv).
        cu_seqlens_q: (B + 1,) integers: entry b begins at row cu_seqlens_q[b] and ends before cu_seqlens_q[b + 1]. The
            first is 0, they never decrease, the last is total_q.
        cu_seqlens_k: the same for key and value.
        is_causal: True means "lower_right" here, as FlashAttention: query 0 of an entry stands at
            kv_length - q_length, also for window and ALiBi. "upper_left" or query_offset say otherwise.
        return_lse: also return lse (Hq, total_q).

    All else, formula and errors, as in scaled_dot_product_attention, within each entry.

    Returns:
        out (total_q, Hq, Dv), or (out, lse).
    """
    q = borrow(query, "query")
    k = borrow(key, "key")
    v = borrow(value, "value")
    options = _options(
        *(q, choice(_CAUSAL_AT_END, is_causal, "is_causal")),
        *(dropout_p, scale, query_offset, window, softcap, alibi_slopes, sinks, seed, precision),
    )
    starts_q = borrow_integers(cu_seqlens_q, "cu_seqlens_q")
    starts_k = borrow_integers(cu_seqlens_k, "cu_seqlens_k")
    result = empty([*q.dims[:-1], *v.dims[-1:]], q) if out is None else borrow(out, "out", True)
    lse = None
    if return_lse:
        lse = empty([*q.dims[-2:-1], *q.dims[:1]], q, "float64" if q.dtype.bits == 64 else "float32")
    _ffi.attention_varlen(q, k, v, starts_q, starts_k, options, result, lse)
    return _returned(result if out is None else out, lse, None)


def attention_paged(
    query: ArrayLike,
    key_cache: ArrayLike,
    value_cache: ArrayLike,
    block_table: ArrayLike,
    kv_lengths: ArrayLike,
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
    seed: int = 0,
    precision: str = "highest",
    return_lse: bool = False,
    return_weights: bool | str = False,
    out: Array | None = None,
) -> Array | tuple[Array, ...]:
    """Attention over keys and values in blocks: token j of sequence b is row j % block_size of block
    block_table[b, j // block_size].

    Args:
        query: (B, Hq, Tq, D).
        key_cache: (num_blocks, block_size, Hkv, D); Hkv divides Hq. Of query's dtype; or, unless one of the two is
            float64, of another one, which is widened to float32 as it is read.
        value_cache: (num_blocks, block_size, Hkv, Dv), of key_cache's dtype.
        block_table: (B, max_blocks) int32 or int64. Of row b the first ceil(kv_lengths[b] / block_size) entries are
            read; the others may hold anything. Sequences may share blocks.
        kv_lengths: (B,) integers, the tokens of each sequence.
        attn_mask: broadcast to (B, Hq, Tq, max_blocks * block_size).
        is_causal: True means "lower_right" here: query 0 of a sequence stands at kv_length - q_length, also for window
            and ALiBi. "upper_left" or query_offset say otherwise.
        return_weights: also return (B, Hq, Tq, max_blocks * block_size).

    All else, formula and errors, as in scaled_dot_product_attention. The bits are those of the same keys in one piece.

    Returns:
        out (B, Hq, Tq, Dv), or a tuple with lse (B, Hq, Tq) and the weights, in this order.

    Source: Kwon et al. 2023 (PagedAttention).
    """
    q = borrow(query, "query")
    k = borrow(key_cache, "key_cache")
    v = borrow(value_cache, "value_cache")
    table = borrow_integers(block_table, "block_table")
    lengths = borrow_integers(kv_lengths, "kv_lengths")
    options = _options(
        *(q, choice(_CAUSAL_AT_END, is_causal, "is_causal")),
        *(dropout_p, scale, query_offset, window, softcap, alibi_slopes, sinks, seed, precision),
    )
    columns = table.dims[1] * k.dims[1] if len(table.dims) == 2 and len(k.dims) == 4 else 0
    _set_padding(options, q, attn_mask, q_lengths)
    results = _results(q, options, q.dims[:-1], v.dims[-1:], [columns], return_lse, return_weights, out)
    _ffi.attention_paged(q, k, v, table, lengths, options, *results)
    return _returned(results[0] if out is None else out, *results[1:])


def merge_attention_states(outs: Iterable[ArrayLike], lses: Iterable[ArrayLike]) -> tuple[Array, Array]:
    """Attention over the union of disjoint key sets, from the results over each.

    ::

        lse = ln(sum_n exp(lses[n]));  out = sum_n exp(lses[n] - lse) * outs[n]

    Args:
        outs: N >= 1 arrays (..., T, Dv) of one shape and floating dtype.
        lses: N arrays (..., T), float32 (float64 with float64 outs).

    Returns:
        (out, lse) with the shapes and dtypes of a part. A part with lse -inf has no weight, whatever its out holds;
        with no part left out is 0 and lse -inf. A sink belongs to one part only.
    """
    parts = [borrow(part, f"outs[{n}]") for n, part in enumerate(_sequence(outs, "outs"))]
    logs = [borrow(log, f"lses[{n}]") for n, log in enumerate(_sequence(lses, "lses"))]
    if not parts:
        raise ValueError("outs: expected at least one array, got none")
    if len(parts) != len(logs):
        raise ValueError(f"lses: {len(logs)} given, outs has {len(parts)}")
    out, lse = empty(parts[0].dims, parts[0]), empty(logs[0].dims, logs[0])
    array = Tensor * len(parts)
    _ffi.merge_attention_states(array(*parts), array(*logs), len(parts), out, lse)
    return out.owner, lse.owner


def _sequence(arrays: Iterable[ArrayLike], name: str) -> Sequence[ArrayLike]:
    try:
        return list(arrays)
    except TypeError:
        raise TypeError(f"{name}: expected a sequence of arrays, got {type(arrays).__name__}") from None


def _returned(out: Any, lse: Tensor | None, weights: Tensor | None) -> Array | tuple[Array, ...]:
    out = out.owner if isinstance(out, Tensor) else out
    if lse is None and weights is None:
        return out
    return (out, *(extra.owner for extra in (lse, weights) if extra is not None))
