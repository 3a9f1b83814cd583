"""The public conformance suite: every single-node ONNX case of the operators that swiftattn has.

The adapters hold ONNX plumbing only: layouts, concatenation of past and present, the names of options. The same cases
also go through the float64 reference, so that library and reference answer to one judge.
"""

import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import swiftattn
from onnx.helper import get_attribute_value

COUNTS = {"Attention": 93, "RMSNormalization": 19, "LayerNormalization": 19, "Softmax": 7, "Gelu": 4}


def _load():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other operators' cases overflow on purpose while they are made
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    return [case for case in cases if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in COUNTS]


CASES = _load()


def _reference_attention(query, key, value, attn_mask, stage, **options):
    result = reference.attention(query, key, value, attn_mask, **options)
    weights = {True: result.weights, "scaled": result.scaled, "capped": result.capped, "biased": result.biased}
    return result.out.astype(query.dtype), weights[stage].astype(query.dtype)


def _library_attention(query, key, value, attn_mask, stage, **options):
    return swiftattn.scaled_dot_product_attention(query, key, value, attn_mask, return_weights=stage, **options)


def _rounded(function):
    """The reference's function with the dtype of its first argument as result."""
    return lambda x, *rest: function(x, *rest).astype(x.dtype)


ROWS = ("rms_norm", "layer_norm", "softmax", "gelu")
ENGINES = {
    "library": SimpleNamespace(attention=_library_attention, **{name: getattr(swiftattn, name) for name in ROWS}),
    "reference": SimpleNamespace(
        attention=_reference_attention, **{name: _rounded(getattr(reference, name)) for name in ROWS}
    ),
}


def _attention(engine, attributes, inputs, outputs):
    query, key, value, mask, past_key, past_value, nonpad = (inputs + [None] * 7)[:7]
    packed = query.ndim == 3
    if packed:  # (B, T, H * D) to (B, H, T, D)
        heads = attributes["q_num_heads"], attributes["kv_num_heads"], attributes["kv_num_heads"]
        query, key, value = (
            x.reshape(x.shape[0], x.shape[1], n, -1).swapaxes(1, 2) for x, n in zip((query, key, value), heads)
        )
    offset = 0
    if past_key is not None:
        offset = past_key.shape[2]
        key = np.concatenate((past_key, key), axis=2)
        value = np.concatenate((past_value, value), axis=2)
    elif nonpad is not None:
        offset = nonpad - query.shape[2]
    if mask is not None and mask.shape[-1] < key.shape[2]:  # the missing columns are hidden
        widths = [(0, 0)] * (mask.ndim - 1) + [(0, key.shape[2] - mask.shape[-1])]
        mask = np.pad(mask, widths, constant_values=False if mask.dtype == bool else -np.inf)
    out, weights = engine.attention(
        query,
        key,
        value,
        mask,
        ("scaled", "capped", "biased", True)[attributes.get("qk_matmul_output_mode", 0)],
        is_causal=bool(attributes.get("is_causal", 0)),
        scale=attributes.get("scale"),
        softcap=attributes.get("softcap", 0.0),
        window=(attributes.get("left_window_size", -1), attributes.get("right_window_size", -1)),
        query_offset=offset,
        kv_lengths=nonpad,
    )
    if packed:
        out = out.swapaxes(1, 2).reshape(out.shape[0], out.shape[2], -1)
    return [out, key, value, weights][: len(outputs)]


def _rows(x, attributes):
    """x (..., N) with the normalised dims as one."""
    axis = attributes.get("axis", -1) % x.ndim
    return x.reshape(x.shape[:axis] + (-1,)), x.shape[:axis] + (1,) * (x.ndim - axis)


def _rms_normalization(engine, attributes, inputs, outputs):
    x, weight = inputs
    rows, _ = _rows(x, attributes)
    return [engine.rms_norm(rows, weight.reshape(-1), attributes.get("epsilon", 1e-5)).reshape(x.shape)]


def _layer_normalization(engine, attributes, inputs, outputs):
    x, weight, bias = inputs
    rows, kept = _rows(x, attributes)
    eps = attributes.get("epsilon", 1e-5)
    y = engine.layer_norm(rows, weight.reshape(-1), bias.reshape(-1), eps).reshape(x.shape)
    # Mean and InvStdDev are read off a normalised row, which is (row - Mean) * InvStdDev: two of its points tell both.
    wide = rows.astype(np.float64)
    line = engine.layer_norm(wide, None, None, eps)
    low, high = wide.argmin(-1)[..., None], wide.argmax(-1)[..., None]
    x0, x1, y0, y1 = (np.take_along_axis(a, at, -1) for a in (wide, line) for at in (low, high))
    inverse = (y1 - y0) / (x1 - x0)
    mean = x1 - y1 / inverse
    return [y, mean.reshape(kept).astype(x.dtype), inverse.reshape(kept).astype(x.dtype)][: len(outputs)]


def _softmax(engine, attributes, inputs, outputs):
    return [engine.softmax(inputs[0], attributes.get("axis", -1))]


def _gelu(engine, attributes, inputs, outputs):
    return [engine.gelu(inputs[0], attributes.get("approximate", b"none").decode())]


ADAPTERS = {
    "Attention": _attention,
    "RMSNormalization": _rms_normalization,
    "LayerNormalization": _layer_normalization,
    "Softmax": _softmax,
    "Gelu": _gelu,
}


def _assert_similar(got, expected, rtol, atol):
    """The rule of onnx.backend.test.runner."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if got.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)
        got, expected = got.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def test_all_cases_are_here():
    assert Counter(case.model.graph.node[0].op_type for case in CASES) == COUNTS


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.removeprefix("test_"))
def test_onnx(case, engine):
    node = case.model.graph.node[0]
    attributes = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    for inputs, expected in case.data_sets:
        present = iter(inputs)
        inputs = [next(present) if name else None for name in node.input]
        wanted = [index for index, name in enumerate(node.output) if name]
        outputs = ADAPTERS[node.op_type](ENGINES[engine], attributes, inputs, node.output)
        assert len(wanted) == len(expected)
        for index, reference_output in zip(wanted, expected):
            _assert_similar(outputs[index], reference_output, case.rtol, case.atol)
