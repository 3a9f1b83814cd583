"""Gradients of products, rows, activations and embeddings.

grad_out is the gradient of what the forward function returned, of its shape and dtype; each result is like its input. Sums
over rows run in an order that depends on the number of rows alone. Errors are ValueError, TypeError (dtypes) and
MemoryError with the C library's message. The gradient of matmul is two of them.
"""

from __future__ import annotations

import ctypes

from . import _ffi
from ._ffi import LinearOptions
from ._tensor import Array, ArrayLike, Tensor, borrow, borrow_integers, borrow_optional, choice, empty, integer, real


def linear_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: str | None = None,
    pre_activation: ArrayLike | None = None,
    precision: str = "highest",
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias of linear, with z = x . weight^T + bias and g = grad_out * activation'(z).

    Args:
        grad_out: (..., N); a residual's gradient is grad_out itself.
        x: (..., K); weight: (N, K); bias: (N,), as they were given to linear.
        activation: None, "relu", "gelu", "gelu_tanh" or "silu".
        pre_activation: z (..., N) as it was kept; with an activation and without it, z is computed again.
        precision: of float32 products, as in linear.

    Returns:
        g . weight, g^T . x, and the sum of g over the rows.
    """
    gradient, source, matrix = borrow(grad_out, "grad_out"), borrow(x, "x"), borrow(weight, "weight")
    options = LinearOptions(
        ctypes.sizeof(LinearOptions),
        choice(_ffi.ACTIVATIONS, activation, "activation"),
        choice(_ffi.PRECISIONS, precision, "precision"),
    )
    dx, dweight, dbias = empty(source.dims, source), empty(matrix.dims, source), empty(matrix.dims[:1], source)
    _ffi.linear_backward(
        gradient,
        source,
        matrix,
        borrow_optional(bias, "bias"),
        borrow_optional(pre_activation, "pre_activation"),
        options,
        *(dx, dweight, dbias),
    )
    return dx.owner, dweight.owner, dbias.owner


def softmax_backward(grad_out: ArrayLike, y: ArrayLike, axis: int = -1) -> Array:
    """dx = y (grad_out - sum y grad_out) along axis, y what softmax returned."""
    gradient, source = borrow(grad_out, "grad_out"), borrow(y, "y")
    dx = empty(source.dims, source)
    _ffi.softmax_backward(gradient, source, integer(axis, "axis"), dx)
    return dx.owner


def layer_norm_backward(
    grad_out: ArrayLike, x: ArrayLike, weight: ArrayLike | None = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias of layer_norm for x (..., N), weight (N,) and eps as they were given to it.

    dweight and dbias (N,) have the dtype of weight, or x's without one.
    """
    gradient, source, scale = borrow(grad_out, "grad_out"), borrow(x, "x"), borrow_optional(weight, "weight")
    dx, dweight, dbias = empty(source.dims, source), _sum(source, scale), _sum(source, scale)
    _ffi.layer_norm_backward(gradient, source, scale, real(eps, "eps"), dx, dweight, dbias)
    return dx.owner, dweight.owner, dbias.owner


def rms_norm_backward(
    grad_out: ArrayLike, x: ArrayLike, weight: ArrayLike | None = None, eps: float = 1e-6
) -> tuple[Array, Array]:
    """dx, dweight of rms_norm for x (..., N), weight (N,) and eps as they were given to it.

    dweight (N,) has the dtype of weight, or x's without one.
    """
    gradient, source, scale = borrow(grad_out, "grad_out"), borrow(x, "x"), borrow_optional(weight, "weight")
    dx, dweight = empty(source.dims, source), _sum(source, scale)
    _ffi.rms_norm_backward(gradient, source, scale, real(eps, "eps"), dx, dweight)
    return dx.owner, dweight.owner


def _sum(x: Tensor, weight: Tensor | None) -> Tensor:
    """For a gradient that sums up over rows; a float32 weight of float64 rows has a float64 gradient."""
    return empty(x.dims[-1:], x if weight is None or x.dtype.bits == 64 else weight)


def relu_backward(grad_out: ArrayLike, x: ArrayLike) -> Array:
    """dx = grad_out where x > 0 or NaN, else 0."""
    gradient, source = borrow(grad_out, "grad_out"), borrow(x, "x")
    dx = empty(source.dims, source)
    _ffi.relu_backward(gradient, source, dx)
    return dx.owner


def gelu_backward(grad_out: ArrayLike, x: ArrayLike, approximate: str = "none") -> Array:
    """dx = grad_out * gelu'(x), of gelu with the same approximate."""
    gradient, source = borrow(grad_out, "grad_out"), borrow(x, "x")
    dx = empty(source.dims, source)
    _ffi.gelu_backward(gradient, source, choice(_ffi.GELU_APPROXIMATIONS, approximate, "approximate"), dx)
    return dx.owner


def silu_backward(grad_out: ArrayLike, x: ArrayLike) -> Array:
    """dx = grad_out * s (1 + x (1 - s)), s = 1 / (1 + exp(-x))."""
    gradient, source = borrow(grad_out, "grad_out"), borrow(x, "x")
    dx = empty(source.dims, source)
    _ffi.silu_backward(gradient, source, dx)
    return dx.owner


def swiglu_backward(grad_out: ArrayLike, gate: ArrayLike, up: ArrayLike) -> tuple[Array, Array]:
    """dgate = grad_out * up * silu'(gate), dup = grad_out * silu(gate)."""
    gradient, first, second = borrow(grad_out, "grad_out"), borrow(gate, "gate"), borrow(up, "up")
    dgate, dup = empty(first.dims, first), empty(first.dims, first)
    _ffi.swiglu_backward(gradient, first, second, dgate, dup)
    return dgate.owner, dup.owner


def geglu_backward(
    grad_out: ArrayLike, gate: ArrayLike, up: ArrayLike, approximate: str = "none"
) -> tuple[Array, Array]:
    """dgate = grad_out * up * gelu'(gate), dup = grad_out * gelu(gate), of geglu with the same approximate."""
    gradient, first, second = borrow(grad_out, "grad_out"), borrow(gate, "gate"), borrow(up, "up")
    dgate, dup = empty(first.dims, first), empty(first.dims, first)
    form = choice(_ffi.GELU_APPROXIMATIONS, approximate, "approximate")
    _ffi.geglu_backward(gradient, first, second, form, dgate, dup)
    return dgate.owner, dup.owner


def embedding_backward(grad_out: ArrayLike, ids: ArrayLike, rows: int) -> Array:
    """dtable (rows, N): row v is the sum of grad_out[i, :] over the i with ids[i] = v, 0 if there is none.

    Args:
        grad_out: (..., N).
        ids: (...) integers, each 0 <= id < rows.
        rows: of the table.

    Returns:
        An array like grad_out; the rows of an id are summed up in their order.
    """
    gradient = borrow(grad_out, "grad_out")
    dtable = empty([integer(rows, "rows", 0), *gradient.dims[-1:]], gradient)
    _ffi.embedding_backward(gradient, borrow_integers(ids, "ids"), dtable)
    return dtable.owner
