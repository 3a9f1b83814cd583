"""Matrix products: matmul, and the linear layer with bias, activation and residual fused."""

from __future__ import annotations

import ctypes

from . import _ffi
from ._ffi import LinearOptions
from ._tensor import Array, ArrayLike, borrow, borrow_optional, broadcast, choice, empty


def matmul(a: ArrayLike, b: ArrayLike, *, precision: str = "highest") -> Array:
    """The matrix product a . b.

    Args:
        a: (..., M, K), or (K,) which stands for (1, K).
        b: (..., K, N), or (K,) which stands for (K, 1). Of a's dtype: float32, float16, bfloat16 or float64.
        precision: of float32 products: "highest", "high" (about 16 significand bits) or "medium" (bfloat16).

    Returns:
        (..., M, N), the leading dims broadcast, without the dim that a rank-1 input lacks. K = 0 gives zeros. The bits
        of a row do not depend on M or N.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """
    left, right = borrow(a, "a"), borrow(b, "b")
    shape = [
        *broadcast(left.dims[:-2], right.dims[:-2]),
        *left.dims[-2:-1],
        *(right.dims[-1:] if right.ndim > 1 else ()),
    ]
    out = empty(shape, left)
    _ffi.matmul(left, right, choice(_ffi.PRECISIONS, precision, "precision"), out)
    return out.owner


def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: str | None = None,
    residual: ArrayLike | None = None,
    precision: str = "highest",
) -> Array:
    """residual + activation(x . weight^T + bias), rounded once.

    Args:
        x: (..., K), float32, float16, bfloat16 or float64.
        weight: (N, K), rows are outputs as in torch; of x's dtype, as bias and residual.
        bias: (N,).
        activation: None, "relu", "gelu" (erf), "gelu_tanh" or "silu".
        residual: broadcast to (..., N).
        precision: of float32 products: "highest", "high" (about 16 significand bits) or "medium" (bfloat16).

    Returns:
        (..., N). The bits of a row do not depend on the number of rows.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """
    source, matrix = borrow(x, "x"), borrow(weight, "weight")
    options = None
    if activation is not None or precision != "highest":
        options = LinearOptions(
            ctypes.sizeof(LinearOptions),
            choice(_ffi.ACTIVATIONS, activation, "activation"),
            choice(_ffi.PRECISIONS, precision, "precision"),
        )
    out = empty([*source.dims[:-1], *matrix.dims[:1]], source)
    _ffi.linear(source, matrix, borrow_optional(bias, "bias"), borrow_optional(residual, "residual"), options, out)
    return out.owner
