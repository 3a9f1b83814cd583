"""PagedKVCache: sequences that share blocks are what lists of tokens would be, and no block is lost."""

import numpy as np
import pytest
import swiftattn
from stored import cache_of, same_bits
from support import normal

STORAGE = ["float32", "float16", "bfloat16", "int8"]
HEADS, WIDTH, VALUE_WIDTH = 2, 12, 5


def new_tokens(rng, batch, tokens):
    return normal(rng, (batch, HEADS, tokens, WIDTH)), normal(rng, (batch, HEADS, tokens, VALUE_WIDTH))


def contents(cache, sequence):
    """The rows of a sequence, keys, values and scales, by its block table."""
    table, length = cache.block_table([sequence])[0], cache.lengths([sequence])[0]
    arrays = [x for x in (cache.keys, cache.values, cache.key_scales, cache.value_scales) if x is not None]
    return [x[table].reshape(-1, *x.shape[2:])[:length] for x in arrays]


def in_one_piece(tokens, dtype):
    """The same of a list of tokens, by way of a KVCache."""
    if not tokens:
        return None
    key, value = (np.stack(part, 1)[None] for part in zip(*tokens))
    cache = cache_of(key, value, [len(tokens)], dtype)
    arrays = [x for x in (cache.keys, cache.values, cache.key_scales, cache.value_scales) if x is not None]
    return [x[0].swapaxes(0, 1) for x in arrays]


@pytest.mark.parametrize("dtype", STORAGE)
@pytest.mark.parametrize("block_size", [1, 4, 7])
def test_any_steps_leave_what_lists_would_hold(dtype, block_size):
    rng = np.random.default_rng(block_size)
    cache = swiftattn.PagedKVCache(80, block_size, HEADS, WIDTH, VALUE_WIDTH, dtype)
    held = {}
    for _ in range(250):
        step = rng.integers(10)
        known = list(held)
        if step == 0 or not known:
            held[cache.open()] = []
        elif step == 1:
            origin = known[rng.integers(len(known))]
            length = int(rng.integers(0, len(held[origin]) + 1)) if rng.random() < 0.5 else None
            held[cache.fork(origin, length)] = held[origin][:length]
        elif step == 2:
            number = known[rng.integers(len(known))]
            cache.close(number)
            del held[number]
        elif step == 3:
            number, n = known[rng.integers(len(known))], int(rng.integers(0, 30))
            cache.truncate(number, n)
            held[number] = held[number][:n]
        else:
            numbers = list(rng.permutation(known)[: rng.integers(1, len(known) + 1)])
            key, value = new_tokens(rng, len(numbers), int(rng.integers(0, 6)))
            counts = rng.integers(0, key.shape[2] + 1, len(numbers))
            free = cache.free_blocks
            try:
                cache.append(numbers, key, value, counts)
            except ValueError as error:
                assert "more blocks are needed" in str(error) and cache.free_blocks == free
            else:
                for b, number in enumerate(numbers):
                    held[number] = held[number] + [(key[b, :, t], value[b, :, t]) for t in range(counts[b])]
        assert cache.lengths(list(held)).tolist() == [len(tokens) for tokens in held.values()]
        used = {block for row in cache.block_table(list(held)) for block in row if block >= 0}
        assert len(used) + cache.free_blocks == 80
    for number, tokens in held.items():
        expected = in_one_piece(tokens, dtype)
        if expected:
            same_bits(contents(cache, number), expected)
    for number in held:
        cache.close(number)
    assert cache.free_blocks == 80


def test_forks_share_until_they_differ():
    rng = np.random.default_rng(0)
    cache = swiftattn.PagedKVCache(10, 4, HEADS, WIDTH, VALUE_WIDTH)
    prompt = cache.open()
    cache.append([prompt], *new_tokens(rng, 1, 10))
    assert cache.free_blocks == 7
    beams = [prompt, cache.fork(prompt), cache.fork(prompt), cache.fork(prompt, 8)]
    assert cache.free_blocks == 7
    assert (cache.block_table(beams[:3]) == cache.block_table([prompt])).all()
    assert cache.block_table(beams[3:]).tolist() == [cache.block_table([prompt])[0, :2].tolist()]
    cache.append(beams[:3], *new_tokens(rng, 3, 1))  # the last to append keeps the shared block
    assert cache.free_blocks == 5
    table = cache.block_table(beams[:3])
    assert len(set(table[:, 2])) == 3 and (table[:, :2] == table[0, :2]).all()
    cache.append([beams[3]], *new_tokens(rng, 1, 1))  # its last block is full: nothing to copy
    assert cache.free_blocks == 4
    for beam in beams[:3]:
        cache.close(beam)
    assert cache.free_blocks == 7 and cache.lengths([beams[3]]).tolist() == [9]


