"""The exact result of a case: float64 NumPy, in chunks, so that no Tq x Tk matrix of all heads is ever held."""

from __future__ import annotations

import math

import numpy as np

from cases import Case

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
}
