"""Gradients: float64 against central differences, other dtypes against float64, layouts, edge values, determinism."""

import numpy as np
import pytest
import swiftattn
from support import DTYPES, normal, strided
from swiftattn import _ffi
from swiftattn._tensor import borrow


def central_differences(function, arrays, index, grad_out):
    """d(sum of grad_out * function) / d arrays[index], to the fourth order in a step of 1e-3."""
    gradient = np.zeros_like(arrays[index])
    for place in np.ndindex(gradient.shape):
        value = 0.0
        for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = [array.copy() for array in arrays]
            moved[index][place] += steps * 1e-3
            value += weight * (function(*moved) * grad_out).sum()
        gradient[place] = value / 12e-3
    return gradient


def check_differences(function, arrays, grad_out, gradients):
    for index, got in enumerate(gradients):
        if got is None:
            continue
        exact = central_differences(function, arrays, index, grad_out)
        assert got.shape == exact.shape
        error = np.abs(got - exact).max()
        assert error <= 1e-7 * max(np.abs(exact).max(), 1e-3), (index, error)


def linear(activation=None):
    return lambda x, weight, bias: swiftattn.linear(x, weight, bias, activation=activation)


def linear_backward(activation=None):
    return lambda g, x, weight, bias: swiftattn.linear_backward(g, x, weight, bias, activation=activation)


def one(function):
    return lambda *arguments: (function(*arguments),)


TABLE = np.array([[2, 0, 2], [4, 2, 1]])
COS, SIN = swiftattn.rotary_tables(6, 4)
HIDDEN = np.array([[True, False, True, True], [False] * 4, [True] * 4])

