"""Rotary positions: tables of cosines and sines with every scaling of the frequencies, and the rotation."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _ffi
from ._ffi import RotaryOptions
from ._tensor import Array, ArrayLike, borrow, borrow_integers, choice, empty, integer, numpy_dtype, real

# Hugging Face's names for numbers, and the C struct's.
_NUMBERS = {
    "rope_theta": "base",
    **{
        name: name
        for name in (
            "factor",
            "attention_factor",
            "mscale",
            "mscale_all_dim",
            "beta_fast",
            "beta_slow",
            "low_freq_factor",
            "high_freq_factor",
        )
    },
}
_LISTS = {"short_factor": "short_factors", "long_factor": "long_factors"}
# "dim" is what partial_rotary_factor would give; finetuned is a note of llama.cpp's converter.
_OTHERS = ("rope_type", "type", "original_max_position_embeddings", "truncate", "partial_rotary_factor", "finetuned")


def rotary_tables(
    dim: int,
    length: int,
    *,
    base: float = 10000.0,
    scaling: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of t * inv[i] for positions 0 <= t < length, inv[i] = base^(-2i/dim).

    Args:
        dim: elements that are turned, even.
        length: number of positions; "dynamic" and "longrope" choose their frequencies by it.
        base: finite, above 1; a rope_theta in scaling takes its place.
        scaling: a Hugging Face rope_scaling (rope_parameters) dict. rope_type or type is "default", "linear", "dynamic",
            "ntk", "llama3", "yarn" or "longrope"; with factor, original_max_position_embeddings (dynamic, llama3, yarn,
            longrope), attention_factor, beta_fast, beta_slow, mscale, mscale_all_dim, truncate (yarn), low_freq_factor,
            high_freq_factor (llama3), short_factor, long_factor (longrope). None as a value means not given. The formulas
            are in swiftattn.h. Where Hugging Face takes a missing factor from max_position_embeddings, put
            max_position_embeddings / original_max_position_embeddings there.
        dtype: "float32", "float16", "bfloat16" or "float64".

    Returns:
        cos and sin, (length, dim/2) each; the attention factor of yarn and longrope multiplies both. Angles are taken in
        float64.

    Raises ValueError, TypeError or MemoryError with the C library's message. Source: Su et al. 2021.
    """
    dim, length = integer(dim, "dim", 0), integer(length, "length", 0)
    if dim % 2:
        raise ValueError(f"dim: expected an even number, got {dim}")
    options = _options(base, {} if scaling is None else scaling)
    shape, kind = (length, dim // 2), _table_dtype(dtype)
    cos, sin = np.empty(shape, kind), np.empty(shape, kind)
    _ffi.rotary_tables(options, borrow(cos, "cos", True), borrow(sin, "sin", True))
    return cos, sin


def _table_dtype(dtype: Any) -> np.dtype:
    try:
        return numpy_dtype(dtype if isinstance(dtype, str) else np.dtype(dtype).name)
    except TypeError as error:
        raise TypeError(f"dtype: {error}") from None


def _options(base: float, scaling: Mapping[str, Any]) -> RotaryOptions:
    if not isinstance(scaling, Mapping):
        raise TypeError(f"scaling: expected a dict, got {type(scaling).__name__}")
    options = RotaryOptions(struct_size=ctypes.sizeof(RotaryOptions), base=_given(base, "base"))
    for name, value in scaling.items():
        if value is None:
            continue
        if name in _NUMBERS:
            setattr(options, _NUMBERS[name], _given(value, f"scaling: {name}"))
        elif name in _LISTS:
            factors = np.asarray(value)
            if factors.dtype.kind in "iuf":
                factors = factors.astype(np.float64)
            setattr(options, _LISTS[name], ctypes.pointer(borrow(factors, _LISTS[name])))
        elif name not in _OTHERS:
            raise ValueError(f"scaling: {name!r} is unknown")
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    options.scaling = choice(_ffi.ROTARY_SCALINGS, kind, "scaling: rope_type")
    original = scaling.get("original_max_position_embeddings")
    if original is not None:
        options.original_length = integer(original, "scaling: original_max_position_embeddings", 1)
    options.no_truncate = int(scaling.get("truncate") is False)
    return options


def _given(value: Any, name: str) -> float:
    """A number of which 0 would mean the default in C."""
    number = real(value, name)
    if number == 0 and "mscale" not in name:  # as in Hugging Face, an mscale of 0 is none
        raise ValueError(f"{name}: expected a finite number above 0, got 0")
    return number


def rotary_embedding(
    x: ArrayLike,
    cos: ArrayLike,
    sin: ArrayLike,
    *,
    position_ids: ArrayLike | None = None,
    interleaved: bool = False,
    rotary_dim: int | None = None,
    out: Array | None = None,
) -> Array:
    """(a, b) -> (a cos - b sin, b cos + a sin) for each pair of elements of a row, by the angles of its position.

    Args:
        x: (..., H, T, D), or (T, D); float32, float16, bfloat16 or float64.
        cos, sin: (length, R/2) from rotary_tables, of x's dtype or float32. The first R elements of a row are turned,
            the rest is copied.
        position_ids: integers, 0 <= id < length, broadcast to (..., T), the same for every head. None: row t stands at t.
        interleaved: pairs are (2i, 2i + 1); else (i, i + R/2).
        rotary_dim: R, if the tables are to be held to it.
        out: an array like x to write to; x itself is allowed.

    Returns:
        An array like x.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message. Source: Su et al. 2021.
    """
    return _rotate(_ffi.rotary_embedding, x, "x", cos, sin, position_ids, interleaved, rotary_dim, out)


def rotary_embedding_backward(
    grad_out: ArrayLike,
    cos: ArrayLike,
    sin: ArrayLike,
    *,
    position_ids: ArrayLike | None = None,
    interleaved: bool = False,
    rotary_dim: int | None = None,
    out: Array | None = None,
) -> Array:
    """dx of rotary_embedding: grad_out turned by the same angles the other way round. Arguments as there."""
    function = _ffi.rotary_embedding_backward
    return _rotate(function, grad_out, "grad_out", cos, sin, position_ids, interleaved, rotary_dim, out)


def _rotate(function, x, name, cos, sin, position_ids, interleaved, rotary_dim, out) -> Array:
    source, cosines, sines = borrow(x, name), borrow(cos, "cos"), borrow(sin, "sin")
    if rotary_dim is not None:
        wanted, given = integer(rotary_dim, "rotary_dim", 0), 2 * cosines.dims[-1] if cosines.dims else 0
        if wanted != given:
            raise ValueError(f"rotary_dim: is {wanted}, cos and sin turn {given} elements")
    ids = None if position_ids is None else borrow_integers(position_ids, "position_ids")
    target = empty(source.dims, source) if out is None else borrow(out, "out", True)
    function(source, cosines, sines, ids, int(bool(interleaved)), target)
    return target.owner if out is None else out
