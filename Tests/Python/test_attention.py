"""scaled_dot_product_attention against the reference: shapes, head layouts, and random mixes of all options."""

import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, assert_accurate, check_attention, normal, plain, random_problem


def attend(query, key, value, **options):
    return swiftattn.scaled_dot_product_attention(query, key, value, return_lse=True, return_weights=True, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [1, 2, 5, 8, 16, 31, 64, 96, 128, 192, 256, 333, 512, 1024, 2051])
def test_head_dims(dtype, head_dim):
    rng = np.random.default_rng(head_dim)
    q, k, v = (normal(rng, (1, 2, length, head_dim), dtype) for length in (9, 21, 21))
    check_attention(attend(q, k, v), q, k, v)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim, value_dim", [(64, 1), (1, 64), (64, 80), (192, 128), (576, 512), (7, 300)])
def test_value_dim_differs(dtype, head_dim, value_dim):
    rng = np.random.default_rng(1)
    q, k, v = (normal(rng, (2, 2, *shape), dtype) for shape in ((6, head_dim), (11, head_dim), (11, value_dim)))
    check_attention(attend(q, k, v), q, k, v)


@pytest.mark.parametrize("q_len", [1, 2, 3, 15, 16, 17, 63, 64, 65, 129])
@pytest.mark.parametrize("k_len", [1, 7, 16, 33, 64, 127, 128, 129, 515])
def test_lengths_around_tiles(q_len, k_len):
    rng = np.random.default_rng(q_len * 1000 + k_len)
    q, k, v = (normal(rng, (1, 1, length, 16)) for length in (q_len, k_len, k_len))
    check_attention(attend(q, k, v), q, k, v)
    check_attention(attend(q, k, v, is_causal="lower_right"), q, k, v, is_causal="lower_right")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("q_heads, kv_heads", [(4, 4), (4, 2), (6, 2), (8, 1), (9, 3), (71, 1)])
def test_grouped_heads(dtype, q_heads, kv_heads):
    rng = np.random.default_rng(q_heads)
    q = normal(rng, (2, q_heads, 5, 16), dtype)
    k, v = (normal(rng, (2, kv_heads, 12, 16), dtype) for _ in range(2))
    check_attention(attend(q, k, v, enable_gqa=True), q, k, v)


@pytest.mark.parametrize(
    "q_shape, k_shape, v_shape, out_shape",
    [
        ((5, 8), (7, 8), (7, 4), (5, 4)),
        ((3, 5, 8), (3, 7, 8), (3, 7, 4), (3, 5, 4)),
        ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4), (2, 3, 5, 4)),
        ((2, 2, 4, 5, 8), (2, 2, 2, 7, 8), (2, 2, 2, 7, 4), (2, 2, 4, 5, 4)),
        ((2, 1, 3, 2, 5, 8), (2, 1, 3, 2, 7, 8), (2, 1, 3, 2, 7, 4), (2, 1, 3, 2, 5, 4)),
        ((1, 1, 1, 1, 2, 2, 3, 8), (1, 1, 1, 1, 2, 2, 4, 8), (1, 1, 1, 1, 2, 2, 4, 4), (1, 1, 1, 1, 2, 2, 3, 4)),
        ((2, 3, 5, 8), (1, 3, 7, 8), (2, 3, 7, 4), (2, 3, 5, 4)),
        ((1, 3, 5, 8), (2, 3, 7, 8), (1, 3, 7, 4), (2, 3, 5, 4)),
        ((2, 3, 5, 8), (3, 7, 8), (3, 7, 4), (2, 3, 5, 4)),
        ((3, 5, 8), (2, 3, 7, 8), (3, 7, 4), (2, 3, 5, 4)),
        ((2, 1, 3, 5, 8), (4, 3, 7, 8), (1, 4, 3, 7, 4), (2, 4, 3, 5, 4)),
    ],
)
def test_ranks_and_broadcast_leading_dims(q_shape, k_shape, v_shape, out_shape):
    rng = np.random.default_rng(3)
    q, k, v = (normal(rng, shape) for shape in (q_shape, k_shape, v_shape))
    result = attend(q, k, v, is_causal=True)
    assert result[0].shape == out_shape
    check_attention(result, q, k, v, is_causal=True)


def test_default_scale_follows_head_dim_of_query():
    rng = np.random.default_rng(4)
    q, k, v = normal(rng, (1, 3, 25)), normal(rng, (1, 4, 25)), normal(rng, (1, 4, 9))
    np.testing.assert_array_equal(
        swiftattn.scaled_dot_product_attention(q, k, v), swiftattn.scaled_dot_product_attention(q, k, v, scale=0.2)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(60))
