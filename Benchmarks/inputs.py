"""The inputs of a case, the same in every process because they come from one seed."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from cases import Case

SEED = 20240229
ALIGNMENT = 64  # a cache line, as torch, ONNX Runtime and OpenVINO align their own memory

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts on a cache line, so that no contender is better off by the accident of an address."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def make(case: Case) -> dict[str, np.ndarray]:
    """Arrays by argument name, as the package swiftattn names them."""
    rng = np.random.default_rng(SEED)
    dtype = DTYPES[case.dtype]

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        numbers = rng.standard_normal(shape, np.float32)
        if scale != 1.0:
            numbers *= np.float32(scale)
        return aligned(numbers.astype(dtype, copy=False))

    if case.is_attention:
        batch, q_heads, kv_heads, q_length, k_length, dim = case.shape
        arrays = {
            "query": normal(batch, q_heads, q_length, dim),
            "key": normal(batch, kv_heads, k_length, dim),
            "value": normal(batch, kv_heads, k_length, dim),
        }
        if case.mask:
            arrays["attn_mask"] = normal(batch, 1, q_length, k_length)
        if case.operation == "attention_training":
            arrays["grad_out"] = normal(batch, q_heads, q_length, dim)
        return arrays
    if case.operation == "linear":
        m, n, k = case.shape
        return {"x": normal(m, k), "weight": normal(n, k, scale=k**-0.5)}
    if case.operation == "embedding":
        tokens, vocabulary, width = case.shape
        return {"ids": aligned(rng.integers(0, vocabulary, tokens)), "table": normal(vocabulary, width)}
    if case.operation == "linear_backward":
        m, n, k = case.shape
        return {"grad_out": normal(m, n), "x": normal(m, k), "weight": normal(n, k, scale=k**-0.5)}
    if case.operation == "embedding_backward":
        tokens, vocabulary, width = case.shape
        return {"grad_out": normal(tokens, width), "ids": aligned(rng.integers(0, vocabulary, tokens))}
    if case.operation == "rotary_embedding":
        heads, positions, width = case.shape
        angles = np.arange(positions)[:, None] * 10000.0 ** (-2 * np.arange(width // 2) / width)
        tables = {name: aligned(turn(angles).astype(dtype)) for name, turn in (("cos", np.cos), ("sin", np.sin))}
        return {"x": normal(heads, positions, width), **tables}
    rows, width = case.shape
    if case.operation.startswith("cross_entropy"):
        return {"logits": normal(rows, width, scale=3.0), "targets": aligned(rng.integers(0, width, rows))}
    if case.operation == "sampling_distribution":
        return {"logits": normal(rows, width, scale=3.0)}
    if case.operation == "softmax_backward":
        powers = np.exp(normal(rows, width))
        return {"grad_out": normal(rows, width), "y": aligned(powers / powers.sum(-1, keepdims=True))}
    if case.is_gradient:
        arrays = {"grad_out": normal(rows, width), "x": normal(rows, width, scale=3.0)}
        if case.operation == "layer_norm_backward":
            arrays["weight"] = normal(width)
        return arrays
    if case.operation == "swiglu":
        return {"gate": normal(rows, width), "up": normal(rows, width)}
    arrays = {"x": normal(rows, width, scale=3.0)}
    if case.operation in ("layer_norm", "rms_norm"):
        arrays["weight"] = normal(width)
    if case.operation == "layer_norm":
        arrays["bias"] = normal(width)
    return arrays
