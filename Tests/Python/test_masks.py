"""Who sees whom: masks of every shape, causal alignments, windows, lengths, offsets, and what they add up to."""

import itertools

import ml_dtypes
import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, assert_accurate, check_attention, normal, plain


def attend(query, key, value, **options):
    return swiftattn.scaled_dot_product_attention(query, key, value, return_lse=True, return_weights=True, **options)


def problem(dtype="float32", q_len=6, k_len=9, batch=2, heads=4, kv_heads=2):
    rng = np.random.default_rng(0)
    return (
        normal(rng, (batch, heads, q_len, 8), dtype),
        normal(rng, (batch, kv_heads, k_len, 8), dtype),
        normal(rng, (batch, kv_heads, k_len, 8), dtype),
    )


def seen(q_len, k_len, **options):
    """The (q_len, k_len) table of visible keys, read off weights of equal scores."""
    q, k, v = (np.ones((1, 1, length, 4), np.float32) for length in (q_len, k_len, k_len))
    _, weights = swiftattn.scaled_dot_product_attention(q, k, v, return_weights=True, **options)
    return (weights[0, 0] > 0).astype(int).tolist()


FULL = (2, 4, 6, 9)
SHAPES = sorted(
    {shape[cut:] for shape in itertools.product(*((1, size) for size in FULL)) for cut in range(4)},
    key=lambda s: (len(s), s),
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["bool", "float32", "float16", "bfloat16", "float64"])
def test_every_broadcastable_shape(shape, kind):
    rng = np.random.default_rng(len(shape))
    dtype = "float32" if kind == "bool" else kind
    q, k, v = problem(dtype)
    mask = rng.random(shape) < 0.6 if kind == "bool" else normal(rng, shape, kind)
    check_attention(attend(q, k, v, attn_mask=mask), q, k, v, attn_mask=mask)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_float32_mask_with_half_inputs(dtype):
    rng = np.random.default_rng(1)
    q, k, v = problem(dtype)
    mask = normal(rng, (4, 1, 9))
    check_attention(attend(q, k, v, attn_mask=mask), q, k, v, attn_mask=mask)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m[..., ::-1][..., ::-1],
        lambda m: m.T.copy().T,
        lambda m: np.broadcast_to(m[0], m.shape),
        lambda m: np.repeat(m, 3, axis=1)[:, ::3],
        lambda m: m[::-1, ::-1],
    ],
    ids=["reversed twice", "transposed", "zero stride", "gaps", "negative"],
)
@pytest.mark.parametrize("kind", ["bool", "float32"])
def test_mask_layouts(make, kind):
    rng = np.random.default_rng(2)
    q, k, v = problem()
    mask = make(rng.random((6, 9)) < 0.5 if kind == "bool" else normal(rng, (6, 9)))
    got = attend(q, k, v, attn_mask=mask)
    check_attention(got, q, k, v, attn_mask=mask)
    for a, b in zip(got, attend(q, k, v, attn_mask=mask.copy())):
        np.testing.assert_array_equal(a, b)


def test_bool_mask_takes_any_nonzero_byte_for_true():
    q, k, v = problem()
    mask = np.random.default_rng(3).integers(0, 3, (6, 9), np.uint8)
    np.testing.assert_array_equal(
        swiftattn.scaled_dot_product_attention(q, k, v, attn_mask=mask.view(bool)),
        swiftattn.scaled_dot_product_attention(q, k, v, attn_mask=mask > 0),
    )


def test_masks_from_lists():
    q, k, v = problem(q_len=2, k_len=3)
    for mask in ([[True, False, True], [True, True, False]], [[0.5, -1, 2], [0, -float("inf"), 1]], [0, 1, 2]):
        array = np.asarray(mask) if np.asarray(mask).dtype == bool else np.asarray(mask, np.float32)
        np.testing.assert_array_equal(
            swiftattn.scaled_dot_product_attention(q, k, v, attn_mask=mask),
            swiftattn.scaled_dot_product_attention(q, k, v, attn_mask=array),
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "mask",
    [np.zeros((6, 9), bool), np.full((6, 9), -np.inf, np.float32), np.full((6, 9), np.nan, np.float32)],
    ids=["bool", "-inf", "NaN"],
)
def test_all_masked_rows_are_zero(dtype, mask):
    q, k, v = problem(dtype)
    mask = mask.copy() if mask.dtype == bool else mask.astype(DTYPES[dtype])
    mask[3, 4] = True if mask.dtype == bool else 0
    out, lse, weights = attend(q, k, v, attn_mask=mask)
    rows = np.arange(6) != 3
    assert not out[:, :, rows].any() and not weights[:, :, rows].any()
    assert (lse[:, :, rows] == -np.inf).all() and np.isfinite(lse[:, :, 3]).all()
    np.testing.assert_array_equal(out[:, :, 3], np.repeat(v, 2, axis=1)[:, :, 4])


