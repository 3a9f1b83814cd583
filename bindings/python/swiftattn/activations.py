"""Element-wise activations and their gated forms.

Inputs are float32, float16, bfloat16 or float64 of any shape; the result is like the first. Errors are ValueError,
TypeError (dtypes) and MemoryError with the C library's message.
"""

from __future__ import annotations

from . import _ffi
from ._tensor import Array, ArrayLike, borrow, choice, empty


def relu(x: ArrayLike) -> Array:
    """max(x, 0); NaN stays NaN."""
    source = borrow(x, "x")
    out = empty(source.dims, source)
    _ffi.relu(source, out)
    return out.owner


def gelu(x: ArrayLike, approximate: str = "none") -> Array:
    """x/2 * (1 + erf(x / sqrt(2))), or with approximate="tanh" x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

    Source: Hendrycks, Gimpel 2016.
    """
    source = borrow(x, "x")
    out = empty(source.dims, source)
    _ffi.gelu(source, choice(_ffi.GELU_APPROXIMATIONS, approximate, "approximate"), out)
    return out.owner


def silu(x: ArrayLike) -> Array:
    """x / (1 + exp(-x))."""
    source = borrow(x, "x")
    out = empty(source.dims, source)
    _ffi.silu(source, out)
    return out.owner


def swiglu(gate: ArrayLike, up: ArrayLike) -> Array:
    """silu(gate) * up; gate and up of one shape and dtype. Source: Shazeer 2020."""
    first, second = borrow(gate, "gate"), borrow(up, "up")
    out = empty(first.dims, first)
    _ffi.swiglu(first, second, out)
    return out.owner


def geglu(gate: ArrayLike, up: ArrayLike, approximate: str = "none") -> Array:
    """gelu(gate, approximate) * up; gate and up of one shape and dtype. Source: Shazeer 2020."""
    first, second = borrow(gate, "gate"), borrow(up, "up")
    out = empty(first.dims, first)
    _ffi.geglu(first, second, choice(_ffi.GELU_APPROXIMATIONS, approximate, "approximate"), out)
    return out.owner
