"""Embeddings: table look-up, sinusoidal positions, ALiBi slopes."""

from __future__ import annotations

import numpy as np

from . import _ffi
from ._tensor import Array, ArrayLike, borrow, borrow_integers, borrow_optional, empty, integer


def embedding(ids: ArrayLike, table: ArrayLike, *, residual: ArrayLike | None = None) -> Array:
    """table[ids[...], :] (+ residual).

    Args:
        ids: (...) integers, each 0 <= id < V.
        table: (V, N), float32, float16, bfloat16 or float64.
        residual: of table's dtype, broadcast to (..., N).

    Returns:
        (..., N), an array like table.

    Raises ValueError (also for an id out of range), TypeError (dtypes) or MemoryError with the C library's message.
    """
    index, rows = borrow_integers(ids, "ids"), borrow(table, "table")
    out = empty([*index.dims, *rows.dims[-1:]], rows)
    _ffi.embedding(index, rows, borrow_optional(residual, "residual"), out)
    return out.owner


def sinusoidal_positions(length: int, dim: int) -> np.ndarray:
    """(length, dim) float32: sin(t / 10000^(2i/dim)) in column 2i, cos of the same in column 2i + 1.

    Angles are taken in float64. An odd dim ends with a sine. Source: Vaswani et al. 2017, section 3.5.
    """
    out = np.empty((integer(length, "length", 0), integer(dim, "dim", 0)), np.float32)
    _ffi.sinusoidal_positions(borrow(out, "out", True))
    return out


def alibi_slopes(heads: int) -> np.ndarray:
    """(heads,) float32 slopes of ALiBi.

    With n the largest power of two <= heads: 2^(-8(h+1)/n) for h < n, and 2^(-4(2(h-n)+1)/n) after.
    Source: Press et al. 2022.
    """
    out = np.empty(integer(heads, "heads", 0), np.float32)
    _ffi.alibi_slopes(borrow(out, "out", True))
    return out
