"""Result bits depend on a row's own inputs and the options alone: not on threads, batch, heads or other rows."""

import numpy as np
import pytest
import swiftattn
from support import DTYPES, normal, random_problem


@pytest.fixture
def threads():
    """Sets the number of threads for the rest of the test."""
    before = swiftattn.get_num_threads()
    yield swiftattn.set_num_threads
    swiftattn.set_num_threads(before)


def assert_same_bits(got, expected):
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8))


def attend(query, key, value, **options):
    return swiftattn.scaled_dot_product_attention(query, key, value, return_lse=True, **options)


SHAPES = [
    # B, Hq, Hkv, Tq, Tk, D
    (1, 1, 1, 257, 300, 64),
    (2, 4, 2, 130, 130, 40),
    (1, 8, 1, 1, 3000, 64),
    (3, 2, 2, 5, 700, 128),
    (1, 3, 3, 33, 1, 8),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("causal", [False, "lower_right"])
def test_attention_on_any_number_of_threads(threads, dtype, shape, causal):
    rng = np.random.default_rng(0)
    batch, q_heads, kv_heads, q_len, k_len, head_dim = shape
    q = normal(rng, (batch, q_heads, q_len, head_dim), dtype)
    k, v = (normal(rng, (batch, kv_heads, k_len, head_dim), dtype) for _ in range(2))
    threads(1)
    expected = attend(q, k, v, is_causal=causal)
    for number in (2, 3, 16):
        threads(number)
        assert_same_bits(attend(q, k, v, is_causal=causal), expected)


@pytest.mark.parametrize("seed", range(25))
def test_random_options_on_any_number_of_threads(threads, seed):
    rng = np.random.default_rng([1, seed])
    q, k, v, options = random_problem(rng, list(DTYPES)[seed % 4], longest=150)
    threads(1)
    expected = attend(q, k, v, return_weights=True, **options)
    for number in (2, 3):
        threads(number)
        assert_same_bits(attend(q, k, v, return_weights=True, **options), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_else_on_any_number_of_threads(threads, dtype):
    rng = np.random.default_rng(2)
    x, y = normal(rng, (300, 200), dtype), normal(rng, (300, 200), dtype)
    weight, bias = normal(rng, (90, 200), dtype), normal(rng, (90,), dtype)
    lses = normal(rng, (2, 300), "float64" if dtype == "float64" else "float32")
    starts = [0, 3, 3, 120, 300]
    packed = [a.reshape(300, 4, 50) for a in (x, y, y)]

    def everything():
        return [
            swiftattn.matmul(x, y.T),
            swiftattn.linear(x, weight, bias, activation="gelu"),
            swiftattn.softmax(x),
            swiftattn.softmax(x, 0),
            swiftattn.layer_norm(x, x[0], y[0]),
            swiftattn.rms_norm(x, x[0]),
            swiftattn.relu(x),
            swiftattn.gelu(x),
            swiftattn.silu(x),
            swiftattn.swiglu(x, y),
            swiftattn.geglu(x, y),
            swiftattn.embedding(np.arange(300)[::-1], x, residual=y),
            *swiftattn.merge_attention_states([x, y], lses),
            *swiftattn.attention_varlen(*packed, starts, starts, is_causal=True, return_lse=True),
        ]

    threads(1)
    expected = everything()
    for number in (2, 3):
        threads(number)
        assert_same_bits(everything(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_head_alone_is_the_head_in_its_batch(dtype, shape):
    rng = np.random.default_rng(3)
    batch, q_heads, kv_heads, q_len, k_len, head_dim = shape
    q = normal(rng, (batch, q_heads, q_len, head_dim), dtype)
    k, v = (normal(rng, (batch, kv_heads, k_len, head_dim), dtype) for _ in range(2))
    mask = rng.random((batch, q_heads, q_len, k_len)) < 0.8
    whole = attend(q, k, v, attn_mask=mask)
    for b in range(batch):
        for h in range(q_heads):
            g = h // (q_heads // kv_heads)
            alone = attend(q[b, h], k[b, g], v[b, g], attn_mask=mask[b, h])
            assert_same_bits(alone, [part[b, h] for part in whole])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_a_query_alone_is_the_query_among_others(dtype, shape, causal):
    """Prefill is decode: the row does not know how many queries came with it."""
    rng = np.random.default_rng(4)
    batch, q_heads, kv_heads, q_len, k_len, head_dim = shape
    q = normal(rng, (batch, q_heads, q_len, head_dim), dtype)
    k, v = (normal(rng, (batch, kv_heads, k_len, head_dim), dtype) for _ in range(2))
    whole = attend(q, k, v, is_causal=causal)
    for first, last in ((0, 1), (q_len // 2, q_len // 2 + 1), (q_len // 3, q_len)):
        alone = attend(q[:, :, first:last], k, v, is_causal=causal, query_offset=first)
        assert_same_bits(alone, [part[:, :, first:last] for part in whole])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner, outputs", [(1, 5), (7, 3), (64, 64), (300, 130), (1000, 33)])
def test_a_row_of_a_product_alone_is_the_row_among_others(dtype, inner, outputs):
    rng = np.random.default_rng(5)
    x, weight, bias = (
        normal(rng, (70, inner), dtype),
        normal(rng, (outputs, inner), dtype),
        normal(rng, (outputs,), dtype),
    )
    whole = swiftattn.linear(x, weight, bias, activation="silu")
    product = swiftattn.matmul(x, weight.T)
    for rows in (slice(0, 1), slice(69, 70), slice(3, 9), slice(10, 66)):
        assert_same_bits([swiftattn.linear(x[rows], weight, bias, activation="silu")], [whole[rows]])
        assert_same_bits([swiftattn.matmul(x[rows], weight.T)], [product[rows]])
    for columns in (slice(0, 1), slice(outputs - 1, outputs), slice(outputs // 3, outputs)):
        assert_same_bits([swiftattn.matmul(x, weight.T[:, columns])], [product[:, columns]])
    assert_same_bits(
        [swiftattn.linear(x.reshape(7, 2, 5, inner), weight, bias, activation="silu").reshape(70, -1)], [whole]
    )
    assert_same_bits([swiftattn.matmul(x[4], weight.T)], [product[4]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 5, 64, 1001])
def test_a_row_of_rows_alone_is_the_row_among_others(dtype, length):
    rng = np.random.default_rng(6)
    x, weight = normal(rng, (40, length), dtype), normal(rng, (length,), dtype)
    for function in (
        swiftattn.softmax,
        swiftattn.relu,
        swiftattn.gelu,
        swiftattn.silu,
        lambda x: swiftattn.layer_norm(x, weight, weight),
        lambda x: swiftattn.rms_norm(x, weight),
    ):
        whole = function(x)
        assert_same_bits([function(x[7]), function(x[20:25])], [whole[7], whole[20:25]])
    columns = swiftattn.softmax(x.T, 0)
    assert_same_bits([columns.T], [swiftattn.softmax(x)])


def test_same_call_same_bits():
    rng = np.random.default_rng(7)
    q, k, v = (normal(rng, (2, 4, 200, 64)) for _ in range(3))
    expected = attend(q, k, v, is_causal=True)
    for _ in range(10):
        assert_same_bits(attend(q, k, v, is_causal=True), expected)
