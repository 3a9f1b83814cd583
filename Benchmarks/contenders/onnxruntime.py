"""ONNX Runtime: the ONNX Attention operator and its own attention operators, linear layers, row kernels."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, helper

from cases import Case

from . import Call, onnx_graphs

FATAL = 4  # the log level: what a session refuses is reported as an exception anyway
OWN = "com.microsoft"

_threads = 1


def start(threads: int) -> dict[str, Any]:
    global _threads
    _threads = threads
    return {"version": ort.__version__}


def formulations(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Callable[[], Call]]:
    if case.dtype == "bfloat16" or case.precision != "highest":
        return {}
    if case.operation == "attention":
        return _attention(case, inputs)
    made = onnx_graphs.of_case(case, inputs)
    return {case.operation: partial(_session, *made)} if made else {}


def _session(
    model: ModelProto,
    feeds: dict[str, np.ndarray],
    *,
    packed_heads: int = 0,
    in_place: dict[str, tuple[str, np.ndarray]] | None = None,
) -> Call:
    """A session with inputs and outputs bound, so that no copy is timed.

    packed_heads: the result is (B, T, H * D) of so many heads H. in_place: output name and array by input name, of
    arrays that the model updates where they are.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = _threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    arrays = {**feeds, **{name: array for name, (_, array) in (in_place or {}).items()}}
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("out", "cpu")
    for name, (output, _) in (in_place or {}).items():
        binding.bind_ortvalue_output(output, values[name])

    def run() -> dict[str, ort.OrtValue]:
        session.run_with_iobinding(binding)
        return values  # a reference, because the binding only borrows their memory

    def read(_: dict[str, ort.OrtValue]) -> np.ndarray:
        result = binding.get_outputs()[0].numpy().astype(np.float32)
        if packed_heads:
            batch, length, _ = result.shape
            result = result.reshape(batch, length, packed_heads, -1).swapaxes(1, 2)
        return result

    return Call(run, read)


def _pack(array: np.ndarray) -> np.ndarray:
    """(B, H, T, D) as (B, T, H * D), the layout of the older operators."""
    batch, heads, length, dim = array.shape
    return np.ascontiguousarray(array.swapaxes(1, 2)).reshape(batch, length, heads * dim)


def _attention(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Callable[[], Call]]:
    _, q_heads, kv_heads, q_length, k_length, _ = case.shape
    found = {"Attention": partial(_onnx_attention, case, inputs)}
    if case.mask:
        return found
    if q_heads == kv_heads:
        found["MultiHeadAttention"] = partial(_multi_head_attention, case, inputs)
    elif not case.causal:
        found["Attention, heads folded"] = partial(_onnx_attention, case, _folded(case, inputs))
    # The operator of decoders is causal with the last query at the last key.
    if q_length == 1 or (case.causal and q_length == k_length):
        found["GroupQueryAttention"] = partial(_group_query_attention, case, inputs)
    return found


def _folded(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Query heads that share a key head as more queries of it."""
    batch, _, kv_heads, _, _, dim = case.shape
    return {**inputs, "query": inputs["query"].reshape(batch, kv_heads, -1, dim)}


def _onnx_attention(case: Case, inputs: dict[str, np.ndarray]) -> Call:
    node = helper.make_node("Attention", list(inputs), ["out"], is_causal=int(case.causal))
    return _session(onnx_graphs.model([node], inputs, {"out": (case.dtype, inputs["query"].shape)}), inputs)


def _multi_head_attention(case: Case, inputs: dict[str, np.ndarray]) -> Call:
    heads = case.shape[1]
    feeds = {name: _pack(array) for name, array in inputs.items()}
    attributes = {"num_heads": heads, "unidirectional": int(case.causal)}
    node = helper.make_node("MultiHeadAttention", list(feeds), ["out"], domain=OWN, **attributes)
    outputs = {"out": (case.dtype, feeds["query"].shape)}
    return _session(onnx_graphs.model([node], feeds, outputs), feeds, packed_heads=heads)


def _group_query_attention(case: Case, inputs: dict[str, np.ndarray]) -> Call:
    """Keys and values in a cache that the operator appends the newest ones to, in place."""
    batch, q_heads, kv_heads, q_length, k_length, _ = case.shape
    newest = slice(k_length - q_length, None)
    feeds = {
        "query": _pack(inputs["query"]),
        "key": _pack(inputs["key"][:, :, newest]),
        "value": _pack(inputs["value"][:, :, newest]),
        "seqlens_k": np.full(batch, k_length - 1, np.int32),
        "total_sequence_length": np.array([k_length], np.int32),
    }
    caches = {"past_key": ("present_key", inputs["key"]), "past_value": ("present_value", inputs["value"])}
    names = ["query", "key", "value", *caches, "seqlens_k", "total_sequence_length"]
    node = helper.make_node(
        "GroupQueryAttention",
        names,
        ["out", "present_key", "present_value"],
        domain=OWN,
        num_heads=q_heads,
        kv_num_heads=kv_heads,
    )
    arrays = {**feeds, **{name: array for name, (_, array) in caches.items()}}
    outputs = {"out": (case.dtype, feeds["query"].shape)}
    outputs |= {output: (case.dtype, array.shape) for output, array in caches.values()}
    return _session(onnx_graphs.model([node], arrays, outputs), feeds, packed_heads=q_heads, in_place=caches)
