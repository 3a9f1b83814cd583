"""What the tests of caches share: the same problem in one piece and in a cache."""

from __future__ import annotations

import numpy as np
import swiftattn


def same_bits(got, expected):
    """Outputs in the same dtypes with the same bits; the sign of a zero and the kind of a NaN count."""
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, f"{a.dtype} {a.shape}, expected {b.dtype} {b.shape}"
        np.testing.assert_array_equal(
            np.ascontiguousarray(a).view(np.uint8).reshape(-1), np.ascontiguousarray(b).view(np.uint8).reshape(-1)
        )


def at_the_end(query, lengths, options):
    """Options for scaled_dot_product_attention that mean what attention over a cache means by `options`."""
    result = {**options, "kv_lengths": lengths}
    causal = options.get("is_causal", False)
    if result.get("query_offset") is None and causal != "upper_left":
        queries = options.get("q_lengths")
        result["query_offset"] = np.asarray(lengths) - (query.shape[2] if queries is None else np.asarray(queries))
    result["is_causal"] = bool(causal)
    return result


def paged(rng, key, value, lengths, block_size, spare=3, in_order=False, layout=np.ascontiguousarray):
    """The first lengths[b] rows of key and value (B, Hkv, T, D) in blocks: (key_cache, value_cache, block_table).

    Blocks lie in no order, unless in_order. What is not used holds NaN in the caches and nonsense in the table.
    """
    batch, heads, length, _ = key.shape
    used = [-(-int(n) // block_size) for n in lengths]
    order = (np.arange if in_order else rng.permutation)(sum(used) + spare)
    caches = [np.full((len(order), block_size, heads, x.shape[3]), np.nan, x.dtype) for x in (key, value)]
    table = rng.choice([-1, -(2**31), 2**31 - 1, len(order)], (batch, -(-length // block_size) + 1)).astype(np.int32)
    next_block = 0
    for b, blocks in enumerate(used):
        table[b, :blocks] = order[next_block : next_block + blocks]
        next_block += blocks
        for j in range(int(lengths[b])):
            for cache, x in zip(caches, (key, value)):
                cache[table[b, j // block_size], j % block_size] = x[b, :, j]
    return [layout(cache) for cache in caches] + [table]


def cache_of(key, value, lengths, dtype, room=None):
    """A KVCache that holds the first lengths[b] rows of key and value."""
    batch, heads, length, width = key.shape
    cache = swiftattn.KVCache(batch, heads, length if room is None else room, width, value.shape[3], dtype)
    cache.append(key, value, np.asarray(lengths))
    return cache
