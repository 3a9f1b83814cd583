"""PyTorch: its fused attention, its linear layer (plain and with oneDNN's packed weights) and its row kernels."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import numpy as np
import torch
import torch.nn.functional as F

from cases import SAMPLING, Case

from . import Call


def start(threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return {"version": torch.__version__, "isa": torch.backends.cpu.get_cpu_capability()}


def formulations(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Callable[[], Call]]:
    # One setting of the process, and the process works at one case at a time.
    torch.set_float32_matmul_precision(case.precision)
    tensors = {name: _tensor(array) for name, array in inputs.items()}
    if case.operation == "attention":
        return _attention(case, **tensors)
    if case.operation == "attention_training":
        return {"sdpa, autograd": partial(_training, case, **tensors)}
    if case.operation == "linear":
        return {
            "linear": lambda: _call(partial(F.linear, tensors["x"], tensors["weight"])),
            "oneDNN, weight packed": partial(_packed_linear, **tensors),
        }
    if case.operation == "linear_backward":
        return {"autograd's products": lambda: Call(partial(_linear_backward, **tensors), _dx_and_dweight)}
    if case.operation == "embedding_backward":
        backward = torch.ops.aten.embedding_dense_backward
        return {"embedding_dense_backward": lambda: _call(partial(backward, *tensors.values(), case.shape[1], -1, False))}
    if case.operation == "layer_norm_backward":
        return {"native_layer_norm_backward": partial(_layer_norm_backward, **tensors)}
    if case.operation in _ROWS:
        return {case.operation: lambda: _call(partial(_ROWS[case.operation], **tensors))}
    return {}


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _call(run: Callable[[], torch.Tensor]) -> Call:
    return Call(run, lambda result: result.float().numpy())


def _attention(
    case: Case, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None
) -> dict[str, Callable[[], Call]]:
    _, q_heads, kv_heads, q_length, _, _ = case.shape
    grouped = q_heads != kv_heads
    attention = partial(F.scaled_dot_product_attention, is_causal=case.causal, attn_mask=attn_mask)
    found = {"sdpa": lambda: _call(partial(attention, query, key, value, enable_gqa=grouped))}
    if grouped and not case.causal and attn_mask is None:
        # Query heads that share a key head are only more queries of it: K and V are then read once.
        folded = query.unflatten(1, (kv_heads, -1)).flatten(2, 3)
        found["sdpa, heads folded"] = lambda: _call(partial(attention, folded, key, value))
    return found


def _training(
    case: Case, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, grad_out: torch.Tensor
) -> Call:
    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    grouped = query.shape[1] != key.shape[1]

    def run() -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            out = F.scaled_dot_product_attention(*leaves, is_causal=case.causal, enable_gqa=grouped)
            return torch.autograd.grad(out, leaves, grad_out)

    return Call(run, lambda grads: np.concatenate([grad.flatten(0, -2).numpy() for grad in grads]))


def _packed_linear(x: torch.Tensor, weight: torch.Tensor) -> Call:
    """What torch.compile makes of a linear layer with frozen weights."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, x.shape[0])
    return _call(partial(torch.ops.mkldnn._linear_pointwise, x, packed, None, "none", [], ""))


def _linear_backward(grad_out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return grad_out @ weight, grad_out.T @ x, grad_out.sum(0)


def _dx_and_dweight(grads: tuple[torch.Tensor, ...]) -> np.ndarray:
    return torch.cat(grads[:2]).numpy()


def _layer_norm_backward(grad_out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> Call:
    bias = torch.zeros_like(weight)
    _, *kept = torch.native_layer_norm(x, weight.shape, weight, bias, 1e-5)
    backward = torch.ops.aten.native_layer_norm_backward
    run = partial(backward, grad_out, x, weight.shape, *kept, weight, bias, [True, True, True])
    return Call(run, lambda grads: grads[0].numpy())


def _cross_entropy_backward(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """From the logits, as ours: with the log_softmax that the forward would have left."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(leaf, targets), leaf)[0]


def _rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _sampling_distribution(logits: torch.Tensor) -> torch.Tensor:
    kept, tokens = logits.topk(SAMPLING["top_k"], -1)
    kept = F.softmax(kept, -1)
    kept[kept.cumsum(-1) - kept >= SAMPLING["top_p"]] = 0
    return torch.zeros_like(logits).scatter_(-1, tokens, kept / kept.sum(-1, keepdim=True))


_ROWS = {
    "softmax": lambda x: F.softmax(x, -1),
    "layer_norm": lambda x, weight, bias: F.layer_norm(x, weight.shape, weight, bias, 1e-5),
    "rms_norm": lambda x, weight: F.rms_norm(x, weight.shape, weight, 1e-6),
    "relu": lambda x: F.relu(x),
    "gelu": lambda x: F.gelu(x),
    "silu": lambda x: F.silu(x),
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "embedding": lambda ids, table: F.embedding(ids, table),
    "softmax_backward": lambda grad_out, y: torch.ops.aten._softmax_backward_data(grad_out, y, -1, y.dtype),
    "relu_backward": lambda grad_out, x: torch.ops.aten.threshold_backward(grad_out, x, 0),
    "gelu_backward": lambda grad_out, x: torch.ops.aten.gelu_backward(grad_out, x),
    "silu_backward": lambda grad_out, x: torch.ops.aten.silu_backward(grad_out, x),
    "rotary_embedding": _rotary,
    "cross_entropy": lambda logits, targets: F.cross_entropy(logits, targets),
    "cross_entropy_backward": _cross_entropy_backward,
    "sampling_distribution": _sampling_distribution,
}
