"""Attention over a KVCache: decoding gives the numbers of the full pass; int8 those of its own keys, within the stated bound."""

import ml_dtypes
import numpy as np
import pytest
import reference
import swiftattn
from stored import at_the_end, cache_of, same_bits
from support import DTYPES, FLOAT32_EPS, assert_accurate, check_attention, normal, plain, random_problem, strided

SDPA = swiftattn.scaled_dot_product_attention
INPUTS = ["float32", "float16", "bfloat16"]
STORAGE = [*INPUTS, "int8"]


def held(cache):
    """The numbers that a cache stands for, as float32 keys and values."""
    keys, values = cache.keys.astype(np.float32), cache.values.astype(np.float32)
    if cache.dtype == "int8":
        keys, values = keys * cache.key_scales[..., None], values * cache.value_scales[..., None]
    return keys, values


@pytest.mark.parametrize("dtype", INPUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 64), (2, 6, 2, 40), (1, 9, 1, 128)], ids=str)
def test_decoding_has_the_bits_of_the_full_pass(dtype, shape):
    """A prompt, then tokens one by one and a few at a time: every row as in one causal call over all of it."""
    rng = np.random.default_rng(0)
    batch, q_heads, kv_heads, width = shape
    length = 600
    query = normal(rng, (batch, q_heads, length, width), dtype)
    key, value = (normal(rng, (batch, kv_heads, length, width), dtype) for _ in range(2))
    full, lse = SDPA(query, key, value, is_causal=True, return_lse=True)
    cache = swiftattn.KVCache(batch, kv_heads, length, width, dtype=dtype)
    first = 0
    for step in [470, *[1] * 30, 5, 9, 64, 22]:
        rows = slice(first, first + step)
        cache.append(key[:, :, rows], value[:, :, rows])
        same_bits(cache.attend(query[:, :, rows], return_lse=True), (full[:, :, rows], lse[:, :, rows]))
        first += step
    assert first == length


@pytest.mark.parametrize("dtype", INPUTS)
def test_sequences_of_a_batch_decode_together(dtype):
    """Prompts of three lengths in one batch, then steps that not all of them take: the bits of each one alone."""
    rng = np.random.default_rng(1)
    prompts, length = np.array([3, 120, 41]), 140
    query = normal(rng, (3, 4, length, 24), dtype)
    key, value = (normal(rng, (3, 2, length, 24), dtype) for _ in range(2))
    alone = [SDPA(query[b : b + 1], key[b : b + 1], value[b : b + 1], is_causal=True) for b in range(3)]
    cache = swiftattn.KVCache(3, 2, length, 24, dtype=dtype)
    counts = [prompts, [1, 1, 1], [1, 0, 1], [0, 0, 0], [4, 1, 7]]
    for count in map(np.asarray, counts):
        begin, tokens = cache.lengths, max(count)
        step = [np.full((3, x.shape[1], tokens, 24), np.nan, x.dtype) for x in (query, key, value)]
        for b, n in enumerate(count):
            for new, x in zip(step, (query, key, value)):
                new[b, :, :n] = x[b, :, begin[b] : begin[b] + n]
        cache.append(*step[1:], count)
        out = cache.attend(step[0], q_lengths=count)
        for b, n in enumerate(count):
            same_bits([out[b, :, :n]], [alone[b][0, :, begin[b] : begin[b] + n]])
            assert (out[b, :, n:] == 0).all()


@pytest.mark.parametrize("stored", STORAGE)
@pytest.mark.parametrize("asked", INPUTS)
@pytest.mark.parametrize("seed", range(12))
def test_has_the_bits_of_what_it_holds(stored, asked, seed):
    """All options. Other storage than query's: float32 attention on the widened numbers, rounded once."""
    rng = np.random.default_rng([2, seed])
    query, key, value, options = random_problem(rng, asked, longest=130)
    lengths = options.pop("kv_lengths", np.full(len(key), key.shape[2]))
    lengths[rng.integers(len(lengths))] = key.shape[2]  # the views then have as many columns as a mask has
    cache = cache_of(key, value, lengths, stored, key.shape[2] + int(rng.integers(0, 9)))
    extra = dict(return_lse=True, return_weights=[True, "biased"][seed % 2])
    got = cache.attend(query, **{"is_causal": False, **options}, **extra)
    meant = at_the_end(query, lengths, options)
    if stored == asked:
        return same_bits(got, SDPA(query, cache.keys, cache.values, **meant, **extra))
    if getattr(meant.get("attn_mask"), "dtype", None) == DTYPES[asked]:
        meant["attn_mask"] = meant["attn_mask"].astype(np.float32)
    out, lse, weights = SDPA(query.astype(np.float32), *held(cache), **meant, **extra)
    same_bits(got, (out.astype(query.dtype), lse, weights.astype(query.dtype)))


