"""Any strides: permuted, reversed, repeated, with gaps, and further apart than 2^31 elements."""

import mmap

import numpy as np
import pytest
import swiftattn
from support import DTYPES, normal, random_problem, strided


def bits(array):
    """Compares equal bit by bit, NaN included."""
    return np.ascontiguousarray(array).view(np.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(12))
def test_attention_does_not_see_the_layout(dtype, seed):
    rng = np.random.default_rng([0, seed])
    q, k, v, options = random_problem(rng, dtype)
    expected = swiftattn.scaled_dot_product_attention(q, k, v, return_lse=True, return_weights=True, **options)
    moved = {name: strided(rng, value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
    out = strided(rng, np.zeros_like(expected[0]))
    got = swiftattn.scaled_dot_product_attention(
        *(strided(rng, x) for x in (q, k, v)), return_lse=True, return_weights=True, out=out, **moved
    )
    assert got[0] is out
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(bits(a), bits(b))


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_strides(dtype):
    rng = np.random.default_rng(1)
    base = normal(rng, (1, 2, 1, 8), dtype)
    q = np.broadcast_to(normal(rng, (1, 4, 6, 1), dtype), (3, 4, 6, 8))
    k = np.broadcast_to(base, (3, 2, 9, 8))
    v = np.broadcast_to(normal(rng, (3, 1, 9, 8), dtype), (3, 2, 9, 8))
    np.testing.assert_array_equal(
        bits(swiftattn.scaled_dot_product_attention(q, k, v, is_causal=True)),
        bits(swiftattn.scaled_dot_product_attention(q.copy(), k.copy(), v.copy(), is_causal=True)),
    )


def test_token_major_layout_is_a_view():
    """(B, T, H, D) as projections leave it, without a copy on either side."""
    rng = np.random.default_rng(2)
    q, k, v = (normal(rng, (2, 10, 3, 8)) for _ in range(3))
    out = np.empty((2, 10, 3, 8), np.float32)
    swiftattn.scaled_dot_product_attention(*(x.swapaxes(1, 2) for x in (q, k, v)), out=out.swapaxes(1, 2))
    expected = swiftattn.scaled_dot_product_attention(*(x.swapaxes(1, 2).copy() for x in (q, k, v)))
    np.testing.assert_array_equal(out.swapaxes(1, 2), expected)


FUNCTIONS = {
    "matmul": (lambda a, b: swiftattn.matmul(a, b), [(2, 5, 7), (7, 6)]),
    "linear": (
        lambda *a: swiftattn.linear(*a[:3], residual=a[3], activation="gelu"),
        [(2, 5, 7), (6, 7), (6,), (5, 6)],
    ),
    "softmax": (lambda x: swiftattn.softmax(x), [(3, 4, 9)]),
    "softmax axis 0": (lambda x: swiftattn.softmax(x, 0), [(9, 4, 3)]),
    "softmax axis 1": (lambda x: swiftattn.softmax(x, 1), [(3, 9, 4)]),
    "layer_norm": (lambda *a: swiftattn.layer_norm(*a), [(3, 4, 9), (9,), (9,)]),
    "rms_norm": (lambda *a: swiftattn.rms_norm(*a), [(3, 4, 9), (9,)]),
    "relu": (lambda x: swiftattn.relu(x), [(3, 4, 5)]),
    "gelu": (lambda x: swiftattn.gelu(x), [(3, 4, 5)]),
    "silu": (lambda x: swiftattn.silu(x), [(3, 4, 5)]),
    "swiglu": (lambda *a: swiftattn.swiglu(*a), [(3, 4, 5), (3, 4, 5)]),
    "geglu": (lambda *a: swiftattn.geglu(*a, "tanh"), [(3, 4, 5), (3, 4, 5)]),
    "embedding": (lambda t, r: swiftattn.embedding([[2, 0], [1, 2]], t, residual=r), [(3, 8), (2, 8)]),
    "merge": (
        lambda *a: swiftattn.merge_attention_states(a[:2], [a[2].astype(lse_dtype(a)), a[3].astype(lse_dtype(a))])[0],
        [(3, 4, 5), (3, 4, 5), (3, 4), (3, 4)],
    ),
}


def lse_dtype(arrays):
    return np.float64 if arrays[0].dtype == np.float64 else np.float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_functions_do_not_see_the_layout(name, dtype, seed):
    rng = np.random.default_rng(seed)
    function, shapes = FUNCTIONS[name]
    inputs = [normal(rng, shape, dtype) for shape in shapes]
    np.testing.assert_array_equal(bits(function(*(strided(rng, x) for x in inputs))), bits(function(*inputs)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_with_broadcast_inputs(name, dtype):
    rng = np.random.default_rng(9)
    function, shapes = FUNCTIONS[name]
    inputs = [np.broadcast_to(normal(rng, (*shape[:-1], 1), dtype), shape) for shape in shapes]
    np.testing.assert_array_equal(bits(function(*inputs)), bits(function(*(x.copy() for x in inputs))))


MAP_NORESERVE = 0x4000  # Linux's; Python's mmap has no name for it before 3.13


def far_apart(array, axis, gap):
    """A copy whose neighbours on `axis` lie `gap` bytes apart, in memory that is only reserved."""
    lead = np.moveaxis(array, axis, 0)
    memory = mmap.mmap(-1, gap * len(lead), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    inner = np.ascontiguousarray(lead[0]).strides
    view = np.moveaxis(np.ndarray(lead.shape, array.dtype, memory, 0, (gap, *inner)), 0, axis)
    view[...] = array
    return view


@pytest.mark.once
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_offsets_beyond_31_bits(axis):
    """3 slices lie 2^33 bytes apart: the offset of the last is 2^32 float32 elements."""
    rng = np.random.default_rng(3)
    q, k, v = (normal(rng, (3, 3, 3, 3)) for _ in range(3))
    expected = swiftattn.scaled_dot_product_attention(q, k, v)
    out = far_apart(np.zeros_like(q), axis, 2**33)
    swiftattn.scaled_dot_product_attention(*(far_apart(x, axis, 2**33) for x in (q, k, v)), out=out)
    np.testing.assert_array_equal(out, expected)
    flipped = [far_apart(np.flip(x, axis), axis, 2**33) for x in (q, k, v)]
    np.testing.assert_array_equal(
        swiftattn.scaled_dot_product_attention(*(np.flip(x, axis) for x in flipped)), expected
    )


@pytest.mark.once
def test_offsets_beyond_31_bits_elsewhere():
    rng = np.random.default_rng(4)
    x, weight = normal(rng, (3, 5)), normal(rng, (4, 5))
    far_x, far_weight = far_apart(x, 0, 2**33), far_apart(weight, 0, 2**33)
    np.testing.assert_array_equal(swiftattn.linear(far_x, far_weight), swiftattn.linear(x, weight))
    np.testing.assert_array_equal(swiftattn.matmul(far_x, far_weight.T), swiftattn.matmul(x, weight.T))
    np.testing.assert_array_equal(swiftattn.softmax(far_x), swiftattn.softmax(x))
    np.testing.assert_array_equal(swiftattn.softmax(far_x, 0), swiftattn.softmax(x, 0))
    np.testing.assert_array_equal(swiftattn.layer_norm(far_x), swiftattn.layer_norm(x))
    np.testing.assert_array_equal(swiftattn.rms_norm(far_x), swiftattn.rms_norm(x))
    np.testing.assert_array_equal(swiftattn.silu(far_x), swiftattn.silu(x))
    np.testing.assert_array_equal(swiftattn.embedding([3, 0], far_weight), weight[[3, 0]])
    mask = far_apart(normal(rng, (3, 4)), 0, 2**33)
    q, k = x[None], weight[None]
    np.testing.assert_array_equal(
        swiftattn.scaled_dot_product_attention(q, k, k, mask),
        swiftattn.scaled_dot_product_attention(q, k, k, mask.copy()),
    )


@pytest.mark.once
def test_more_keys_than_31_bits_count():
    """2^31 + 64 keys (one row, repeated by a zero stride), of which a window or a length shows a few."""
    rng = np.random.default_rng(5)
    many = 2**31 + 64
    q, k, v = (normal(rng, (1, 2, length, 8)) for length in (3, 1, 1))
    long_k, long_v = (np.broadcast_to(x, (1, 2, many, 8)) for x in (k, v))
    few_k, few_v = (np.broadcast_to(x, (1, 2, 4, 8)) for x in (k, v))
    expected = swiftattn.scaled_dot_product_attention(q, few_k, few_v)
    for options in (
        dict(window=(3, 0), query_offset=2**31 + 5, is_causal=True),
        dict(kv_lengths=[4]),
        dict(window=(3, None), is_causal="lower_right"),
    ):
        np.testing.assert_allclose(
            swiftattn.scaled_dot_product_attention(q, long_k, long_v, **options), expected, rtol=1e-6
        )
