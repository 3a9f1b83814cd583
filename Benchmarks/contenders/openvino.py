"""OpenVINO's CPU plugin: its own attention operator, linear layers and row kernels read from ONNX."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import ml_dtypes
import numpy as np
import openvino as ov
from openvino import opset13 as ops

from cases import Case

from . import Call, onnx_graphs

_TYPES = {"float32": ov.Type.f32, "float16": ov.Type.f16, "bfloat16": ov.Type.bf16}

_core = ov.Core()
_threads = 1


def start(threads: int) -> dict[str, Any]:
    global _threads
    _threads = threads
    return {"version": ov.__version__, "isa": " ".join(_capabilities())}


def formulations(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Callable[[], Call]]:
    hint = _precision(case)
    if hint is None:
        return {}
    if case.operation == "attention":
        return _attention(case, inputs, hint)
    made = onnx_graphs.of_case(case, inputs)
    if made is None:
        return {}
    model, feeds = made
    return {case.operation: lambda: _compiled(_core.read_model(model.SerializeToString()), list(feeds.values()), hint)}


def _capabilities() -> list[str]:
    return _core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _precision(case: Case) -> str | None:
    """The arithmetic to ask for; left to itself the plugin computes float32 models in bfloat16 where it can."""
    if case.dtype == "float32":
        return {"highest": "f32", "medium": "bf16"}.get(case.precision)
    if case.dtype == "float16":
        return "f16" if "FP16" in _capabilities() else "f32"  # without float16 units "f16" would mean bfloat16
    return "bf16"


def _tensor(array: np.ndarray) -> ov.Tensor:
    if array.dtype.name == "bfloat16":
        return ov.Tensor(array.view(np.uint16), ov.Shape(array.shape), ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)


def _compiled(model: ov.Model, arrays: list[np.ndarray], hint: str) -> Call:
    settings = {"INFERENCE_NUM_THREADS": _threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
    request = _core.compile_model(model, "CPU", settings).create_infer_request()
    tensors = [_tensor(array) for array in arrays]
    for index, tensor in enumerate(tensors):
        request.set_input_tensor(index, tensor)

    def run() -> list[ov.Tensor]:
        request.infer()
        return tensors  # a reference, because the request only borrows them

    def read(_: list[ov.Tensor]) -> np.ndarray:
        result = request.get_output_tensor(0)
        # The binding shows bfloat16 as float16: the bytes are right, the type is not.
        bits = result.data.view(ml_dtypes.bfloat16) if result.element_type == ov.Type.bf16 else result.data
        return bits.astype(np.float32)

    return Call(run, read)


def _attention(case: Case, inputs: dict[str, np.ndarray], hint: str) -> dict[str, Callable[[], Call]]:
    batch, q_heads, kv_heads, _, _, dim = case.shape
    found = {"sdpa": partial(_sdpa, case, inputs, hint)}
    if q_heads != kv_heads and not case.causal and not case.mask:
        # Query heads that share a key head are only more queries of it: K and V are then read once.
        folded = {**inputs, "query": inputs["query"].reshape(batch, kv_heads, -1, dim)}
        found["sdpa, heads folded"] = partial(_sdpa, case, folded, hint)
    return found


def _sdpa(case: Case, inputs: dict[str, np.ndarray], hint: str) -> Call:
    parameters = {name: ops.parameter(list(a.shape), dtype=_TYPES[a.dtype.name]) for name, a in inputs.items()}
    heads = inputs["query"].shape[1]
    key, value = (_for_every_head(parameters[name], inputs[name].shape, heads) for name in ("key", "value"))
    node = ops.scaled_dot_product_attention(
        parameters["query"], key, value, parameters.get("attn_mask"), causal=case.causal
    )
    return _compiled(ov.Model([node], list(parameters.values()), "case"), list(inputs.values()), hint)


def _for_every_head(node: ov.Node, shape: tuple[int, ...], heads: int) -> ov.Node:
    """The operator wants as many key heads as query heads."""
    batch, kv_heads, length, dim = shape
    if heads == kv_heads:
        return node
    spread = ops.broadcast(
        ops.unsqueeze(node, ops.constant(2)), ops.constant([batch, kv_heads, heads // kv_heads, length, dim])
    )
    return ops.reshape(spread, ops.constant([batch, heads, length, dim]), False)
