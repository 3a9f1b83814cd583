"""swiftattn through its Python binding on NumPy arrays; the cases "from C" loop in C over the C ABI."""

from __future__ import annotations

import ctypes
from functools import partial
from operator import itemgetter
from typing import Any, Callable

import numpy as np
import swiftattn
from swiftattn import _ffi, _tensor

import compiler
from cases import GRADIENT_KERNELS, ROW_KERNELS, SAMPLING, Case

from . import Call

REPEATS_FROM_C = 1000

_FUNCTIONS = (*ROW_KERNELS, *GRADIENT_KERNELS, "embedding", "rotary_embedding", "cross_entropy")
_SEVERAL_RESULTS = {"layer_norm_backward": 0, "cross_entropy_backward": 1}  # and which of them is checked


def start(threads: int) -> dict[str, Any]:
    swiftattn.set_num_threads(threads)
    facts = swiftattn.cpu_info()
    return {"version": facts["version"], "isa": facts["isa"]}


def formulations(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Callable[[], Call]]:
    if case.operation == "attention_from_c":
        return {"C ABI": partial(_from_c, inputs)} if compiler.available() else {}
    if case.operation == "attention_training":
        return {"forward and backward": lambda: _training(case, **inputs)}
    if case.operation == "attention_cached":
        return {"KVCache.attend": partial(_cached, case, **inputs)}
    if case.operation == "attention_paged":
        return {"attention_paged": partial(_paged, **inputs)}
    if case.is_attention:
        function = partial(swiftattn.scaled_dot_product_attention, is_causal=case.causal, precision=case.precision)
        return {"scaled_dot_product_attention": lambda: _call(partial(function, *inputs.values()))}
    if case.operation == "linear":
        linear = partial(swiftattn.linear, inputs["x"], precision=case.precision)
        return {
            "linear": lambda: _call(partial(linear, inputs["weight"])),
            "weight packed": lambda: _call(partial(linear, swiftattn.PackedWeight(inputs["weight"]))),
        }
    if case.operation == "linear_backward":
        run = partial(swiftattn.linear_backward, *inputs.values())
        return {"linear_backward": lambda: Call(run, lambda grads: np.concatenate(grads[:2]))}
    if case.operation == "embedding_backward":
        return {"embedding_backward": lambda: _call(partial(swiftattn.embedding_backward, **inputs, rows=case.shape[1]))}
    if case.operation == "sampling_distribution":
        return {"top k, top p": lambda: _call(partial(swiftattn.sampling_distribution, **inputs, **SAMPLING))}
    if case.operation in _SEVERAL_RESULTS:
        run = partial(getattr(swiftattn, case.operation), **inputs)
        return {case.operation: lambda: Call(run, itemgetter(_SEVERAL_RESULTS[case.operation]))}
    if case.operation in _FUNCTIONS:
        return {case.operation: lambda: _call(partial(getattr(swiftattn, case.operation), *inputs.values()))}
    return {}


def _call(run: Callable[[], np.ndarray]) -> Call:
    return Call(run, np.asarray)


def _training(case: Case, query: np.ndarray, key: np.ndarray, value: np.ndarray, grad_out: np.ndarray) -> Call:
    def run() -> tuple[np.ndarray, ...]:
        state = swiftattn.scaled_dot_product_attention(query, key, value, is_causal=case.causal, return_lse=True)
        return swiftattn.scaled_dot_product_attention_backward(
            grad_out, query, key, value, *state, is_causal=case.causal
        )

    return Call(run, lambda grads: np.concatenate([grad.reshape(-1, grad.shape[-1]) for grad in grads]))


def _cached(case: Case, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> Call:
    batch, _, kv_heads, _, length, dim = case.shape
    cache = swiftattn.KVCache(batch, kv_heads, length, dim, dtype=case.storage)
    cache.append(key, value)
    return _call(partial(cache.attend, query))


def _paged(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> Call:
    """Blocks of 16 tokens, in no order."""
    batch, heads, length, dim = key.shape
    size, count = 16, length // 16
    order = np.random.default_rng(0).permutation(batch * count)
    caches = [np.empty((batch * count, size, heads, dim), key.dtype) for _ in range(2)]
    for cache, array in zip(caches, (key, value)):
        blocks = array.reshape(batch, heads, count, size, dim).transpose(0, 2, 3, 1, 4)
        cache[order] = blocks.reshape(batch * count, size, heads, dim)
    table = order.reshape(batch, count).astype(np.int32)
    lengths = np.full(batch, length, np.int32)
    return _call(partial(swiftattn.attention_paged, query, *caches, table, lengths))


def _from_c(inputs: dict[str, np.ndarray]) -> Call:
    library = compiler.load("calls.c", "-I", str(compiler.INCLUDE))
    result = np.empty_like(inputs["query"])
    query, key, value = (_tensor.borrow(inputs[name], name) for name in ("query", "key", "value"))
    out = _tensor.borrow(result, "out", writable=True)
    function = ctypes.cast(_ffi.scaled_dot_product_attention, ctypes.c_void_p)
    repeat = partial(
        library.repeat_attention,
        function,
        *map(ctypes.byref, (query, key, value, out)),
        ctypes.c_int64(REPEATS_FROM_C),
    )

    def run() -> np.ndarray:
        if repeat():
            raise ValueError(_ffi.last_error().decode())
        return result

    return Call(run, np.asarray, REPEATS_FROM_C)
