"""Cross-entropy and its gradient."""

from __future__ import annotations

import ctypes

from . import _ffi
from ._ffi import CrossEntropyOptions
from ._tensor import Array, ArrayLike, Tensor, borrow, borrow_integers, empty, integer, real


def cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, ignore_index: int = -100, label_smoothing: float = 0.0
) -> Array:
    """The mean of -sum_v q[v] ln softmax(logits)[v] over the rows that count, q[v] = (1 - s) [v = target] + s / V.

    Args:
        logits: (..., V), float32, float16, bfloat16 or float64. The classes are the last dim; in torch, the second.
        targets: (...) integers, each 0 <= target < V or ignore_index.
        ignore_index: rows with this target do not count.
        label_smoothing: s, 0 to 1.

    Returns:
        A float32 number (float64 for float64), of torch if logits are. 0 where no row counts (torch: NaN). The order of
        the sum depends on the number of rows alone.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """
    source = borrow(logits, "logits")
    loss = _loss(source)
    _ffi.cross_entropy(source, borrow_integers(targets, "targets"), _options(ignore_index, label_smoothing), loss)
    return loss.owner[()]


def cross_entropy_backward(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    grad_loss: float = 1.0,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """The loss of cross_entropy, and its gradient in the same pass: grad_loss (softmax(logits) - q) / rows that count.

    Args:
        grad_loss: multiplies the gradient; finite.
        out: where the gradient is written; logits itself is allowed. The other arguments are cross_entropy's.

    Returns:
        The loss, and the gradient, an array like logits, 0 in rows that do not count.

    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """
    source = borrow(logits, "logits")
    loss = _loss(source)
    gradient = empty(source.dims, source) if out is None else borrow(out, "out", True)
    _ffi.cross_entropy_backward(
        real(grad_loss, "grad_loss"),
        source,
        borrow_integers(targets, "targets"),
        _options(ignore_index, label_smoothing),
        loss,
        gradient,
    )
    return loss.owner[()], gradient.owner if out is None else out


def _loss(logits: Tensor) -> Tensor:
    return empty((), logits, "float64" if logits.dtype.bits == 64 else "float32")


def _options(ignore_index: int, label_smoothing: float) -> CrossEntropyOptions:
    return CrossEntropyOptions(
        struct_size=ctypes.sizeof(CrossEntropyOptions),
        flags=_ffi.CROSS_ENTROPY_HAS_IGNORE_INDEX,
        ignore_index=integer(ignore_index, "ignore_index"),
        label_smoothing=real(label_smoothing, "label_smoothing"),
    )
