"""attention_paged: the bits of the same keys in one piece, whatever the blocks."""

import numpy as np
import pytest
import swiftattn
from stored import at_the_end, paged, same_bits
from support import DTYPES, assert_accurate, check_attention, guarded, normal, random_problem, strided

SDPA = swiftattn.scaled_dot_product_attention


def padded_columns(mask, columns):
    """A mask for the rows that a table has room for: what it says beyond the keys does not matter."""
    if mask.shape[-1] == 1:
        return mask
    more = np.ones((*mask.shape[:-1], columns - mask.shape[-1]), mask.dtype)
    return np.concatenate([mask, more], -1)


def both(rng, query, key, value, options, block_size, blocks={}, **extra):
    """(paged, in one piece) results of one problem."""
    options = dict(options)
    lengths = options.pop("kv_lengths", np.full(query.shape[0], key.shape[2]))
    dense = SDPA(query, key, value, return_lse=True, **at_the_end(query, lengths, options), **extra)
    key_cache, value_cache, table = paged(rng, key, value, lengths, block_size, **blocks)
    columns = table.shape[1] * block_size
    if "attn_mask" in options:
        options["attn_mask"] = padded_columns(options["attn_mask"], columns)
    got = swiftattn.attention_paged(
        query, key_cache, value_cache, table, lengths, return_lse=True, **options, **extra
    )
    return got, dense


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(30))
def test_has_the_bits_of_one_piece(dtype, seed):
    rng = np.random.default_rng([0, seed])
    query, key, value, options = random_problem(rng, dtype, longest=130)
    block_size = int(rng.choice([1, 2, 3, 7, 16, 32, 97, 500]))
    stage = [True, "biased"][seed % 2]
    got, dense = both(rng, query, key, value, options, block_size, return_weights=stage)
    keys = key.shape[2]
    rest = got[2][..., keys:].astype(np.float64)
    assert (rest == (0 if stage is True else -np.inf)).all()
    same_bits((*got[:2], got[2][..., :keys]), dense)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [1, 5, 16, 64, 480])