def test_all_masked_rows_with_a_sink():
    q, k, v = problem()
    sinks = np.array([0.5, -3, 40, -np.inf], np.float32)
    out, lse, weights = attend(q, k, v, attn_mask=np.zeros((6, 9), bool), sinks=sinks)
    assert not out.any() and not weights.any()
    np.testing.assert_array_equal(lse, np.broadcast_to(sinks[:, None], (2, 4, 6)))


def test_causal_tables():
    assert seen(2, 4, is_causal=True) == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert seen(2, 4, is_causal="upper_left") == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert seen(2, 4, is_causal="lower_right") == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen(4, 2, is_causal=True) == [[1, 0], [1, 1], [1, 1], [1, 1]]
    assert seen(4, 2, is_causal="lower_right") == [[0, 0], [0, 0], [1, 0], [1, 1]]
    assert seen(2, 4, is_causal=True, query_offset=1) == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert seen(2, 4, is_causal="lower_right", query_offset=-1) == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert seen(2, 3, query_offset=-1) == [[1, 1, 1], [1, 1, 1]]
    assert seen(1, 3, is_causal=True, query_offset=2**48) == [[1, 1, 1]]
    assert seen(1, 3, is_causal=True, query_offset=-(2**48)) == [[0, 0, 0]]


