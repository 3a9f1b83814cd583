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


class PackedWeight:
    """A weight (N, K) in the order in which products read it: packed once, for many calls of linear, from any thread.

    It holds a copy; the array may change or go away.
    """

    def __init__(self, weight: ArrayLike) -> None:
        matrix = borrow(weight, "weight")
        self._handle = ctypes.c_void_p()
        _ffi.pack_weight(matrix, ctypes.byref(self._handle))
        self.shape = tuple(matrix.dims)

    def __del__(self, destroy=_ffi.packed_weight_destroy) -> None:
        destroy(getattr(self, "_handle", None))


def linear(
    x: ArrayLike,
    weight: ArrayLike | PackedWeight,
    bias: ArrayLike | None = None,
    *,
    activation: str | None = None,
    residual: ArrayLike | None = None,
    precision: str = "highest",
) -> Array:
    """residual + activation(x . weight^T + bias), rounded once.

    Args:
        x: (..., K), float32, float16, bfloat16 or float64.
        weight: (N, K), rows are outputs as in torch; of x's dtype, as bias and residual. A PackedWeight gives the same
            bits.
        bias: (N,).
        activation: None, "relu", "gelu" (erf), "gelu_tanh" or "silu".
        residual: broadcast to (..., N).
        precision: of float32 products: "highest", "high" (about 16 significand bits) or "medium" (bfloat16).

    Returns:
        (..., N). The bits of a row do not depend on the number of rows.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """
    source = borrow(x, "x")
    if isinstance(weight, PackedWeight):
        function, matrix, shape = _ffi.linear_packed, weight._handle, weight.shape
    else:
        function, matrix = _ffi.linear, borrow(weight, "weight")
        shape = matrix.dims
    options = None
    if activation is not None or precision != "highest":
        options = LinearOptions(
            ctypes.sizeof(LinearOptions),
            choice(_ffi.ACTIVATIONS, activation, "activation"),
            choice(_ffi.PRECISIONS, precision, "precision"),
        )
    out = empty([*source.dims[:-1], *shape[:1]], source)
    function(source, matrix, borrow_optional(bias, "bias"), borrow_optional(residual, "residual"), options, out)
    return out.owner
