"""all-MiniLM-L6-v2 in plain NumPy and float64, one sentence at a time: what the library is checked against."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Sequence

import numpy as np
from safetensors.numpy import load_file


def embeddings(folder: Path, sentences: Sequence[np.ndarray]) -> np.ndarray:
    """(B, W) of length 1, from the token ids of B sentences."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    return np.stack([_encode(ids, config, weights) for ids in sentences])


def _encode(ids: np.ndarray, config: dict, weights: dict[str, np.ndarray]) -> np.ndarray:
    """ids (T,) -> (W,)."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return (
            centred / np.sqrt(variance + config["layer_norm_eps"]) * weights[name + ".weight"] + weights[name + ".bias"]
        )

    def split_heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), config["num_attention_heads"], -1).swapaxes(0, 1)  # (H, T, D)

    x = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    x = norm("embeddings.LayerNorm", x)
    for n in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{n}."
        query, key, value = (
            split_heads(linear(f"{layer}attention.self.{name}", x)) for name in ("query", "key", "value")
        )
        probabilities = _softmax(query @ key.swapaxes(1, 2) / math.sqrt(query.shape[2]))
        context = (probabilities @ value).swapaxes(0, 1).reshape(x.shape)
        x = norm(f"{layer}attention.output.LayerNorm", x + linear(f"{layer}attention.output.dense", context))
        wide = _gelu(linear(f"{layer}intermediate.dense", x))
        x = norm(f"{layer}output.LayerNorm", x + linear(f"{layer}output.dense", wide))
    pooled = x.mean(0)
    return pooled / np.sqrt(pooled @ pooled)


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.vectorize(math.erf)(x * math.sqrt(0.5)))