@pytest.mark.parametrize("stored", STORAGE)
@pytest.mark.parametrize("asked", ["float32", "float16", "bfloat16"])
def test_attends_as_one_piece(stored, asked):
    """Through the cache, through attention_paged on its arrays, and as a KVCache: the same bits."""
    rng = np.random.default_rng(1)
    cache = swiftattn.PagedKVCache(64, 16, HEADS, WIDTH, VALUE_WIDTH, stored)
    numbers = [cache.open() for _ in range(3)]
    key, value = new_tokens(rng, 3, 200)
    lengths = [200, 3, 97]
    for first in range(0, 200, 50):
        some = np.clip(np.array(lengths) - first, 0, 50)
        cache.append(numbers, key[:, :, first : first + 50], value[:, :, first : first + 50], some)
    query = normal(rng, (3, 4, 2, WIDTH), asked)
    expected = cache_of(key, value, lengths, stored).attend(query, return_lse=True, return_weights=True)
    got = cache.attend(query, numbers, return_lse=True, return_weights=True)
    same_bits(got, expected)
    if stored != "int8":
        table = cache.block_table(numbers)
        paged = swiftattn.attention_paged(query, cache.keys, cache.values, table, lengths, is_causal=True)
        same_bits([paged], expected[:1])
    twice = cache.attend(query[[0, 0, 1]], [numbers[0], numbers[0], numbers[1]])
    same_bits([twice], [expected[0][[0, 0, 1]]])


def make():
    cache = swiftattn.PagedKVCache(3, 4, HEADS, WIDTH, VALUE_WIDTH)
    first, second = cache.open(), cache.open()
    cache.append([first], *new_tokens(np.random.default_rng(2), 1, 6))
    cache.close(second)
    return cache, first, second


def ones(batch, tokens, width=WIDTH):
    return np.ones((batch, HEADS, tokens, width), np.float32)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda c, a, b: c.append([a], ones(1, 7), ones(1, 7, 5)), ValueError, "key: 2 more blocks are needed, 1 of 3 are"),
        (lambda c, a, b: c.append([b], ones(1, 1), ones(1, 1, 5)), ValueError, "sequence: 1 is not open"),
        (lambda c, a, b: c.append([a, a], ones(2, 1), ones(2, 1, 5)), ValueError, "sequences: expected each once"),
        (lambda c, a, b: c.append([a], ones(2, 1), ones(1, 1, 5)), ValueError, "key: shape is"),
        (lambda c, a, b: c.append([a], ones(1, 1), ones(1, 1)), ValueError, "value: shape is"),
        (lambda c, a, b: c.append([a], ones(1, 1), ones(1, 1, 5), [2]), ValueError, "lengths: entry 0 is 2"),
        (lambda c, a, b: c.append([0.5], ones(1, 1), ones(1, 1, 5)), TypeError, "sequences: dtype is float64"),
        (lambda c, a, b: c.fork(b), ValueError, "sequence: 1 is not open"),
        (lambda c, a, b: c.fork(a, 7), ValueError, "length: expected 0 to 6, got 7"),
        (lambda c, a, b: c.fork(a, -1), ValueError, "length"),
        (lambda c, a, b: c.close(b), ValueError, "sequence: 1 is not open"),
        (lambda c, a, b: c.truncate(a, -1), ValueError, "length: expected at least 0"),
        (lambda c, a, b: c.truncate(99, 1), ValueError, "sequence: 99 is not open"),
        (lambda c, a, b: c.lengths([a, b]), ValueError, "sequence: 1 is not open"),
        (lambda c, a, b: c.attend(np.ones((1, 2, 1, WIDTH), np.float32), [b]), ValueError, "sequence: 1 is not open"),
        (lambda c, a, b: c.attend(np.ones((1, 2, 1, WIDTH), np.float32), [a, a]), ValueError, "query: batch is 1"),
    ],
)
def test_errors_change_nothing(call, error, message):
    cache, first, second = make()
    before = contents(cache, first)
    with pytest.raises(error, match=message):
        call(cache, first, second)
    assert cache.free_blocks == 1
    same_bits(contents(cache, first), before)
    assert cache.open() == 2


@pytest.mark.parametrize(
    "sizes, error, message",
    [
        ((-1, 1, 1, 1), ValueError, "num_blocks: expected at least 0, got -1"),
        ((1, 0, 1, 1), ValueError, "block_size: expected at least 1, got 0"),
        ((2**31, 1, 1, 1), ValueError, "num_blocks: expected at most"),
        ((2**30, 2**30, 2**30, 1), MemoryError, "memory"),
        ((1, 1, 1, 1, None, "float64"), TypeError, "dtype: expected one of float32"),
    ],
)
def test_sizes_that_cannot_be(sizes, error, message):
    with pytest.raises(error, match=message):
        swiftattn.PagedKVCache(*sizes)