def test_random_options(dtype, seed):
    rng = np.random.default_rng([seed, list(DTYPES).index(dtype)])
    q, k, v, options = random_problem(rng, dtype)
    check_attention(attend(q, k, v, **options), q, k, v, **options)


@pytest.mark.parametrize("seed", range(12))
def test_random_options_on_longer_sequences(seed):
    rng = np.random.default_rng([77, seed])
    q, k, v, options = random_problem(rng, "float32", longest=400)
    check_attention(attend(q, k, v, **options), q, k, v, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stage", ["scaled", "capped", "biased"])
@pytest.mark.parametrize("seed", range(6))
def test_weight_stages(dtype, stage, seed):
    rng = np.random.default_rng([5, seed])
    q, k, v, options = random_problem(rng, dtype, dropout=False)
    options["softcap"] = 3.0
    out, weights = swiftattn.scaled_dot_product_attention(q, k, v, return_weights=stage, **options)
    exact = reference.attention(q, k, v, **options)
    simple = plain(reference.attention, q, k, v, like=q.dtype, **options)
    assert weights.dtype == q.dtype
    assert_accurate(weights, getattr(exact, stage), getattr(simple, stage), stage)
    np.testing.assert_array_equal(out, swiftattn.scaled_dot_product_attention(q, k, v, **options))


def test_weights_are_those_before_dropout():
    rng = np.random.default_rng(6)
    q, k, v = (normal(rng, (2, 3, 10, 8)) for _ in range(3))
    _, weights = swiftattn.scaled_dot_product_attention(q, k, v, dropout_p=0.5, seed=9, return_weights=True)
    _, undropped = swiftattn.scaled_dot_product_attention(q, k, v, return_weights=True)
    np.testing.assert_array_equal(weights, undropped)


def test_extra_returns_come_in_order():
    rng = np.random.default_rng(7)
    q, k, v = normal(rng, (2, 3, 4)), normal(rng, (2, 5, 4)), normal(rng, (2, 5, 6))
    call = swiftattn.scaled_dot_product_attention
    assert call(q, k, v).shape == (2, 3, 6)
    assert [a.shape for a in call(q, k, v, return_lse=True)] == [(2, 3, 6), (2, 3)]
    assert [a.shape for a in call(q, k, v, return_weights=True)] == [(2, 3, 6), (2, 3, 5)]
    assert [a.shape for a in call(q, k, v, return_lse=True, return_weights="scaled")] == [
        (2, 3, 6),
        (2, 3),
        (2, 3, 5),
    ]


def test_out_is_written_and_returned():
    rng = np.random.default_rng(8)
    q, k, v = (normal(rng, (2, 3, 8)) for _ in range(3))
    out = np.full((2, 3, 8), np.nan, np.float32)
    assert swiftattn.scaled_dot_product_attention(q, k, v, out=out) is out
    np.testing.assert_array_equal(out, swiftattn.scaled_dot_product_attention(q, k, v))


def test_inputs_may_be_one_array():
    rng = np.random.default_rng(9)
    x = normal(rng, (2, 7, 8))
    np.testing.assert_array_equal(
        swiftattn.scaled_dot_product_attention(x, x, x), swiftattn.scaled_dot_product_attention(x, x.copy(), x.copy())
    )


ZERO_SIZES = [
    # q, k, v; expected out
    ((0, 2, 3, 4), (0, 2, 5, 4), (0, 2, 5, 6), (0, 2, 3, 6)),
    ((2, 0, 3, 4), (2, 0, 5, 4), (2, 0, 5, 6), (2, 0, 3, 6)),
    ((2, 2, 0, 4), (2, 2, 5, 4), (2, 2, 5, 6), (2, 2, 0, 6)),
    ((2, 2, 3, 4), (2, 2, 0, 4), (2, 2, 0, 6), (2, 2, 3, 6)),
    ((2, 2, 3, 0), (2, 2, 5, 0), (2, 2, 5, 6), (2, 2, 3, 6)),
    ((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 0), (2, 2, 3, 0)),
    ((3, 4), (0, 4), (0, 6), (3, 6)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("q_shape, k_shape, v_shape, out_shape", ZERO_SIZES)
def test_zero_sizes(dtype, q_shape, k_shape, v_shape, out_shape):
    rng = np.random.default_rng(10)
    q, k, v = (normal(rng, shape, dtype) for shape in (q_shape, k_shape, v_shape))
    for causal in (False, "lower_right"):
        result = attend(q, k, v, is_causal=causal)
        assert result[0].shape == out_shape
        check_attention(result, q, k, v, is_causal=causal)


@pytest.mark.parametrize("q_shape, k_shape, v_shape, out_shape", ZERO_SIZES)
def test_zero_sizes_with_every_option(q_shape, k_shape, v_shape, out_shape):
    rng = np.random.default_rng(13)
    q, k, v = (normal(rng, shape) for shape in (q_shape, k_shape, v_shape))
    batch = q_shape[0] if len(q_shape) == 4 else 1
    heads = q_shape[1] if len(q_shape) == 4 else 1
    scores = (*q_shape[:-1], k_shape[-2])
    options = dict(
        is_causal="lower_right",
        window=(1, 2),
        softcap=2.0,
        dropout_p=0.5,
        seed=1,
        query_offset=np.zeros(batch, int),
        alibi_slopes=np.ones(heads, np.float32),
        sinks=np.ones(heads, np.float32),
        q_lengths=np.full(batch, q_shape[-2]),
        kv_lengths=np.full(batch, k_shape[-2]),
    )
    for mask in (np.ones(scores, bool), np.zeros(scores[-1:], np.float32), np.ones((1, 1), bool)):
        result = attend(q, k, v, attn_mask=mask, **options)
        check_attention(result, q, k, v, attn_mask=mask, **options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", DTYPES)
def test_merge_is_attention_over_the_union(dtype, seed):
    rng = np.random.default_rng([11, seed])
    q, k, v = (normal(rng, (2, 3, length, 16), dtype) for length in (6, 50, 50))
    cuts = [0, 11, 11, 30, 50]
    hidden = rng.random((6, 50)) < 0.4
    hidden[2] = True
    hidden[3, :11] = True
    parts = [
        swiftattn.scaled_dot_product_attention(
            q, k[:, :, a:b], v[:, :, a:b], attn_mask=~hidden[:, a:b], return_lse=True
        )
        for a, b in zip(cuts, cuts[1:])
    ]
    outs, lses = zip(*parts)
    out, lse = swiftattn.merge_attention_states(outs, lses)
    assert (out.dtype, lse.dtype) == (q.dtype, lses[0].dtype)
    exact = reference.merge_attention_states(outs, lses)
    simple = plain(reference.merge_attention_states, outs, lses, like=q.dtype)
    assert_accurate(out, exact[0], simple[0], "out")
    assert_accurate(lse, exact[1], simple[1], "lse")
    whole = reference.attention(q, k, v, ~hidden)
    np.testing.assert_allclose(out.astype(np.float64), whole.out, atol={2: 2e-2, 4: 2e-6, 8: 1e-13}[q.dtype.itemsize])


def test_merge_of_parts_without_weight():
    outs = [np.full((2, 3), np.nan, np.float32), np.array([[1, 2, 3], [np.inf, 0, 0]], np.float32)]
    lses = [np.full(2, -np.inf, np.float32), np.array([0.5, -np.inf], np.float32)]
    out, lse = swiftattn.merge_attention_states(outs, lses)
    np.testing.assert_array_equal(out, [[1, 2, 3], [0, 0, 0]])
    np.testing.assert_array_equal(lse, np.array([0.5, -np.inf], np.float32))


def test_merge_of_one_and_of_many():
    rng = np.random.default_rng(12)
    outs = normal(rng, (9, 4, 5, 8))
    lses = normal(rng, (9, 4, 5)) * 20
    out, lse = swiftattn.merge_attention_states(outs[:1], lses[:1])
    np.testing.assert_array_equal(out, outs[0])
    np.testing.assert_array_equal(lse, lses[0])
    out, lse = swiftattn.merge_attention_states(outs, lses)
    exact, simple = (
        function(reference.merge_attention_states, outs, lses, **extra)
        for function, extra in ((lambda f, *a: f(*a), {}), (plain, {"like": outs.dtype}))
    )
    assert_accurate(out, exact[0], simple[0])
    assert_accurate(lse, exact[1], simple[1])


def test_alibi_slopes():
    for heads in [*range(0, 40), 64, 71, 112]:
        slopes = swiftattn.alibi_slopes(heads)
        assert slopes.dtype == np.float32
        np.testing.assert_allclose(slopes, reference.alibi_slopes(heads), rtol=2e-7)