def test_window_tables():
    assert seen(4, 4, window=(1, 0)) == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert seen(4, 4, window=(0, 0)) == np.eye(4, dtype=int).tolist()
    assert seen(3, 4, window=(None, 1)) == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen(3, 4, window=(-1, 0)) == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert seen(3, 4, window=(0, None)) == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert seen(2, 4, window=(1, 9), is_causal="lower_right") == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert seen(2, 4, window=(0, 0), query_offset=5) == [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert seen(2, 3, window=(2**62, 2**62)) == [[1, 1, 1], [1, 1, 1]]
    assert seen(2, 3, window=(None, None)) == [[1, 1, 1], [1, 1, 1]]
    assert seen(1, 3, window=(2**63 - 1, 2**63 - 1), query_offset=2**48) == [[1, 1, 1]]


def test_length_tables():
    assert seen(3, 4, kv_lengths=[2]) == [[1, 1, 0, 0]] * 3
    assert seen(3, 4, q_lengths=[2]) == [[1] * 4, [1] * 4, [0] * 4]
    assert seen(3, 4, kv_lengths=[0]) == [[0] * 4] * 3
    assert seen(3, 4, kv_lengths=[3], is_causal="lower_right") == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert seen(3, 4, q_lengths=[1], is_causal="lower_right") == [[1, 1, 1, 1], [0] * 4, [0] * 4]
    assert seen(3, 4, q_lengths=[2], kv_lengths=[3], is_causal="lower_right") == [[1, 1, 0, 0], [1, 1, 1, 0], [0] * 4]


@pytest.mark.parametrize("kind", [list, tuple, np.int32, np.int64, np.uint8, np.int16, np.uint64])
def test_integer_arguments_of_every_kind(kind):
    q, k, v = problem()

    def as_kind(values):
        return kind(values) if kind in (list, tuple) else np.array(values, kind)

    options = dict(
        q_lengths=as_kind([6, 4]), kv_lengths=as_kind([9, 5]), query_offset=as_kind([0, 3]), is_causal=True
    )
    check_attention(
        attend(q, k, v, **options),
        q,
        k,
        v,
        **{name: np.asarray(x, int) if name != "is_causal" else x for name, x in options.items()},
    )


def test_query_offset_as_scalar_of_every_kind():
    q, k, v = problem()
    expected = swiftattn.scaled_dot_product_attention(q, k, v, is_causal=True, query_offset=2)
    for offset in (np.int32(2), np.array(2), np.array([2, 2]), [2, 2]):
        np.testing.assert_array_equal(
            swiftattn.scaled_dot_product_attention(q, k, v, is_causal=True, query_offset=offset), expected
        )


def test_five_dims_share_one_batch_of_masks():
    rng = np.random.default_rng(5)
    q, k, v = (normal(rng, (2, 3, 4, length, 8)) for length in (5, 7, 7))
    for mask in (
        rng.random((6, 4, 5, 7)) < 0.6,  # (B, ...)
        rng.random((1, 1, 5, 7)) < 0.6,
        rng.random((2, 3, 4, 5, 7)) < 0.6,  # dim by dim
        normal(rng, (2, 1, 1, 5, 7)),
    ):
        check_attention(attend(q, k, v, attn_mask=mask), q, k, v, attn_mask=mask)
    options = dict(kv_lengths=rng.integers(0, 8, 6), query_offset=rng.integers(-2, 4, 6), is_causal=True)
    check_attention(attend(q, k, v, **options), q, k, v, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_alibi_is_a_bias(dtype):
    q, k, v = problem(dtype)
    slopes = swiftattn.alibi_slopes(4).astype(np.float64 if dtype == "float64" else np.float32)
    for options in ({}, {"is_causal": "lower_right"}, {"query_offset": [-3, 11]}):
        check_attention(attend(q, k, v, alibi_slopes=slopes, **options), q, k, v, alibi_slopes=slopes, **options)


def test_slopes_and_sinks_of_every_kind():
    q, k, v = problem()
    numbers = [0.5, 0.25, 0.125, 1.0]
    for name in ("alibi_slopes", "sinks"):
        expected = swiftattn.scaled_dot_product_attention(q, k, v, **{name: np.array(numbers, np.float32)})
        for given in (
            numbers,
            tuple(numbers),
            np.array(numbers),
            np.array(numbers, np.float16),
            np.array(numbers, ml_dtypes.bfloat16),
        ):
            np.testing.assert_array_equal(swiftattn.scaled_dot_product_attention(q, k, v, **{name: given}), expected)
        q64, k64, v64 = (x.astype(np.float64) for x in (q, k, v))
        wide = swiftattn.scaled_dot_product_attention(q64, k64, v64, **{name: np.array(numbers, np.float32)})
        np.testing.assert_array_equal(wide, swiftattn.scaled_dot_product_attention(q64, k64, v64, **{name: numbers}))


@pytest.mark.parametrize("seed", range(20))
def test_options_add_up_to_one_float_mask(seed):
    """Causal, window, lengths, ALiBi and a bias are the same as one explicit mask with all of it."""
    rng = np.random.default_rng([6, seed])
    q, k, v = problem(q_len=13, k_len=21)
    bias = normal(rng, (13, 21))
    options = dict(
        attn_mask=bias,
        is_causal="lower_right",
        window=(int(rng.integers(0, 9)), None),
        kv_lengths=rng.integers(0, 22, 2),
        alibi_slopes=rng.random(4).astype(np.float32),
    )
    exact = reference.attention(q, k, v, **options)
    q_at = np.arange(13)[:, None] + (options["kv_lengths"] - 13)[:, None, None, None]
    explicit = bias - options["alibi_slopes"][:, None, None] * np.abs(q_at - np.arange(21))
    explicit = np.where(np.isfinite(exact.biased), explicit, -np.inf).astype(np.float32)
    simple = plain(reference.attention, q, k, v, like=q.dtype, **options)
    assert_accurate(swiftattn.scaled_dot_product_attention(q, k, v, explicit), exact.out, simple.out)
    assert_accurate(swiftattn.scaled_dot_product_attention(q, k, v, **options), exact.out, simple.out)


def test_dropout_drops_what_the_generator_says():
    rng = np.random.default_rng(7)
    batch, heads, q_len, k_len = 2, 3, 17, 70
    q, k = normal(rng, (batch, heads, q_len, 8)), normal(rng, (batch, heads, k_len, 8))
    v = np.broadcast_to(np.eye(k_len, dtype=np.float32), (batch, heads, k_len, k_len))
    for p, seed in ((0.1, 0), (0.5, 1), (0.9, 2**64 - 1), (1 - 2**-20, 12345)):
        out = swiftattn.scaled_dot_product_attention(q, k, v, dropout_p=p, seed=seed)
        dropped = reference.philox_words(seed, range(batch), heads, q_len, k_len) < np.floor(p * 2**32)
        np.testing.assert_array_equal(out == 0, dropped)


def test_philox_known_answers():
    """Random123's kat_vectors hold the reference's generator to its definition (counter and key of all zeros)."""
    assert [hex(word) for word in reference.philox_words(0, [0], 1, 1, 4).ravel().tolist()] == [
        "0x6627e8d5",
        "0xe169c58d",
        "0xbc57ac4c",
        "0x9b00dbd8",
    ]