@pytest.mark.parametrize("stored", STORAGE)
@pytest.mark.parametrize("asked", INPUTS)
def test_against_the_formula(stored, asked):
    """float64 on the numbers that the cache holds."""
    rng = np.random.default_rng(3)
    query = normal(rng, (2, 4, 7, 64), asked)
    key, value = normal(rng, (2, 2, 300, 64)), normal(rng, (2, 2, 300, 24))
    cache = cache_of(key, value, [300, 190], stored)
    keys, values = held(cache)
    options = dict(is_causal="lower_right", kv_lengths=np.array([300, 190]))
    got = cache.attend(query, return_lse=True)
    exact = reference.attention(query, keys, values, **options)
    simple = plain(reference.attention, query, keys, values, like=query.dtype, **options)
    if stored == asked == "bfloat16":  # products of bfloat16 may round the probabilities, see the header
        assert np.abs(got[0].astype(np.float64) - exact.out).max() < 0.02
    else:
        assert_accurate(got[0], exact.out, simple.out, "out")
        assert_accurate(got[1], exact.lse, simple.lse, "lse")


@pytest.mark.parametrize("asked", INPUTS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_int8_stays_within_its_bound(asked, spread):
    """What int8 loses against the keys and values that were appended.

    Scores move by at most d = |scale| * |q|_1 * key_scale / 2, so weights by a factor of at most e^(2d), and values by
    value_scale / 2: |out - exact| <= (e^(2d) - 1) * max|v| + value_scale / 2.
    """
    rng = np.random.default_rng(4)
    query = (normal(rng, (2, 4, 5, 64)) * np.float32(spread)).astype(DTYPES[asked])
    key, value = normal(rng, (2, 4, 400, 64)), normal(rng, (2, 4, 400, 32))
    cache = cache_of(key, value, [400, 400], "int8")
    exact = reference.attention(query, key, value, is_causal="lower_right").out
    out = cache.attend(query).astype(np.float64)
    length = np.abs(query.astype(np.float64)).sum(-1)
    moved = length * cache.key_scales.max(-1)[..., None].astype(np.float64) / (2 * 8)
    bound = np.expm1(2 * moved) * np.abs(value).max((2, 3))[..., None] + cache.value_scales.max(-1)[..., None] / 2
    slack = 4 * FLOAT32_EPS * 64 + float(ml_dtypes.finfo(DTYPES[asked]).eps) * np.abs(exact).max()
    error = np.abs(out - exact).max(-1)
    assert (error <= bound + slack).all()
    assert error.max() > 1e-4  # int8 does lose something


@pytest.mark.parametrize("stored", STORAGE)
def test_any_number_of_threads(stored):
    rng = np.random.default_rng(5)
    query = normal(rng, (1, 8, 1, 64))
    key, value = normal(rng, (1, 1, 5000, 64)), normal(rng, (1, 1, 5000, 64))
    cache = cache_of(key, value, [5000], stored)
    before = swiftattn.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            swiftattn.set_num_threads(threads)
            results.append(cache.attend(query, return_lse=True, return_weights=True))
    finally:
        swiftattn.set_num_threads(before)
    same_bits(results[1], results[0])
    same_bits(results[2], results[0])


@pytest.mark.parametrize("stored", STORAGE)
def test_split_keys_merge_to_the_whole(stored):
    """Two caches with a part of the keys each, merged, and one with all of them."""
    rng = np.random.default_rng(6)
    query = normal(rng, (2, 4, 3, 64))
    key, value = normal(rng, (2, 2, 700, 64)), normal(rng, (2, 2, 700, 40))
    whole = cache_of(key, value, [700, 700], stored).attend(query, is_causal=False, return_lse=True)
    parts = [
        cache_of(key[:, :, rows], value[:, :, rows], [rows.stop - rows.start] * 2, stored).attend(
            query, is_causal=False, return_lse=True
        )
        for rows in (slice(0, 123), slice(123, 700))
    ]
    out, lse = swiftattn.merge_attention_states(*zip(*parts))
    exact = [x.astype(np.float64) for x in whole]
    assert_accurate(out, exact[0], exact[0], "out")
    assert_accurate(lse, exact[1], exact[1], "lse")


def test_forked_and_reordered_beams_attend_alike():
    rng = np.random.default_rng(7)
    key, value = normal(rng, (3, 2, 50, 16)), normal(rng, (3, 2, 50, 16))
    cache = cache_of(key, value, [50, 31, 44], "int8")
    query = normal(rng, (3, 4, 1, 16))
    before = cache.attend(query[[2, 2, 2]])
    beams = [2, 0, 2]
    fork = cache.fork(beams)
    same_bits([fork.attend(query[[2, 2, 2]])], [before[beams]])
    cache.reorder(beams)
    same_bits([cache.attend(query[[2, 2, 2]])], [before[beams]])
    cache.truncate(10)
    same_bits([cache.attend(query)], [cache_of(key[beams], value[beams], [10] * 3, "int8").attend(query)])


def test_nan_stays_in_its_token():
    """A token with NaN in a key is NaN to those who see it, in int8 as a whole row; others never know."""
    rng = np.random.default_rng(8)
    key, value = normal(rng, (1, 1, 20, 8)), normal(rng, (1, 1, 20, 8))
    key[0, 0, 12, 3], value[0, 0, 12, 5] = np.nan, np.inf
    query = normal(rng, (1, 1, 20, 8))
    for stored in STORAGE:
        out = cache_of(key, value, [20], stored).attend(query)
        assert np.isfinite(out[:, :, :12]).all() and np.isnan(out[:, :, 12:]).all()


def test_encoder_memory_empty_cache_and_strided_query():
    rng = np.random.default_rng(9)
    query = normal(rng, (2, 4, 9, 16))
    key, value = normal(rng, (2, 4, 30, 16)), normal(rng, (2, 4, 30, 6))
    cache = cache_of(key, value, [30, 12], "float32")
    expected = SDPA(query, key, value, kv_lengths=[30, 12])
    same_bits([cache.attend(query, is_causal=False)], [expected])
    out = strided(rng, np.zeros_like(expected))
    assert cache.attend(strided(rng, query), is_causal=False, out=out) is out
    np.testing.assert_array_equal(out, expected)
    cache.reset()
    out, lse, weights = cache.attend(query, return_lse=True, return_weights=True)
    assert (out == 0).all() and (lse == -np.inf).all() and weights.shape == (2, 4, 9, 0)


Q = np.ones((2, 4, 1, 8), np.float32)


@pytest.mark.parametrize(
    "query, options, error, message",
    [
        (Q[0], {}, ValueError, "query: rank is 3, expected 4"),
        (Q[:1], {}, ValueError, "query: batch is 1, the cache has 2"),
        (Q[..., :5], {}, ValueError, "cache: head_dim is 8, query has 5"),
        (Q[:, :3], {}, ValueError, "cache: heads are 2, expected a divisor of the query's 3"),
        (Q.astype(np.float64), {}, TypeError, "cache: dtype is float32, query has float64"),
        (Q.astype(np.int8), {}, TypeError, "query: dtype is int8"),
        (Q, dict(out=np.zeros((2, 4, 1, 9), np.float32)), ValueError, "out: shape is"),
        (Q, dict(attn_mask=np.zeros((1, 4), bool)), ValueError, "attn_mask: shape"),
        (Q, dict(q_lengths=[1, 2]), ValueError, "q_lengths: entry 1 is 2"),
        (Q, dict(is_causal="last"), ValueError, "is_causal"),
    ],
)
def test_errors(query, options, error, message):
    cache = swiftattn.KVCache(2, 2, 4, 8)
    cache.append(np.ones((2, 2, 3, 8), np.float32), np.ones((2, 2, 3, 8), np.float32))
    with pytest.raises(error, match=message):
        cache.attend(query, **options)


def test_out_may_not_be_the_cache():
    cache = swiftattn.KVCache(2, 2, 4, 8)
    cache.append(Q[:, :2], Q[:, :2])
    with pytest.raises(ValueError, match="out: overlaps cache"):
        cache.attend(Q[:, :2], out=cache.values)