@pytest.mark.parametrize("q_len", [1, 3, 70])
def test_long_sequences(dtype, block_size, q_len):
    """Over several chunks of keys, with few and with many queries; blocks in order are read where they lie."""
    rng = np.random.default_rng(1)
    query = normal(rng, (2, 4, q_len, 40), dtype)
    key, value = normal(rng, (2, 2, 1100, 40), dtype), normal(rng, (2, 2, 1100, 24), dtype)
    options = dict(is_causal=True, kv_lengths=np.array([1100, 707]))
    same_bits(*both(rng, query, key, value, options, block_size))
    same_bits(*both(rng, query, key, value, options, block_size, dict(in_order=True)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_formula(dtype):
    rng = np.random.default_rng(2)
    query = normal(rng, (3, 6, 9, 32), dtype)
    key, value = normal(rng, (3, 2, 200, 32), dtype), normal(rng, (3, 2, 200, 48), dtype)
    lengths = np.array([200, 9, 133])
    key_cache, value_cache, table = paged(rng, key, value, lengths, 16)
    got = swiftattn.attention_paged(
        query, key_cache, value_cache, table, lengths, is_causal=True, return_lse=True, return_weights=True
    )
    got = (*got[:2], got[2][..., :200])
    check_attention(got, query, key, value, is_causal="lower_right", kv_lengths=lengths)


def test_sequences_share_blocks():
    """Two sequences with one beginning: its blocks are named twice."""
    rng = np.random.default_rng(3)
    query = normal(rng, (2, 4, 5, 16))
    key, value = normal(rng, (2, 2, 60, 16)), normal(rng, (2, 2, 60, 16))
    key[1, :, :32], value[1, :, :32] = key[0, :, :32], value[0, :, :32]
    key_cache, value_cache, table = paged(rng, key, value, [60, 60], 16)
    key_cache[table[1, :2]] = np.nan
    table[1, :2] = table[0, :2]
    got = swiftattn.attention_paged(query, key_cache, value_cache, table, [60, 60], is_causal=True)
    same_bits([got], [SDPA(query, key, value, is_causal="lower_right")])
    once = np.repeat(table[:1], 2, 0)
    same_bits(
        swiftattn.attention_paged(query[[0, 0]], key_cache, value_cache, once, [60, 60], is_causal=True),
        [got[0], got[0]],
    )


def test_query_stands_at_the_end():
    rng = np.random.default_rng(4)
    query, key, value = normal(rng, (1, 1, 2, 4)), normal(rng, (1, 1, 4, 4)), np.eye(4, dtype=np.float32)[None, None]
    caches = paged(rng, key, value, [4], 3)

    def seen(**options):
        return (swiftattn.attention_paged(query, *caches, [4], **options)[0, 0] > 0).astype(int).tolist()

    assert seen() == [[1, 1, 1, 1], [1, 1, 1, 1]]
    assert seen(is_causal=True) == seen(is_causal="lower_right") == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen(is_causal="upper_left") == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert seen(window=(1, 0)) == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert seen(window=(1, 0), query_offset=0) == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert seen(is_causal=True, query_offset=[-1]) == [[0, 0, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(8))
def test_any_strides(dtype, seed):
    rng = np.random.default_rng([5, seed])
    query, key, value, options = random_problem(rng, dtype, longest=110)
    options.pop("attn_mask", None)
    blocks = dict(layout=lambda cache: strided(rng, cache))
    same_bits(*both(rng, query, key, value, options, int(rng.choice([1, 4, 9, 128])), blocks))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_no_byte_beyond(side, dtype):
    rng = np.random.default_rng(6)
    for block_size in (1, 3, 16, 200):
        for width in (1, 15, 64):
            query = normal(rng, (2, 2, 3, width), dtype)
            key, value = normal(rng, (2, 1, 101, width), dtype), normal(rng, (2, 1, 101, 17), dtype)
            lengths = np.array([101, 50], np.int32)
            arrays = paged(rng, key, value, lengths, block_size, spare=0)
            got = swiftattn.attention_paged(
                *(guarded(x, side) for x in (query, *arrays, lengths)), is_causal=True, return_weights="scaled"
            )
            dense = SDPA(query, key, value, is_causal="lower_right", kv_lengths=lengths)
            same_bits([got[0]], [dense])
            assert (got[1][1, :, :, 50:] == 0).all()


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("asked", ["float32", "float16", "bfloat16"])
def test_caches_of_another_dtype_are_widened(stored, asked):
    """The bits of float32 attention on the widened numbers, rounded once."""
    rng = np.random.default_rng(7)
    query = normal(rng, (2, 4, 6, 33), asked)
    key, value = normal(rng, (2, 2, 150, 33), stored), normal(rng, (2, 2, 150, 20), stored)
    arrays = paged(rng, key, value, [150, 99], 8)
    got = swiftattn.attention_paged(query, *arrays, [150, 99], is_causal=True, return_lse=True)
    if stored == asked:
        dense = SDPA(query, key, value, is_causal="lower_right", kv_lengths=[150, 99], return_lse=True)
    else:
        wide = (x.astype(np.float32) for x in (query, key, value))
        dense = SDPA(*wide, is_causal="lower_right", kv_lengths=[150, 99], return_lse=True)
        dense = (dense[0].astype(DTYPES[asked]), dense[1])
    same_bits(got, dense)


def test_split_keys_merge_to_the_whole():
    """Tables of the first and of the last blocks, in two calls, merged."""
    rng = np.random.default_rng(8)
    query, key, value = normal(rng, (1, 4, 1, 64)), normal(rng, (1, 2, 320, 64)), normal(rng, (1, 2, 320, 64))
    key_cache, value_cache, table = paged(rng, key, value, [320], 16)
    whole = swiftattn.attention_paged(query, key_cache, value_cache, table, [320], return_lse=True)
    parts = [
        swiftattn.attention_paged(query, key_cache, value_cache, part, [n], return_lse=True)
        for part, n in ((table[:, :7], 112), (table[:, 7:], 208))
    ]
    out, lse = swiftattn.merge_attention_states(*zip(*parts))
    exact = [x.astype(np.float64) for x in whole]
    assert_accurate(out, exact[0], exact[0], "out")
    assert_accurate(lse, exact[1], exact[1], "lse")


def test_empty_sequences_and_zero_sizes():
    query, cache = np.ones((2, 2, 3, 4), np.float32), np.full((0, 16, 1, 4), 1, np.float32)
    out, lse = swiftattn.attention_paged(query, cache, cache, np.full((2, 1), 7, np.int32), [0, 0], return_lse=True)
    assert (out == 0).all() and (lse == -np.inf).all()
    none = np.zeros((2, 0), np.int32)
    assert (swiftattn.attention_paged(query, cache, cache, none, [0, 0]) == 0).all()
    thin = np.zeros((3, 0, 1, 4), np.float32)
    assert (swiftattn.attention_paged(query, thin, thin, np.zeros((2, 5), np.int32), [0, 0]) == 0).all()
    assert swiftattn.attention_paged(query[:0], cache, cache, none[:0], []).shape == (0, 2, 3, 4)


@pytest.mark.parametrize("number", [-1, 5, 2**31 - 1, -(2**31), 2**40])
def test_blocks_out_of_range(number):
    """In the used part they are an error, which touches nothing; in the unused part they are fine."""
    query, cache = np.ones((2, 1, 1, 4), np.float32), np.ones((5, 4, 1, 4), np.float32)
    table = np.array([[0, 1, number], [2, 3, 4]], np.int64)
    out = np.full((2, 1, 1, 4), 7, np.float32)
    assert (swiftattn.attention_paged(query, cache, cache, table, [8, 12]) == 1).all()
    with pytest.raises(ValueError, match=rf"block_table: entry \(0, 2\) is {number}, expected 0 <= block < 5"):
        swiftattn.attention_paged(query, cache, cache, table, [9, 12], out=out)
    assert (out == 7).all()
