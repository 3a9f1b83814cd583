"""A cache of keys and values in blocks, which sequences share where they began alike."""

from __future__ import annotations

import ctypes
from typing import Any, Sequence

import numpy as np

from . import _ffi
from ._ffi import PagedKVCacheOptions, Tensor
from ._tensor import Array, ArrayLike, borrow, borrow_integers, choice, integer, lend
from .attention import _CAUSAL_AT_END, _options, _results, _returned, _set_padding
from .caches import _name_of, storage


class PagedKVCache:
    """Keys and values of any number of sequences, in blocks that they take as they grow and share where they began alike.

    A sequence is known by a number, which is never given twice. A fork shares the blocks of its origin; whoever appends
    to a block that is shared takes a copy of its own first::

        cache = PagedKVCache(1000, 16, kv_heads=8, head_dim=64)
        prompt = cache.open()
        cache.append([prompt], key, value)              # (1, 8, T, 64)
        beams = [prompt, cache.fork(prompt)]            # the prompt's blocks, twice
        cache.append(beams, key, value)                 # (2, 8, 1, 64)
        out = cache.attend(query, beams)                # (2, Hq, 1, 64)

    Args:
        num_blocks: the blocks that all sequences have together.
        block_size: the tokens of a block.
        kv_heads: Hkv.
        head_dim: D of the keys.
        value_dim: Dv of the values; None is head_dim.
        dtype: of the storage, as in KVCache.

    keys and values are what attention_paged takes. Any number of threads may read a cache at once, while none changes
    it. Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    Source: Kwon et al. 2023 (PagedAttention).
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int | None = None,
        dtype: Any = "float32",
    ) -> None:
        options = PagedKVCacheOptions(
            struct_size=ctypes.sizeof(PagedKVCacheOptions),
            num_blocks=integer(num_blocks, "num_blocks"),
            block_size=integer(block_size, "block_size"),
            kv_heads=integer(kv_heads, "kv_heads"),
            head_dim=integer(head_dim, "head_dim"),
            dtype=storage(dtype, "dtype"),
        )
        if value_dim is not None:
            options.flags = _ffi.KV_CACHE_HAS_VALUE_DIM
            options.value_dim = integer(value_dim, "value_dim")
        self._handle = ctypes.c_void_p()
        _ffi.paged_kv_cache_create(options, ctypes.byref(self._handle))
        self.num_blocks = options.num_blocks
        self.block_size = options.block_size
        self.kv_heads = options.kv_heads
        self.head_dim = options.head_dim
        self.value_dim = options.value_dim if options.flags else options.head_dim
        self.dtype = _name_of(options.dtype)

    def __del__(self, destroy=_ffi.paged_kv_cache_destroy) -> None:
        destroy(getattr(self, "_handle", None))

    def __repr__(self) -> str:
        return (
            f"PagedKVCache(num_blocks={self.num_blocks}, block_size={self.block_size}, kv_heads={self.kv_heads}, "
            f"head_dim={self.head_dim}, value_dim={self.value_dim}, dtype={self.dtype!r})"
        )

    def open(self) -> int:
        """A new sequence without tokens: its number."""
        number = ctypes.c_int64()
        _ffi.paged_kv_cache_open(self._handle, ctypes.byref(number))
        return number.value

    def fork(self, sequence: int, length: int | None = None) -> int:
        """A new sequence that begins with the first `length` tokens of another, None is all, and shares their blocks."""
        number = ctypes.c_int64()
        tokens = -1 if length is None else integer(length, "length", 0)
        _ffi.paged_kv_cache_fork(self._handle, integer(sequence, "sequence"), tokens, ctypes.byref(number))
        return number.value

    def close(self, sequence: int) -> None:
        """Gives a sequence up: blocks that nobody else holds are free, and its number means nothing from now on."""
        _ffi.paged_kv_cache_close(self._handle, integer(sequence, "sequence"))

    def truncate(self, sequence: int, n: int) -> None:
        """Forgets all but the first n tokens of a sequence; a shorter one stays as it is."""
        _ffi.paged_kv_cache_truncate(self._handle, integer(sequence, "sequence"), integer(n, "n"))

    def append(
        self, sequences: Sequence[int], key: ArrayLike, value: ArrayLike, lengths: ArrayLike | None = None
    ) -> None:
        """Adds tokens behind those that each sequence holds, rounded or quantised to the storage's dtype.

        Args:
            sequences: B numbers, each once.
            key: (B, Hkv, T, D), float32, float16 or bfloat16.
            value: (B, Hkv, T, Dv), likewise.
            lengths: (B,) integers, how many of the T tokens each sequence takes, the first ones; None is all of them.

        Too few free blocks are a ValueError, and nothing is changed.
        """
        counts = None if lengths is None else borrow_integers(lengths, "lengths")
        numbers = borrow_integers(sequences, "sequences")
        _ffi.paged_kv_cache_append(self._handle, numbers, borrow(key, "key"), borrow(value, "value"), counts)

    def attend(
        self,
        query: ArrayLike,
        sequences: Sequence[int],
        attn_mask: ArrayLike | None = None,
        dropout_p: float = 0.0,
        is_causal: bool | str = True,
        scale: float | None = None,
        *,
        query_offset: int | ArrayLike | None = None,
        window: tuple[int | None, int | None] | None = None,
        softcap: float = 0.0,
        alibi_slopes: ArrayLike | None = None,
        sinks: ArrayLike | None = None,
        q_lengths: ArrayLike | None = None,
        seed: int = 0,
        precision: str = "highest",
        return_lse: bool = False,
        return_weights: bool | str = False,
        out: Array | None = None,
    ) -> Array | tuple[Array, ...]:
        """Attention of query (B, Hq, Tq, D) over B sequences; all else as in KVCache.attend.

        Args:
            sequences: B numbers, any of them any number of times.
        """
        q = borrow(query, "query")
        numbers = borrow_integers(sequences, "sequences")
        options = _options(
            *(q, choice(_CAUSAL_AT_END, is_causal, "is_causal")),
            *(dropout_p, scale, query_offset, window, softcap, alibi_slopes, sinks, seed, precision),
        )
        columns = int(self.lengths(sequences).max(initial=0)) if return_weights else 0
        _set_padding(options, q, attn_mask, q_lengths)
        results = _results(q, options, q.dims[:-1], [self.value_dim], [columns], return_lse, return_weights, out)
        _ffi.attention_paged_kv_cache(q, self._handle, numbers, options, *results)
        return _returned(results[0] if out is None else out, *results[1:])

    def lengths(self, sequences: Sequence[int]) -> np.ndarray:
        """(B,) int64, the tokens that each of the sequences holds."""
        numbers = borrow_integers(sequences, "sequences")
        result = np.empty(numbers.dims, np.int64)
        _ffi.paged_kv_cache_table(self._handle, numbers, None, borrow(result, "lengths", True), None)
        return result

    def block_table(self, sequences: Sequence[int]) -> np.ndarray:
        """(B, max_blocks) int32, the blocks of each sequence in order, then -1: what attention_paged takes."""
        longest = int(self.lengths(sequences).max(initial=0))
        table = np.empty((len(sequences), -(-longest // self.block_size)), np.int32)
        numbers = borrow_integers(sequences, "sequences")
        _ffi.paged_kv_cache_table(self._handle, numbers, borrow(table, "block_table", True), None, None)
        return table

    @property
    def free_blocks(self) -> int:
        """The blocks that no sequence holds."""
        count = ctypes.c_int64()
        _ffi.paged_kv_cache_table(self._handle, borrow_integers([], "sequences"), None, None, ctypes.byref(count))
        return count.value

    def _views(self) -> list[Tensor]:
        """keys, values, key_scales, value_scales."""
        views = [Tensor() for _ in range(4)]
        _ffi.paged_kv_cache_view(self._handle, *views)
        return views

    @property
    def keys(self) -> np.ndarray:
        """(num_blocks, block_size, Hkv, D), a view of the cache; rows that hold no token have no meaning."""
        return lend(self._views()[0], self)

    @property
    def values(self) -> np.ndarray:
        """(num_blocks, block_size, Hkv, Dv), a view of the cache, as keys."""
        return lend(self._views()[1], self)

    @property
    def key_scales(self) -> np.ndarray | None:
        """(num_blocks, block_size, Hkv) float32, a view of the cache; None unless the storage is int8."""
        return lend(self._views()[2], self) if self.dtype == "int8" else None

    @property
    def value_scales(self) -> np.ndarray | None:
        """(num_blocks, block_size, Hkv) float32, a view of the cache; None unless the storage is int8."""
        return lend(self._views()[3], self) if self.dtype == "int8" else None
