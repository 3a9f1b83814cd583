"""The exact result of a case: float64 NumPy, in chunks, so that no Tq x Tk matrix of all heads is ever held."""

from __future__ import annotations

import math

import numpy as np

from cases import SAMPLING, Case

CHUNK = 512  # queries at a time

_erf = np.frompyfunc(math.erf, 1, 1)


def exact(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Every case.check_step-th row of the result, (rows, case.width) float64."""
    return _FUNCTIONS[case.data.operation](case, inputs)


def rms_error(got: np.ndarray, expected: np.ndarray) -> float:
    """RMS of the difference relative to the RMS of the exact result; inf if anything is not finite."""
    error = np.sqrt(np.mean(np.square(got.astype(np.float64) - expected)))
    return float(error / np.sqrt(np.mean(np.square(expected)))) if np.isfinite(error) else math.inf


def _attention(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    batch, q_heads, kv_heads, q_length, k_length, dim = case.shape
    out = np.empty((batch, q_heads, q_length, dim))
    for b, h in np.ndindex(batch, q_heads):
        group = h // (q_heads // kv_heads)
        key = inputs["key"][b, group].astype(np.float64)
        value = inputs["value"][b, group].astype(np.float64)
        for start in range(0, q_length, CHUNK):
            rows = slice(start, min(start + CHUNK, q_length))
            # Keys past the chunk's last query are visible to none of its rows.
            visible = slice(0, min(rows.stop, k_length) if case.causal else k_length)
            scores = inputs["query"][b, h, rows].astype(np.float64) @ key[visible].T / math.sqrt(dim)
            if case.mask:
                scores += inputs["attn_mask"][b, 0, rows, visible].astype(np.float64)
            if case.causal:
                scores[np.arange(visible.stop) > np.arange(rows.start, rows.stop)[:, None]] = -np.inf
            out[b, h, rows] = _normalised_exp(scores) @ value[visible]
    return out.reshape(-1, dim)


def _attention_gradients(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Rows of dq, then of dk, then of dv; one head's scores at a time."""
    batch, q_heads, kv_heads, q_length, k_length, dim = case.shape
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    grads = {name: np.zeros_like(wide[name]) for name in ("query", "key", "value")}
    for b, h in np.ndindex(batch, q_heads):
        group = h // (q_heads // kv_heads)
        query, key, value = wide["query"][b, h], wide["key"][b, group], wide["value"][b, group]
        scores = query @ key.T / math.sqrt(dim)
        if case.causal:
            scores[np.arange(k_length) > np.arange(q_length)[:, None]] = -np.inf
        weights = _normalised_exp(scores)
        grad_weights = wide["grad_out"][b, h] @ value.T
        delta = np.sum(weights * grad_weights, axis=-1, keepdims=True)
        grad_scores = weights * (grad_weights - delta) / math.sqrt(dim)
        grads["query"][b, h] = grad_scores @ key
        grads["key"][b, group] += grad_scores.T @ query
        grads["value"][b, group] += weights.T @ wide["grad_out"][b, h]
    return np.concatenate([grad.reshape(-1, dim) for grad in grads.values()])


def _normalised_exp(scores: np.ndarray) -> np.ndarray:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _linear(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return inputs["x"][:: case.check_step].astype(np.float64) @ inputs["weight"].astype(np.float64).T


def _embedding(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return inputs["table"][inputs["ids"][:: case.check_step]].astype(np.float64)


def _rows(function):
    """A row kernel as the function of its checked rows and its weights, all in float64."""

    def of_case(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
        return function(
            *(array[:: case.check_step if array.ndim > 1 else 1].astype(np.float64) for array in inputs.values())
        )

    return of_case


def _layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def _rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6) * weight


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _linear_backward(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Rows of dx, then of dweight."""
    grad_out, x, weight = (array.astype(np.float64) for array in inputs.values())
    return np.concatenate([grad_out @ weight, grad_out.T @ x])


def _embedding_backward(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    table = np.zeros(case.shape[1:])
    np.add.at(table, inputs["ids"], inputs["grad_out"].astype(np.float64))
    return table


def _layer_norm_backward(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    factor = 1 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
    normal, grad = centred * factor, grad_out * weight
    means = grad.mean(axis=-1, keepdims=True), (grad * normal).mean(axis=-1, keepdims=True)
    return factor * (grad - means[0] - normal * means[1])


def _gelu_slope(x: np.ndarray) -> np.ndarray:
    density = np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)
    return (1 + _erf(x / math.sqrt(2)).astype(np.float64)) / 2 + x * density


def _silu_slope(x: np.ndarray) -> np.ndarray:
    sigmoid = 1 / (1 + np.exp(-x))
    return sigmoid * (1 + x * (1 - sigmoid))


def _rotary(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    x, cos, sin = (array.astype(np.float64) for array in inputs.values())
    first, second = np.split(x, 2, axis=-1)
    turned = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.reshape(-1, case.width)[:: case.check_step]


def _cross_entropy(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    weights = _normalised_exp(inputs["logits"].astype(np.float64))
    chosen = np.take_along_axis(weights, inputs["targets"][:, None], axis=-1)
    return -np.log(chosen).mean().reshape(1, 1)


def _cross_entropy_backward(case: Case, inputs: dict[str, np.ndarray]) -> np.ndarray:
    weights = _normalised_exp(inputs["logits"].astype(np.float64))
    weights[np.arange(len(weights)), inputs["targets"]] -= 1
    return weights[:: case.check_step] / len(weights)


def _sampling_distribution(logits: np.ndarray) -> np.ndarray:
    """Top 50, of these the fewest that reach 0.9."""
    order = np.argsort(-logits, axis=-1)[:, :SAMPLING["top_k"]]
    kept = _normalised_exp(np.take_along_axis(logits, order, axis=-1))
    kept[np.cumsum(kept, axis=-1) - kept >= SAMPLING["top_p"]] = 0
    out = np.zeros_like(logits)
    np.put_along_axis(out, order, kept / kept.sum(axis=-1, keepdims=True), axis=-1)
    return out


_FUNCTIONS = {
    "attention": _attention,
    "attention_training": _attention_gradients,
    "linear": _linear,
    "embedding": _embedding,
    "softmax": _rows(_normalised_exp),
    "layer_norm": _rows(_layer_norm),
    "rms_norm": _rows(_rms_norm),
    "gelu": _rows(lambda x: x / 2 * (1 + _erf(x / math.sqrt(2)).astype(np.float64))),
    "silu": _rows(_silu),
    "swiglu": _rows(lambda gate, up: _silu(gate) * up),
    "relu": _rows(lambda x: np.maximum(x, 0)),
    "linear_backward": _linear_backward,
    "embedding_backward": _embedding_backward,
    "softmax_backward": _rows(lambda grad, y: y * (grad - np.sum(y * grad, axis=-1, keepdims=True))),
    "layer_norm_backward": _rows(_layer_norm_backward),
    "relu_backward": _rows(lambda grad, x: grad * (x > 0)),
    "gelu_backward": _rows(lambda grad, x: grad * _gelu_slope(x)),
    "silu_backward": _rows(lambda grad, x: grad * _silu_slope(x)),
    "rotary_embedding": _rotary,
    "cross_entropy": _cross_entropy,
    "cross_entropy_backward": _cross_entropy_backward,
    "sampling_distribution": _rows(_sampling_distribution),
}
