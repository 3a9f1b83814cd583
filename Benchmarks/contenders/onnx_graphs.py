"""Cases as ONNX models with the weights as constants, for the two peers that read them."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from cases import Case

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
}
OPSET = 23  # the first with Attention and RMSNormalization
IR_VERSION = 11


def model(
    nodes: Sequence[NodeProto],
    inputs: dict[str, np.ndarray],
    outputs: dict[str, tuple[str, Sequence[int]]],
    constants: dict[str, np.ndarray] | None = None,
) -> ModelProto:
    """A model of the nodes; `outputs` has dtype and shape by name."""
    graph = helper.make_graph(
        list(nodes),
        "case",
        [helper.make_tensor_value_info(name, TYPES[a.dtype.name], a.shape) for name, a in inputs.items()],
        [helper.make_tensor_value_info(name, TYPES[dtype], shape) for name, (dtype, shape) in outputs.items()],
        [
            helper.make_tensor(name, TYPES[a.dtype.name], a.shape, a.tobytes(), raw=True)
            for name, a in (constants or {}).items()
        ],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def of_case(case: Case, inputs: dict[str, np.ndarray]) -> tuple[ModelProto, dict[str, np.ndarray]] | None:
    """The model of a linear layer or a row kernel, and the inputs that are not constants; None if ONNX has none."""
    if case.operation == "linear":
        feeds, constants = {"x": inputs["x"]}, {"weight": np.ascontiguousarray(inputs["weight"].T)}
    elif case.operation in _NODES:
        feeds = {name: array for name, array in inputs.items() if name not in ("weight", "bias", "table")}
        constants = {name: array for name, array in inputs.items() if name not in feeds}
    else:
        return None
    outputs = {"out": (case.dtype, (case.shape[0], case.width))}
    return model(_NODES[case.operation], feeds, outputs, constants), feeds


_node = helper.make_node
_NODES = {
    "linear": [_node("MatMul", ["x", "weight"], ["out"])],
    "softmax": [_node("Softmax", ["x"], ["out"], axis=-1)],
    "layer_norm": [_node("LayerNormalization", ["x", "weight", "bias"], ["out"], epsilon=1e-5)],
    "rms_norm": [_node("RMSNormalization", ["x", "weight"], ["out"], epsilon=1e-6)],
    "gelu": [_node("Gelu", ["x"], ["out"])],
    "silu": [_node("Sigmoid", ["x"], ["gated"]), _node("Mul", ["x", "gated"], ["out"])],
    "swiglu": [
        _node("Sigmoid", ["gate"], ["sigmoid"]),
        _node("Mul", ["gate", "sigmoid"], ["gated"]),
        _node("Mul", ["gated", "up"], ["out"]),
    ],
    "embedding": [_node("Gather", ["table", "ids"], ["out"])],
}
