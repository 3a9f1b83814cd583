"""Functions of whole rows: softmax and the norms."""

from __future__ import annotations

from . import _ffi
from ._tensor import Array, ArrayLike, borrow, borrow_optional, empty, integer, real


def softmax(x: ArrayLike, axis: int = -1) -> Array:
    """exp(x - max) / sum exp(x - max) along an axis.

    Args:
        x: any shape of rank 1 or more; float32, float16, bfloat16 or float64.
        axis: -ndim <= axis < ndim.

    Returns:
        An array like x. A row of -inf alone gives zeros (PyTorch: NaN); NaN in a row makes that row NaN.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """
    source = borrow(x, "x")
    out = empty(source.dims, source)
    _ffi.softmax(source, integer(axis, "axis"), out)
    return out.owner


def layer_norm(
    x: ArrayLike, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float = 1e-5
) -> Array:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dim, var biased (divided by N).

    Args:
        x: (..., N), float32, float16, bfloat16 or float64.
        weight: (N,) of x's dtype or float32; none means 1.
        bias: (N,) of x's dtype or float32; none means 0.
        eps: finite, 0 or more.

    Returns:
        An array like x.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message. Source: Ba et al. 2016.
    """
    source = borrow(x, "x")
    out = empty(source.dims, source)
    _ffi.layer_norm(source, borrow_optional(weight, "weight"), borrow_optional(bias, "bias"), real(eps, "eps"), out)
    return out.owner


def rms_norm(x: ArrayLike, weight: ArrayLike | None = None, eps: float = 1e-6) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight over the last dim.

    Args:
        x: (..., N), float32, float16, bfloat16 or float64.
        weight: (N,) of x's dtype or float32; none means 1.
        eps: finite, 0 or more.

    Returns:
        An array like x.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message. Source: Zhang, Sennrich 2019.
    """
    source = borrow(x, "x")
    out = empty(source.dims, source)
    _ffi.rms_norm(source, borrow_optional(weight, "weight"), real(eps, "eps"), out)
    return out.owner
