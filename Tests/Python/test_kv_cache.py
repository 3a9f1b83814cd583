"""KVCache: what it stores, and that a failure changes nothing."""

import ml_dtypes
import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, guarded, normal, strided

INPUTS = ["float32", "float16", "bfloat16"]
STORAGE = [*INPUTS, "int8"]


def filled(rng, dtype="float32", batch=3, kv_heads=2, max_len=20, head_dim=5, value_dim=7, lengths=(4, 0, 9)):
    """A cache with entries of these lengths, and what was appended: (cache, keys, values)."""
    cache = swiftattn.KVCache(batch, kv_heads, max_len, head_dim, value_dim, dtype)
    longest = max(lengths)
    key, value = (normal(rng, (batch, kv_heads, longest, width)) for width in (head_dim, value_dim))
    cache.append(key, value, lengths)
    return cache, key, value


def contents(cache):
    """Each entry's valid rows, as bytes: keys, values and their scales."""
    arrays = [cache.keys, cache.values, cache.key_scales, cache.value_scales]
    return [
        [x[b, :, :n].tobytes() for b, n in enumerate(cache.lengths)] for x in arrays if x is not None
    ], cache.lengths.tolist()


@pytest.mark.parametrize("source", INPUTS)
@pytest.mark.parametrize("dtype", INPUTS)
@pytest.mark.parametrize("width", [1, 3, 16, 64, 77])
def test_rounds_once_to_its_dtype(dtype, source, width):
    rng = np.random.default_rng(width)
    key, value = (normal(rng, (2, 3, 7, width), source) * np.float32(0.1) for _ in range(2))
    key, value = key.astype(DTYPES[source]), value.astype(DTYPES[source])
    key[0, 0, 0, 0], key[1, 2, 3, 0], value[0, 1, 5, -1] = np.inf, np.nan, 6.0e-8
    cache = swiftattn.KVCache(2, 3, 9, width, dtype=dtype)
    cache.append(strided(rng, key[:, :, :4]), strided(rng, value[:, :, :4]))
    cache.append(key[:, :, 4:5], value[:, :, 4:5])
    cache.append(key[:, :, 5:], strided(rng, value[:, :, 5:]))
    assert cache.lengths.tolist() == [7, 7] and cache.lengths.dtype == np.int64
    for got, expected in ((cache.keys, key), (cache.values, value)):
        assert got.dtype == DTYPES[dtype] and got.shape == (2, 3, 7, width)
        np.testing.assert_array_equal(got.astype(np.float32), expected.astype(DTYPES[dtype]).astype(np.float32))
    assert cache.key_scales is None and cache.value_scales is None


