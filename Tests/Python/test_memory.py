"""Memory: no byte beyond the arrays is touched, and scratch does not grow with the sequence."""

import numpy as np
import pytest
import swiftattn
from support import DTYPES, guarded, normal, random_problem, run_python
from swiftattn import _ffi
from swiftattn._tensor import borrow

SIDES = ["left", "right"]


def run(function, *arguments, out):
    """Calls a C function on guarded arrays; an output also gets guarded pages."""
    getattr(_ffi, function)(
        *(borrow(x, "x") if isinstance(x, np.ndarray) else x for x in arguments), borrow(out, "out")
    )
    return out


def guarded_out(shape, dtype, side):
    return guarded(np.zeros(shape, dtype), side, writable=True)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(25))
def test_attention_in_guarded_pages(side, dtype, seed):
    rng = np.random.default_rng([0, seed])
    q, k, v, options = random_problem(rng, dtype, longest=90)
    expected = swiftattn.scaled_dot_product_attention(q, k, v, return_lse=True, **options)
    options = {
        name: guarded(value, side) if isinstance(value, np.ndarray) else value for name, value in options.items()
    }
    out = guarded_out(expected[0].shape, q.dtype, side)
    got = swiftattn.scaled_dot_product_attention(
        *(guarded(x, side) for x in (q, k, v)), out=out, return_lse=True, **options
    )
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [1, 3, 15, 17, 33, 64, 65, 80, 127])
def test_attention_outputs_in_guarded_pages(side, dtype, head_dim):
    rng = np.random.default_rng(head_dim)
    q, k, v = (normal(rng, (1, 2, length, head_dim), dtype) for length in (13, 37, 37))
    expected = swiftattn.scaled_dot_product_attention(q, k, v, return_lse=True, return_weights=True)
    outputs = [guarded_out(x.shape, x.dtype, side) for x in expected]
    _ffi.scaled_dot_product_attention(
        *(borrow(guarded(x, side), "x") for x in (q, k, v)), None, *(borrow(x, "out", True) for x in outputs)
    )
    for a, b in zip(outputs, expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_attention_in_guarded_pages(side, dtype):
    """Transposed and reversed views end at the guard page too."""
    rng = np.random.default_rng(1)
    q, k, v = (guarded(normal(rng, (2, 11, 3, 19), dtype), side).swapaxes(1, 2)[:, ::-1] for _ in range(3))
    out = guarded_out((2, 11, 3, 19), DTYPES[dtype], side).swapaxes(1, 2)
    expected = swiftattn.scaled_dot_product_attention(q.copy(), k.copy(), v.copy(), is_causal=True)
    swiftattn.scaled_dot_product_attention(q, k, v, is_causal=True, out=out)
    np.testing.assert_array_equal(out, expected)
    columns = [guarded(normal(rng, (2, 3, 19, 11), dtype), side).swapaxes(2, 3) for _ in range(3)]
    np.testing.assert_array_equal(
        swiftattn.scaled_dot_product_attention(*columns),
        swiftattn.scaled_dot_product_attention(*(x.copy() for x in columns)),
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_varlen_and_merge_in_guarded_pages(side, dtype):
    rng = np.random.default_rng(2)
    starts = np.array([0, 5, 5, 18, 35], np.int32)
    q, k, v = (normal(rng, (35, 2, 17), dtype) for _ in range(3))
    expected = swiftattn.attention_varlen(q, k, v, starts, starts, is_causal=True, return_lse=True)
    out = guarded_out(q.shape, q.dtype, side)
    got = swiftattn.attention_varlen(
        *(guarded(x, side) for x in (q, k, v, starts, starts)), is_causal=True, return_lse=True, out=out
    )
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(a, b)
    outs = [guarded(normal(rng, (3, 7), dtype), side) for _ in range(3)]
    lses = [guarded(normal(rng, (3,), "float64" if dtype == "float64" else "float32"), side) for _ in range(3)]
    for a, b in zip(
        swiftattn.merge_attention_states(outs, lses),
        swiftattn.merge_attention_states([x.copy() for x in outs], [x.copy() for x in lses]),
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rows, inner, columns", [(1, 1, 1), (1, 33, 17), (5, 7, 3), (13, 64, 31), (37, 65, 70), (6, 100, 129)]
)
def test_products_in_guarded_pages(side, dtype, rows, inner, columns):
    rng = np.random.default_rng(3)
    x, weight = normal(rng, (rows, inner), dtype), normal(rng, (columns, inner), dtype)
    bias, residual = normal(rng, (columns,), dtype), normal(rng, (rows, columns), dtype)
    expected = swiftattn.linear(x, weight, bias, residual=residual)
    out = guarded_out((rows, columns), x.dtype, side)
    run("linear", *(guarded(a, side) for a in (x, weight, bias, residual)), None, out=out)
    np.testing.assert_array_equal(out, expected)
    expected = swiftattn.matmul(x, weight.T)
    for right in (guarded(weight, side).T, guarded(np.ascontiguousarray(weight.T), side)):
        out = guarded_out((rows, columns), x.dtype, side)
        run("matmul", guarded(x, side), right, 0, out=out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 7, 15, 16, 17, 33, 63, 65, 130])
def test_rows_in_guarded_pages(side, dtype, length):
    rng = np.random.default_rng(length)
    x, up, weight = normal(rng, (3, length), dtype), normal(rng, (3, length), dtype), normal(rng, (length,), dtype)
    gx, gup, gweight = (guarded(a, side) for a in (x, up, weight))

    def check(expected, function, *arguments):
        out = guarded_out(expected.shape, expected.dtype, side)
        np.testing.assert_array_equal(run(function, *arguments, out=out), expected)

    check(swiftattn.softmax(x), "softmax", gx, -1)
    check(swiftattn.softmax(x, 0), "softmax", gx, 0)
    check(swiftattn.layer_norm(x, weight, weight), "layer_norm", gx, gweight, gweight, 1e-5)
    check(swiftattn.rms_norm(x, weight), "rms_norm", gx, gweight, 1e-6)
    check(swiftattn.relu(x), "relu", gx)
    check(swiftattn.gelu(x), "gelu", gx, 0)
    check(swiftattn.gelu(x, "tanh"), "gelu", gx, 1)
    check(swiftattn.silu(x), "silu", gx)
    check(swiftattn.swiglu(x, up), "swiglu", gx, gup)
    check(swiftattn.geglu(x, up), "geglu", gx, gup, 0)
    ids = guarded(np.array([2, 0, 1, 2], np.int32), side)
    check(swiftattn.embedding([2, 0, 1, 2], x, residual=weight), "embedding", ids, gx, gweight)
    run("sinusoidal_positions", out=guarded_out((3, length), np.float32, side))
    run("alibi_slopes", out=guarded_out((length,), np.float32, side))


@pytest.mark.once
@pytest.mark.parametrize("causal", [False, True])
def test_scratch_does_not_grow_with_the_sequence(causal):
    """32768 queries and keys of 64 floats: less than 64 MiB beyond inputs and outputs, where the scores are 4 GiB."""
    code = f"""
import resource
import numpy as np, swiftattn
x = np.random.default_rng(0).standard_normal((3, 1, 1, 32768, 64), np.float32)
out = np.zeros((1, 1, 32768, 64), np.float32)
swiftattn.scaled_dot_product_attention(*x[..., :8, :], out=out[..., :8, :])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
swiftattn.scaled_dot_product_attention(*x, is_causal={causal}, out=out)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    assert int(run_python(code)) < 64 * 1024


@pytest.mark.once
def test_calls_do_not_leak():
    code = """
import resource
import numpy as np, swiftattn
x = np.ones((2, 4, 50, 32), np.float32)
def calls(count):
    for _ in range(count):
        swiftattn.scaled_dot_product_attention(x, x, x, attn_mask=x[0, 0, :, :1], sinks=[0.0] * 4, return_lse=True)
        swiftattn.linear(x, x[0, 0], activation="gelu")
        swiftattn.merge_attention_states([x, x], [x[..., 0], x[..., 0]])
        try:
            swiftattn.softmax(x, axis=7)
        except ValueError:
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = calls(300)
print(calls(1500) - before)
"""
    assert int(run_python(code)) < 4 * 1024
