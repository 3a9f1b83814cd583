"""Accuracy under stress: large scores, long sums, the precision words, each dtype's range."""

import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, assert_accurate, check_attention, normal, plain


def attend(query, key, value, **options):
    return swiftattn.scaled_dot_product_attention(query, key, value, return_lse=True, return_weights=True, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("size", [1e4, -1e4, 30.0, 88.0, 700.0])
def test_scores_of_this_size(dtype, size):
    rng = np.random.default_rng(0)
    q, k, v = (normal(rng, (2, 2, length, 16), dtype) for length in (12, 40, 40))
    scale = size / np.abs(reference.attention(q, k, v, scale=1.0).scaled).max()
    check_attention(attend(q, k, v, scale=scale), q, k, v, scale=scale)


def test_all_scores_large_and_close():
    """The softmax subtracts the maximum before it loses anything: +-1e4 with differences of a few units."""
    rng = np.random.default_rng(1)
    q = np.full((1, 1, 4, 1), 1, np.float32)
    for size in (1e4, -1e4):
        k = (size + rng.integers(-3, 4, (1, 1, 300, 1))).astype(np.float32)
        v = normal(rng, (1, 1, 300, 8))
        check_attention(attend(q, k, v, scale=1.0), q, k, v, scale=1.0)


@pytest.mark.parametrize("ascending", [True, False])
def test_running_maximum(ascending):
    """Scores that rise (or fall) from key to key rescale the running sums at every step."""
    rng = np.random.default_rng(2)
    q = np.ones((1, 1, 3, 1), np.float32)
    k = np.linspace(-60, 60, 1000, dtype=np.float32)[:: 1 if ascending else -1].reshape(1, 1, 1000, 1)
    v = normal(rng, (1, 1, 1000, 16))
    check_attention(attend(q, k, v, scale=1.0), q, k, v, scale=1.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_rows(dtype):
    rng = np.random.default_rng(3)
    q, k, v = (normal(rng, (1, 2, length, 32), dtype) for length in (5, 5000, 5000))
    check_attention(attend(q, k, v), q, k, v)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_at_the_edge_of_the_range(dtype):
    rng = np.random.default_rng(4)
    largest = float(np.finfo(np.float16).max) if dtype == "float16" else 3e38
    q, k = (normal(rng, (1, 1, length, 8), dtype) for length in (4, 6))
    v = (rng.uniform(-1, 1, (1, 1, 6, 8)) * largest / 2).astype(DTYPES[dtype])
    check_attention(attend(q, k, v), q, k, v)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_denormal_values(dtype):
    rng = np.random.default_rng(5)
    q, k = (normal(rng, (1, 1, length, 8), dtype) for length in (4, 6))
    v = np.full((1, 1, 6, 8), 1e-310 if dtype == "float64" else 1e-39, DTYPES[dtype])
    out = swiftattn.scaled_dot_product_attention(q, k, v)
    # Instructions for bfloat16 products take subnormal numbers for 0: swiftattn.h says so.
    lost = 2.0**-126 if dtype == "bfloat16" else 0
    np.testing.assert_allclose(out.astype(np.float64), v[:, :, :4].astype(np.float64), rtol=1e-2, atol=lost)


def test_float16_sums_do_not_overflow():
    """Products and sums are float32: 512 products of 200 * 200 are far beyond float16."""
    q = np.full((1, 1, 2, 512), 200, np.float16)
    k = np.full((1, 1, 3, 512), 200, np.float16)
    v = np.array([1, 2, 6], np.float16).reshape(1, 1, 3, 1)
    out, lse = swiftattn.scaled_dot_product_attention(q, k, v, return_lse=True)
    np.testing.assert_array_equal(out, np.full((1, 1, 2, 1), 3, np.float16))
    np.testing.assert_allclose(lse, 512 * 40000 / np.sqrt(512) + np.log(3), rtol=1e-6)


@pytest.mark.parametrize("precision, bits", [("highest", 23), ("high", 15), ("medium", 7)])
def test_precision_words(precision, bits):
    """Each word bounds the error by its significand bits; the default is the best of them."""
    rng = np.random.default_rng(6)
    q, k, v = (normal(rng, (2, 2, length, 64)) for length in (40, 70, 70))
    exact = reference.attention(q, k, v).out
    got = swiftattn.scaled_dot_product_attention(q, k, v, precision=precision)
    assert np.sqrt(np.mean((got - exact) ** 2)) <= 2.0**-bits * 2
    a, b = normal(rng, (33, 100)), normal(rng, (100, 47))
    exact = reference.matmul(a, b)
    for got in (swiftattn.matmul(a, b, precision=precision), swiftattn.linear(a, b.T, precision=precision)):
        assert np.sqrt(np.mean((got - exact) ** 2)) <= 2.0**-bits * 2 * 10


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_precision_words_concern_float32_alone(dtype):
    rng = np.random.default_rng(7)
    q, k, v = (normal(rng, (2, 20, 16), dtype) for _ in range(3))
    for precision in ("high", "medium"):
        np.testing.assert_array_equal(
            swiftattn.scaled_dot_product_attention(q, k, v, precision=precision),
            swiftattn.scaled_dot_product_attention(q, k, v),
        )


@pytest.mark.parametrize(
    "shape", [(8, 64, 64, 64), (4, 256, 256, 128), (2, 7, 1000, 80), (4, 64, 200, 256), (4, 64, 40, 1024)]
)
def test_root_mean_square_error(shape):
    """The same rule averaged over many elements, where luck plays no part: long sums over the head dim show here."""
    heads, q_len, k_len, head_dim = shape
    rng = np.random.default_rng(8)
    q, k, v = (normal(rng, (heads, length, head_dim)) for length in (q_len, k_len, k_len))
    exact = reference.attention(q, k, v).out
    simple = plain(reference.attention, q, k, v, like=q.dtype).out

    def error(got):
        return np.sqrt(np.mean((got.astype(np.float64) - exact) ** 2))

    assert error(swiftattn.scaled_dot_product_attention(q, k, v)) <= 2 * error(simple)


@pytest.mark.parametrize("length", [1, 17, 1000, 100_000])
def test_softmax_of_long_rows(length):
    rng = np.random.default_rng(9)
    x = normal(rng, (2, length)) * 10
    assert_accurate(swiftattn.softmax(x), reference.softmax(x), plain(reference.softmax, x, like=x.dtype))
