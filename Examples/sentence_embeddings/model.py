"""all-MiniLM-L6-v2, a BERT that embeds sentences, on swiftattn's kernels: no number is computed in Python."""

from __future__ import annotations

import math

import numpy as np
import swiftattn


class MiniLM:
    """Callable; B sentences of up to T tokens, W wide, in H heads of D = W / H."""

    def __init__(self, config: dict, weights: dict[str, np.ndarray]):
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]
        self.activation = config["hidden_act"]
        self.weights = dict(weights)
        for n in range(self.layers):
            # Query, key and value from one product: their matrices below one another.
            attention = f"encoder.layer.{n}.attention.self."
            for part in ("weight", "bias"):
                self.weights[f"{attention}qkv.{part}"] = np.concatenate(
                    [weights[f"{attention}{name}.{part}"] for name in ("query", "key", "value")]
                )
        width = config["hidden_size"]
        self.unit = np.full(width, 1 / math.sqrt(width), np.float32)

    def __call__(
        self, ids: np.ndarray, lengths: np.ndarray, return_weights: bool = False
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """ids (B, T), lengths (B,) -> what each stage gives, and the layers' attention weights (B, H, T, T) if asked.

        The stages are "embeddings" and "layer 1" to the last, (B, T, W) with padding rows of no meaning, then
        "mean pooling" and "unit length", (B, W). The last one is the result.
        """
        x = self._embed(ids)
        stages, attention = {"embeddings": x}, {}
        for n in range(self.layers):
            layer, stage = f"encoder.layer.{n}.", f"layer {n + 1}"
            x, weights = self._attend(layer + "attention.", x, lengths, return_weights)
            x = self._feed_forward(layer, x)
            stages[stage] = x
            if return_weights:
                attention[stage] = weights
        stages["mean pooling"] = pooled = self._pool(x, lengths)
        # RMS norm divides by |x| / sqrt(W), its weights 1 / sqrt(W) make that |x|.
        stages["unit length"] = swiftattn.rms_norm(pooled, self.unit, eps=0.0)
        return stages, attention

    def _embed(self, ids: np.ndarray) -> np.ndarray:
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        types = np.broadcast_to(0, ids.shape)  # a single sentence is all of type 0
        x = swiftattn.embedding(ids, self.weights["embeddings.word_embeddings.weight"])
        x = swiftattn.embedding(positions, self.weights["embeddings.position_embeddings.weight"], residual=x)
        x = swiftattn.embedding(types, self.weights["embeddings.token_type_embeddings.weight"], residual=x)
        return self._norm("embeddings.LayerNorm", x)

    def _attend(
        self, name: str, x: np.ndarray, lengths: np.ndarray, return_weights: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """norm(x + attention(x)), each sentence up to its length."""
        batch, tokens, width = x.shape
        heads = (self.heads, width // self.heads)
        qkv = self._linear(name + "self.qkv", x)  # (B, T, 3W)
        query, key, value = qkv.reshape(batch, tokens, 3, *heads).transpose(2, 0, 3, 1, 4)  # views (B, H, T, D)
        context = np.empty((batch, tokens, *heads), x.dtype)  # the heads side by side again, without a copy
        result = swiftattn.scaled_dot_product_attention(
            *(query, key, value),
            kv_lengths=lengths,
            return_weights=return_weights,
            out=context.transpose(0, 2, 1, 3),
        )
        x = self._linear(name + "output.dense", context.reshape(x.shape), residual=x)
        return self._norm(name + "output.LayerNorm", x), result[1] if return_weights else None

    def _feed_forward(self, name: str, x: np.ndarray) -> np.ndarray:
        """norm(x + W2 gelu(W1 x))."""
        wide = self._linear(name + "intermediate.dense", x, activation=self.activation)
        x = self._linear(name + "output.dense", wide, residual=x)
        return self._norm(name + "output.LayerNorm", x)

    def _pool(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The mean over a sentence's tokens: with scale 0 attention gives every visible key the same weight."""
        keys = x[:, None]  # (B, 1, T, W)
        mean = swiftattn.scaled_dot_product_attention(keys[:, :, :1], keys, keys, scale=0.0, kv_lengths=lengths)
        return mean[:, 0, 0]

    def _linear(self, name: str, x: np.ndarray, **fused) -> np.ndarray:
        return swiftattn.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"], **fused)

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return swiftattn.layer_norm(x, self.weights[name + ".weight"], self.weights[name + ".bias"], self.epsilon)


def similarities(embeddings: np.ndarray) -> np.ndarray:
    """Cosines between all pairs of unit vectors (B, W)."""
    return swiftattn.matmul(embeddings, embeddings.T)
