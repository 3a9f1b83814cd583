"""Dropout whose mask is a function of a seed and the elements' numbers."""

from __future__ import annotations

from . import _ffi
from ._tensor import Array, ArrayLike, borrow, empty, integer, real


def dropout(x: ArrayLike, p: float = 0.5, *, seed: int, draw: int = 0, out: Array | None = None) -> Array:
    """x / (1 - p), with 0 in place of elements that are dropped, each with probability p.

    Args:
        x: any shape; float32, float16, bfloat16 or float64.
        p: 0 <= p < 1.
        seed: key of the Philox generator, 0 <= seed < 2^64; element i in row-major order has a word of its own.
        draw: calls that differ in it drop independently under one seed: the number of a layer and a step.
        out: an array like x to write to; x itself is allowed.

    Returns:
        An array like x, the same for every number of threads.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """
    return _drop(_ffi.dropout, x, "x", p, seed, draw, out)


def dropout_backward(
    grad_out: ArrayLike, p: float = 0.5, *, seed: int, draw: int = 0, out: Array | None = None
) -> Array:
    """dx of dropout under the same p, seed and draw: the same function of grad_out."""
    return _drop(_ffi.dropout_backward, grad_out, "grad_out", p, seed, draw, out)


def _drop(function, x, name, p, seed, draw, out) -> Array:
    source = borrow(x, name)
    target = empty(source.dims, source) if out is None else borrow(out, "out", True)
    numbers = integer(seed, "seed", 0, 2**64 - 1), integer(draw, "draw", 0, 2**64 - 1)
    function(source, real(p, "p"), *numbers, target)
    return target.owner if out is None else out
