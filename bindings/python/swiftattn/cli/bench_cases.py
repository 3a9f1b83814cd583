"""What bench measures: each operation by the library and in plain NumPy, on the same arrays."""

from __future__ import annotations

import math
from typing import Callable, Iterator, NamedTuple

import numpy as np
import swiftattn


class Case(NamedTuple):
    name: str
    work: float  # of one call, in `unit` times 1e-9 and a second
    unit: str
    ours: Callable[[], np.ndarray]
    numpy: Callable[[], np.ndarray]


def all_cases() -> Iterator[Case]:
    """One after the other, so that only one's arrays are there at a time."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    a, b = normal(1024, 1024), normal(1024, 1024)
    yield Case("matmul, 1024 x 1024 x 1024", 2 * 1024**3, "GFLOP/s", lambda: swiftattn.matmul(a, b), lambda: a @ b)

    q, k, v = normal(8, 1024, 64), normal(8, 1024, 64), normal(8, 1024, 64)
    for name, causal in (("attention, 8 heads, 1024 tokens", False), ("the same, causal", True)):
        yield Case(
            name,
            4 * q.size * 1024 / (2 if causal else 1),
            "GFLOP/s",
            lambda: swiftattn.scaled_dot_product_attention(q, k, v, is_causal=causal),
            lambda: _attention(q, k, v, causal),
        )

    q, k, v = normal(32, 1, 128), normal(8, 4096, 128), normal(8, 4096, 128)
    yield Case(
        "decode, 32 heads on 8, 4096 tokens",
        k.nbytes + v.nbytes,
        "GB/s",
        lambda: swiftattn.scaled_dot_product_attention(q, k, v),
        lambda: _attention(q.reshape(8, 4, 128), k, v, False).reshape(32, 1, 128),
    )

    x, weight, bias = normal(2048, 2048), normal(2048), normal(2048)
    rows = {
        "softmax": (lambda: swiftattn.softmax(x), lambda: _softmax(x)),
        "layer_norm": (lambda: swiftattn.layer_norm(x, weight, bias), lambda: _layer_norm(x, weight, bias)),
        "gelu, tanh": (lambda: swiftattn.gelu(x, approximate="tanh"), lambda: _gelu(x)),
    }
    for name, (ours, numpy) in rows.items():
        yield Case(f"{name}, 2048 rows of 2048", 2 * x.nbytes, "GB/s", ours, numpy)


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> np.ndarray:
    scores = q @ k.swapaxes(1, 2) * np.float32(1 / math.sqrt(q.shape[2]))
    if causal:
        scores = np.where(np.tri(*scores.shape[1:], dtype=bool), scores, np.float32(-np.inf))
    return _softmax(scores) @ v


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-5)) * weight + bias


def _gelu(x: np.ndarray) -> np.ndarray:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return x * np.float32(0.5) * (1 + np.tanh(inner))
