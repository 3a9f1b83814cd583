"""all-MiniLM-L6-v2 in plain NumPy, one sentence at a time and without padding, in the dtype of its weights."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


def encode(
    ids: np.ndarray, config: dict, weights: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """ids (T,) -> the stages of MiniLM, (T, W) and in the end (W,), and the layers' attention weights (H, T, T)."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        scaled = centred / np.sqrt(variance + x.dtype.type(config["layer_norm_eps"]))
        return scaled * weights[name + ".weight"] + weights[name + ".bias"]

    def split_heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), config["num_attention_heads"], -1).swapaxes(0, 1)  # (H, T, D)

    x = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm("embeddings.LayerNorm", x)
    stages, attention = {"embeddings": x}, {}
    for n in range(config["num_hidden_layers"]):
        layer, stage = f"encoder.layer.{n}.", f"layer {n + 1}"
        query, key, value = (
            split_heads(linear(f"{layer}attention.self.{name}", x)) for name in ("query", "key", "value")
        )
        probabilities = softmax(query @ key.swapaxes(1, 2) / query.dtype.type(math.sqrt(query.shape[2])))
        context = (probabilities @ value).swapaxes(0, 1).reshape(x.shape)
        x = norm(f"{layer}attention.output.LayerNorm", x + linear(f"{layer}attention.output.dense", context))
        wide = gelu(linear(f"{layer}intermediate.dense", x))
        x = norm(f"{layer}output.LayerNorm", x + linear(f"{layer}output.dense", wide))
        stages[stage] = x
        attention[stage] = probabilities
    stages["mean pooling"] = pooled = x.mean(0)
    stages["unit length"] = pooled / np.sqrt(pooled @ pooled)
    return stages, attention


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + erf(x * x.dtype.type(math.sqrt(0.5))))


_ERF_STEPS = 4096  # grid points per unit: Taylor's next term, d^4, is below float64's rounding
_ERF_LIMIT = 6  # 1 - erf(6) is 2e-17


@lru_cache(maxsize=None)
def _erf_grid(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """erf and its derivative on the grid."""
    grid = np.arange(-_ERF_LIMIT * _ERF_STEPS, _ERF_LIMIT * _ERF_STEPS + 1) / _ERF_STEPS
    values = np.array([math.erf(point) for point in grid])
    return values.astype(dtype), (2 / math.sqrt(math.pi) * np.exp(-grid * grid)).astype(dtype)


def erf(x: np.ndarray) -> np.ndarray:
    """NumPy has none: Taylor's series at the nearest grid point a, where math.erf knows it.

    With d = x - a:  erf(x) = erf(a) + erf'(a) * (d - a d^2 + (2 a^2 - 1) / 3 d^3)
    """
    values, slopes = _erf_grid(x.dtype)
    x = x.clip(-_ERF_LIMIT, _ERF_LIMIT)
    steps = np.rint(x * _ERF_STEPS)
    index = steps.astype(np.intp) + _ERF_LIMIT * _ERF_STEPS
    a = steps / _ERF_STEPS
    d = x - a
    return values[index] + slopes[index] * d * (1 - d * (a - (2 * a * a - 1) / 3 * d))