# name: (function, gradients, shapes of the inputs)
OPERATORS = {
    "linear": (linear(), linear_backward(), [(2, 3, 4), (5, 4), (5,)]),
    "linear, relu": (linear("relu"), linear_backward("relu"), [(3, 4), (5, 4), (5,)]),
    "linear, gelu": (linear("gelu"), linear_backward("gelu"), [(3, 4), (5, 4), (5,)]),
    "linear, gelu_tanh": (linear("gelu_tanh"), linear_backward("gelu_tanh"), [(3, 4), (5, 4), (5,)]),
    "linear, silu": (linear("silu"), linear_backward("silu"), [(3, 4), (5, 4), (5,)]),
    "softmax": (
        swiftattn.softmax,
        lambda g, x: (swiftattn.softmax_backward(g, swiftattn.softmax(x)),),
        [(3, 7)],
    ),
    "softmax, axis 0": (
        lambda x: swiftattn.softmax(x, 0),
        lambda g, x: (swiftattn.softmax_backward(g, swiftattn.softmax(x, 0), 0),),
        [(5, 2, 3)],
    ),
    "layer_norm": (
        swiftattn.layer_norm,
        lambda g, x, w, b: swiftattn.layer_norm_backward(g, x, w),
        [(3, 2, 9), (9,), (9,)],
    ),
    "layer_norm, plain": (swiftattn.layer_norm, lambda g, x: swiftattn.layer_norm_backward(g, x)[:1], [(3, 9)]),
    "rms_norm": (swiftattn.rms_norm, lambda g, x, w: swiftattn.rms_norm_backward(g, x, w), [(3, 2, 9), (9,)]),
    "relu": (swiftattn.relu, one(swiftattn.relu_backward), [(3, 5)]),
    "gelu": (swiftattn.gelu, one(swiftattn.gelu_backward), [(3, 5)]),
    "gelu, tanh": (
        lambda x: swiftattn.gelu(x, "tanh"),
        lambda g, x: (swiftattn.gelu_backward(g, x, "tanh"),),
        [(3, 5)],
    ),
    "silu": (swiftattn.silu, one(swiftattn.silu_backward), [(3, 5)]),
    "swiglu": (swiftattn.swiglu, swiftattn.swiglu_backward, [(3, 5), (3, 5)]),
    "geglu": (swiftattn.geglu, swiftattn.geglu_backward, [(3, 5), (3, 5)]),
    "geglu, tanh": (
        lambda x, up: swiftattn.geglu(x, up, "tanh"),
        lambda g, x, up: swiftattn.geglu_backward(g, x, up, "tanh"),
        [(3, 5), (3, 5)],
    ),
    "rotary": (
        lambda x: swiftattn.rotary_embedding(x, COS, SIN),
        lambda g, x: (swiftattn.rotary_embedding_backward(g, COS, SIN),),
        [(2, 4, 8)],
    ),
    "embedding": (
        lambda table: swiftattn.embedding(TABLE, table),
        lambda g, table: (swiftattn.embedding_backward(g, TABLE, 5),),
        [(5, 3)],
    ),
    "dropout": (
        lambda x: swiftattn.dropout(x, 0.4, seed=3),
        lambda g, x: (swiftattn.dropout_backward(g, 0.4, seed=3),),
        [(4, 9)],
    ),
    "additive_attention": (
        swiftattn.additive_attention,
        swiftattn.additive_attention_backward,
        [(2, 3, 4), (2, 4, 5), (2, 4, 6), (7, 4), (7, 5), (7,)],
    ),
    "additive_attention, masked": (
        lambda *inputs: swiftattn.additive_attention(*inputs, HIDDEN),
        lambda g, *inputs: swiftattn.additive_attention_backward(g, *inputs, HIDDEN),
        [(3, 2), (4, 2), (4, 1), (35, 2), (35, 2), (35,)],
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_central_differences(name):
    function, backward, shapes = OPERATORS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    if "relu" in name:
        arrays[0] += np.copysign(0.01, arrays[0])  # not across the kink
    grad_out = rng.standard_normal(function(*arrays).shape)
    check_differences(function, arrays, grad_out, backward(grad_out, *arrays))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_other_dtypes(name, dtype):
    """Against float64 of the same numbers; sums and products in float32 and one rounding, or a few where z is kept."""
    _, backward, shapes = OPERATORS[name]
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(DTYPES[dtype]) for shape in shapes]
    forward = OPERATORS[name][0]
    grad_out = rng.standard_normal(forward(*arrays).shape).astype(DTYPES[dtype])
    exact = backward(grad_out.astype(np.float64), *(array.astype(np.float64) for array in arrays))
    tolerance = {"float32": 3e-6, "float16": 3e-3, "bfloat16": 3e-2}[dtype]
    for got, wanted in zip(backward(grad_out, *arrays), exact):
        assert got.dtype == DTYPES[dtype] and got.shape == wanted.shape
        np.testing.assert_allclose(got.astype(np.float64), wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("name", OPERATORS)
def test_layouts(name):
    _, backward, shapes = OPERATORS[name]
    rng = np.random.default_rng(2)
    for dtype in ("float32", "bfloat16"):
        arrays = [normal(rng, shape, dtype) for shape in shapes]
        grad_out = normal(rng, OPERATORS[name][0](*arrays).shape, dtype)
        expected = backward(grad_out, *arrays)
        for _ in range(4):
            got = backward(strided(rng, grad_out), *(strided(rng, array) for array in arrays))
            for a, b in zip(got, expected):
                np.testing.assert_array_equal(a, b)


def rows_of(count, columns, dtype="float32"):
    rng = np.random.default_rng(count)
    return [normal(rng, (count, columns), dtype) for _ in range(2)] + [normal(rng, columns, dtype)]


@pytest.mark.parametrize("count, columns", [(0, 5), (1, 1), (63, 17), (64, 33), (65, 1), (129, 300), (1000, 7)])
def test_sums_over_rows(count, columns):
    """Chunks of 64 rows and what is left behind them."""
    x, g, weight = rows_of(count, columns, "float64")
    h = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(swiftattn.rms_norm_backward(g, x, weight)[1], (g * h).sum(0), atol=1e-11)
    np.testing.assert_allclose(swiftattn.layer_norm_backward(g, x, weight)[2], g.sum(0), atol=1e-11)
    other = np.ones((3, columns))
    dx, dweight, dbias = swiftattn.linear_backward(g[:, :3], x, other[: g[:, :3].shape[1]])
    np.testing.assert_allclose(dbias, g[:, :3].sum(0), atol=1e-11)
    np.testing.assert_allclose(dweight, g[:, :3].T @ x, atol=1e-11)
    ids = np.arange(count) * 7 % 5
    exact = np.zeros((6, columns))
    np.add.at(exact, ids, g)
    np.testing.assert_allclose(swiftattn.embedding_backward(g, ids, 6), exact, atol=1e-11)


def everything(x, g, weight):
    ids = (np.arange(len(x)) * 7 % 11).astype(np.int32)
    y = swiftattn.softmax(x)
    return [
        *swiftattn.layer_norm_backward(g, x, weight),
        *swiftattn.rms_norm_backward(g, x, weight),
        *swiftattn.linear_backward(g, x, np.eye(x.shape[1], dtype=x.dtype), weight, activation="gelu"),
        swiftattn.softmax_backward(g, y),
        swiftattn.gelu_backward(g, x),
        *swiftattn.swiglu_backward(g, x, y),
        swiftattn.embedding_backward(g, ids, 11),
        swiftattn.dropout(x, 0.3, seed=1),
        *swiftattn.additive_attention_backward(
            g[:40], x[:40], x[:70], y[:70], np.eye(x.shape[1], dtype=x.dtype), np.eye(x.shape[1], dtype=x.dtype), weight
        ),
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_do_not_matter(dtype):
    arrays = rows_of(2000, 130, dtype)
    before = swiftattn.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 16):
            swiftattn.set_num_threads(threads)
            results.append(everything(*arrays))
    finally:
        swiftattn.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_array_equal(
                np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8)
            )


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu, tanh", "silu"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_slopes_over_their_range(name, dtype):
    backward = OPERATORS[name][1]
    x = np.array([-np.inf, -3e4, -700, -104, -89, -30, -14.9, -0.0, 0, 1e-30, 30, 104, 3e4, np.inf], DTYPES[dtype])
    expected = np.where(x > 0, 1, 0) if name == "relu" else np.where(x > 1, 1, np.where(np.abs(x) < 1, 0.5, 0))
    got = backward(np.ones_like(x), x)[0].astype(float)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.isnan(backward(np.ones_like(x[:1]), np.full_like(x[:1], np.nan))[0]) or name == "relu"
    # In float32 against float64, relative to the largest slope.
    x = np.linspace(-15, 15, 6001).astype(DTYPES[dtype])
    exact = backward(np.ones(6001), x.astype(np.float64))[0]
    got = backward(np.ones_like(x), x)[0].astype(np.float64)
    tolerance = {"float64": 0, "float32": 3e-7, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    np.testing.assert_allclose(got, exact, atol=tolerance)


def test_constant_rows():
    x, g = np.full((2, 5), 3.0), np.random.default_rng(0).standard_normal((2, 5))
    dx, dweight, dbias = swiftattn.layer_norm_backward(g, x)
    np.testing.assert_allclose(dx, (g - g.mean(-1, keepdims=True)) / np.sqrt(1e-5))
    assert not dweight.any()
    np.testing.assert_allclose(dbias, g.sum(0))
    assert not swiftattn.rms_norm_backward(g, 0 * x)[1].any()


def test_nan_stays_in_its_row():
    x, g, weight = rows_of(70, 40)
    broken = x.copy()
    broken[3, 5] = np.nan
    for backward in (swiftattn.layer_norm_backward, swiftattn.rms_norm_backward):
        good, bad = backward(g, x, weight)[0], backward(g, broken, weight)[0]
        np.testing.assert_array_equal(np.delete(good, 3, 0), np.delete(bad, 3, 0))
        assert np.isnan(bad[3]).all()


def test_float32_weights_of_half_rows():
    x, g, weight = rows_of(100, 24, "bfloat16")
    wide = weight.astype(np.float32)
    dx, dweight, dbias = swiftattn.layer_norm_backward(g, x, wide)
    assert dx.dtype == x.dtype and dweight.dtype == dbias.dtype == np.float32
    exact = swiftattn.layer_norm_backward(*(array.astype(np.float64) for array in (g, x, wide)))
    np.testing.assert_allclose(dweight, exact[1], atol=1e-5 * np.abs(exact[1]).max())


def test_empty_arrays():
    nothing = np.zeros((0, 4), np.float32)
    weight = np.ones((3, 4), np.float32)
    dx, dweight, dbias = swiftattn.linear_backward(np.zeros((0, 3), np.float32), nothing, weight, activation="relu")
    assert dx.shape == (0, 4) and not dweight.any() and not dbias.any()
    for backward in (swiftattn.layer_norm_backward, swiftattn.rms_norm_backward):
        results = backward(nothing, nothing)
        assert results[0].shape == (0, 4) and not results[1].any()
        assert backward(nothing.T, nothing.T)[1].shape == (0,)
    assert not swiftattn.embedding_backward(nothing, np.zeros(0, np.int64), 5).any()
    assert swiftattn.softmax_backward(nothing, nothing).shape == (0, 4)
    assert swiftattn.gelu_backward(nothing, nothing).shape == (0, 4)


def test_linear_with_a_kept_pre_activation():
    rng = np.random.default_rng(4)
    x, weight, bias, g = (normal(rng, shape) for shape in ((6, 5), (7, 5), (7,), (6, 7)))
    for activation in ("relu", "gelu", "gelu_tanh", "silu"):
        again = swiftattn.linear_backward(g, x, weight, bias, activation=activation)
        kept = swiftattn.linear_backward(
            g, x, weight, activation=activation, pre_activation=swiftattn.linear(x, weight, bias)
        )
        for a, b in zip(again, kept):
            np.testing.assert_array_equal(a, b)


def test_dropout():
    x = np.ones((500, 401), np.float32)
    for p in (0.0, 0.1, 0.5, 0.999):
        y = swiftattn.dropout(x, p, seed=9)
        kept = (y != 0).mean()
        assert abs(kept - (1 - p)) < 4 * np.sqrt(p * (1 - p) / x.size) + 1e-12
        np.testing.assert_allclose(y[y != 0], 1 / (1 - p), rtol=1e-6)
    y = swiftattn.dropout(x, 0.5, seed=9)
    assert (swiftattn.dropout(x, 0.5, seed=9, draw=1) != y).any()
    assert (swiftattn.dropout(x, 0.5, seed=10) != y).any()
    # The mask belongs to the element's number, not to the layout; words of Philox4x32-10 with all bits 0.
    np.testing.assert_array_equal(swiftattn.dropout(np.asfortranarray(x), 0.5, seed=9), y)
    np.testing.assert_array_equal(swiftattn.dropout(x[:3, :7].copy(), 0.5, seed=9).ravel(), y.ravel()[:21])
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    got = swiftattn.dropout(np.ones(4), 0.5, seed=0)
    assert got.tolist() == [0.0 if word < 2**31 else 2.0 for word in words]
    assert swiftattn.dropout(x, 0.5, seed=9, out=x) is x
    np.testing.assert_array_equal(x, y)
    assert swiftattn.dropout(np.zeros((0, 3), np.float32), seed=1).shape == (0, 3)


def test_in_place():
    """Outputs that may be inputs, through the C functions."""
    rng = np.random.default_rng(6)
    for dtype in ("float32", "bfloat16"):
        g, x, up = (normal(rng, (5, 40), dtype) for _ in range(3))
        calls = {
            "softmax_backward": ([g, x], [-1], 1),
            "layer_norm_backward": ([g, x], [None, 1e-5], 3),
            "rms_norm_backward": ([g, x], [None, 1e-5], 2),
            "relu_backward": ([g, x], [], 1),
            "gelu_backward": ([g, x], [0], 1),
            "silu_backward": ([g, x], [], 1),
            "swiglu_backward": ([g, x, up], [], 2),
            "geglu_backward": ([g, x, up], [0], 2),
        }
        for name, (inputs, numbers, outputs) in calls.items():
            function = getattr(_ffi, name)

            def run(arrays, first, second=None):
                rest = [borrow(second, "second")] if second is not None else [None] * (outputs - 1)
                function(*(borrow(array, "input") for array in arrays), *numbers, borrow(first, "first"), *rest)

            gated = len(inputs) == 3
            expected, other = np.empty_like(g), np.empty_like(g) if gated else None
            run(inputs, expected, other)
            for place in range(len(inputs)):
                arrays = [array.copy() for array in inputs]
                second = arrays[(place + 1) % 3] if gated else None
                run(arrays, arrays[place], second)
                np.testing.assert_array_equal(arrays[place], expected)
                if gated:
                    np.testing.assert_array_equal(second, other)