@pytest.mark.parametrize("source", INPUTS)
@pytest.mark.parametrize("width", [1, 7, 16, 33, 128])
def test_int8_is_the_formula(source, width):
    rng = np.random.default_rng(width)
    key = (normal(rng, (2, 2, 40, width)) * np.exp(rng.uniform(-20, 8, (2, 2, 40, 1)))).astype(DTYPES[source])
    key[0, 0, 3] = 0
    key[0, 1, 4, width // 2] = np.nan
    key[1, 0, 5, width - 1] = -np.inf
    if source == "float32":
        key[1, 1, 6] = 1.0e-44  # its scale is subnormal
        key[1, 1, 7] = 3.4e38
        key[1, 1, 8, :] = np.resize([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], width)  # ties go to the even one
    cache = swiftattn.KVCache(2, 2, 64, width, dtype="int8")
    cache.append(strided(rng, key), key)
    q, scales = reference.int8_rows(key.astype(np.float32))
    for rows, got in ((cache.keys, cache.key_scales), (cache.values, cache.value_scales)):
        assert rows.dtype == np.int8 and got.dtype == np.float32
        np.testing.assert_array_equal(rows, q)
        np.testing.assert_array_equal(got, scales)
    usual = np.isfinite(scales) & (scales > 1e-37)
    error = np.abs(q.astype(np.float64) * scales[..., None].astype(np.float64) - key.astype(np.float64))
    assert (error[usual] <= scales[usual, None].astype(np.float64) * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("dtype", STORAGE)
def test_ragged_appends_truncate_and_reset(dtype):
    """Any sequence of steps leaves what a list of rows for each entry would hold."""
    rng = np.random.default_rng(7)
    batch, heads, room = 4, 2, 30
    cache = swiftattn.KVCache(batch, heads, room, 6, 3, dtype)
    held = [[] for _ in range(batch)]
    for _ in range(60):
        step = rng.integers(4)
        if step < 2:
            tokens = int(rng.integers(0, 5))
            key, value = normal(rng, (batch, heads, tokens, 6)), normal(rng, (batch, heads, tokens, 3))
            counts = [int(rng.integers(0, min(tokens, room - len(rows)) + 1)) for rows in held]
            cache.append(key, value, np.array(counts, [np.int32, np.int64][rng.integers(2)]))
            for b, count in enumerate(counts):
                held[b] += [(key[b, :, t], value[b, :, t]) for t in range(count)]
        elif step == 2:
            n = int(rng.integers(10, 30))
            cache.truncate(n)
            held = [rows[:n] for rows in held]
        else:
            counts = rng.integers(5, 40, batch)
            cache.truncate(counts)
            held = [rows[:n] for rows, n in zip(held, counts)]
        assert cache.lengths.tolist() == [len(rows) for rows in held]
        assert cache.keys.shape[2] == max(map(len, held))
        for b, rows in enumerate(held):
            once = swiftattn.KVCache(1, heads, room, 6, 3, dtype)
            if rows:
                once.append(*(np.stack(part, axis=1)[None] for part in zip(*rows)))
            for name in ("keys", "values", "key_scales", "value_scales"):
                got, expected = getattr(cache, name), getattr(once, name)
                if expected is not None:
                    np.testing.assert_array_equal(got[b, :, : len(rows)], expected[0])
    cache.reset()
    assert cache.lengths.tolist() == [0] * batch and cache.keys.shape == (batch, heads, 0, 6)


@pytest.mark.parametrize("dtype", STORAGE)
def test_fork_and_reorder(dtype):
    """All kinds of maps: permutations with cycles, chains, many from one."""
    rng = np.random.default_rng(8)
    batch = 6
    for trial in range(40):
        lengths = rng.integers(0, 12, batch)
        lengths[0] = 11
        cache, _, _ = filled(rng, dtype, batch, lengths=lengths)
        before, old = contents(cache)
        indices = rng.permutation(batch) if trial % 2 else rng.integers(0, batch, batch)
        fork = cache.fork(indices[: trial % 5])
        assert fork.batch == trial % 5 and fork.dtype == dtype and fork.max_len == cache.max_len
        assert contents(fork)[1] == [old[i] for i in indices[: trial % 5]]
        assert contents(fork)[0] == [[rows[i] for i in indices[: trial % 5]] for rows in before]
        assert contents(cache) == (before, old)
        cache.reorder(indices)
        assert contents(cache) == ([[rows[i] for i in indices] for rows in before], [old[i] for i in indices])
    twin = cache.fork()
    assert contents(twin) == contents(cache)
    twin.append(np.ones((batch, 2, 1, 5), np.float32), np.ones((batch, 2, 1, 7), np.float32))
    assert (twin.lengths == cache.lengths + 1).all()


def test_views_are_of_the_cache_and_keep_it_alive():
    rng = np.random.default_rng(9)
    cache, key, _ = filled(rng)
    keys = cache.keys
    cache.append(key[:, :, :1], np.zeros((3, 2, 1, 7), np.float32), [0, 1, 0])
    np.testing.assert_array_equal(keys[1, :, :1], key[1, :, :1])
    keys[2, 1, 8] = 5
    assert (cache.keys[2, 1, 8] == 5).all()
    del cache
    np.testing.assert_array_equal(keys[2, 0, :9], key[2, 0, :9])


@pytest.mark.parametrize("dtype", STORAGE)
def test_reads_no_byte_beyond_its_inputs(dtype):
    rng = np.random.default_rng(10)
    for source in INPUTS:
        for width in (1, 15, 17, 40):
            for side in ("left", "right"):
                cache = swiftattn.KVCache(1, 2, 5, width, dtype=dtype)
                key, value = (guarded(normal(rng, (1, 2, 5, width), source), side) for _ in range(2))
                cache.append(key, value)
                assert cache.lengths.tolist() == [5]


def test_dtype_names():
    for dtype in (np.float16, np.dtype(np.float16), "float16"):
        assert swiftattn.KVCache(1, 1, 1, 1, dtype=dtype).dtype == "float16"
    assert swiftattn.KVCache(1, 1, 1, 1, dtype=ml_dtypes.bfloat16).dtype == "bfloat16"
    assert swiftattn.KVCache(1, 1, 1, 1, dtype=np.int8).dtype == "int8"


def test_zero_sizes():
    for sizes in ((0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)):
        cache = swiftattn.KVCache(*sizes, value_dim=0)
        cache.append(np.zeros((*sizes[:2], 0, sizes[3]), np.float32), np.zeros((*sizes[:2], 0, 0), np.float32))
        assert cache.lengths.tolist() == [0] * sizes[0]
        assert contents(cache.fork()) == contents(cache)


def test_a_cache_costs_what_it_holds():
    """Room for four gigabytes, of which a few rows are written."""
    cache = swiftattn.KVCache(1, 1, 1 << 20, 1 << 9)
    before = _resident()
    row = np.ones((1, 1, 3, 1 << 9), np.float32)
    cache.append(row, row)
    assert _resident() - before < 1 << 22


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def one(width=4, tokens=1, dtype=np.float32, batch=2):
    return np.ones((batch, 3, tokens, width), dtype)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda c: c.append(one(tokens=3), one(tokens=3)), ValueError, "key: entry 1 holds 2 tokens of at most 4, 3 more"),
        (lambda c: c.append(one(5), one()), ValueError, r"key: shape is \(2, 3, 1, 5\), expected \(2, 3, 1, 4\)"),
        (lambda c: c.append(one(), one(5)), ValueError, r"value: shape is \(2, 3, 1, 5\), expected"),
        (lambda c: c.append(one(), one(tokens=2)), ValueError, "value: length is 2, key has 1"),
        (lambda c: c.append(one()[0], one()), ValueError, "key: rank is 3, expected 4"),
        (lambda c: c.append(one(batch=1), one()), ValueError, r"key: shape is \(1, 3, 1, 4\)"),
        (lambda c: c.append(one(dtype=np.float64), one()), TypeError, "key: dtype is float64, expected float32, float16 or"),
        (lambda c: c.append(one(), one(dtype=np.int8)), TypeError, "value: dtype is int8"),
        (lambda c: c.append(one(), one(), [1]), ValueError, r"lengths: shape is \(1,\), expected \(2,\)"),
        (lambda c: c.append(one(), one(), [1, 2]), ValueError, "lengths: entry 1 is 2, expected 0 to 1"),
        (lambda c: c.append(one(), one(), [-1, 0]), ValueError, "lengths: entry 0 is -1"),
        (lambda c: c.append(one(), one(), [0.5, 0]), TypeError, "lengths: dtype is float64, expected int32 or int64"),
        (lambda c: c.append(c.keys, c.values), ValueError, "cache: overlaps key"),
        (lambda c: c.truncate(-1), ValueError, "length: expected at least 0, got -1"),
        (lambda c: c.truncate([1, -1]), ValueError, "lengths: entry 1 is -1"),
        (lambda c: c.truncate([1]), ValueError, r"lengths: shape is \(1,\), expected \(2,\)"),
        (lambda c: c.truncate(1.5), TypeError, "n: expected an int, got float"),
        (lambda c: c.reorder([0, 2]), ValueError, "indices: entry 1 is 2, expected 0 <= index < 2"),
        (lambda c: c.reorder([0]), ValueError, r"indices: shape is \(1,\), expected \(2,\)"),
        (lambda c: c.fork([-1]), ValueError, "indices: entry 0 is -1"),
        (lambda c: c.fork([[0]]), ValueError, "indices: rank is 2, expected 1"),
    ],
)
def test_errors_change_nothing(call, error, message):
    cache = swiftattn.KVCache(2, 3, 4, 4)
    cache.append(one(tokens=2), one(tokens=2), [1, 2])
    before = contents(cache)
    with pytest.raises(error, match=message):
        call(cache)
    assert contents(cache) == before


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((-1, 1, 1, 1), ValueError, "batch: expected at least 0, got -1"),
        ((1, 1, 1, 1, -2), ValueError, "value_dim: expected at least 0, got -2"),
        ((1, 1, 1.5, 1), TypeError, "max_len: expected an int"),
        ((1, 1, 1, 1, None, "float64"), TypeError, "dtype: expected one of float32, float16, bfloat16, int8, got float64"),
        ((1, 1, 1, 1, None, 7), TypeError, "dtype: "),
        ((1 << 30, 1 << 30, 1 << 30, 1), MemoryError, "memory"),
        ((1, 1, 1 << 50, 4), MemoryError, "memory"),
    ],
)
def test_sizes_that_cannot_be(arguments, error, message):
    with pytest.raises(error, match=message):
        swiftattn.KVCache(*arguments)
