"""Caches of keys and values: what decoding attends over."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import _ffi
from ._ffi import KVCacheOptions, Tensor
from ._tensor import Array, ArrayLike, borrow, borrow_integers, choice, integer, lend
from .attention import _CAUSAL_AT_END, _options, _results, _returned, _set_padding

STORAGE = {
    "float32": (2, 32),
    "float16": (2, 16),
    "bfloat16": (4, 16),
    "int8": (0, 8),
}


class KVCache:
    """Keys and values of the tokens seen so far, for `batch` sequences of at most `max_len` tokens each.

    The memory is taken once, and written in place; the system lends it page by page, as tokens come. Each sequence
    (entry) has a length of its own.

    Args:
        batch: B, the number of sequences.
        kv_heads: Hkv.
        max_len: the tokens that an entry has room for.
        head_dim: D of the keys.
        value_dim: Dv of the values; None is head_dim.
        dtype: of the storage, a name or a dtype: float32, float16, bfloat16 or int8. An int8 row (one token of one
            head) has a float32 scale::

                scale = max_i |x[i]| / 127;  q[i] = x[i] / scale, rounded to nearest, ties to even

            and stands for scale * q[i], off by at most scale / 2. A row of zeros has scale 0, one with NaN or Inf is
            NaN as a whole.

    Any number of threads may read a cache at once, while none changes it.
    Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
    """

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        max_len: int,
        head_dim: int,
        value_dim: int | None = None,
        dtype: Any = "float32",
    ) -> None:
        options = KVCacheOptions(
            struct_size=ctypes.sizeof(KVCacheOptions),
            batch=integer(batch, "batch"),
            kv_heads=integer(kv_heads, "kv_heads"),
            max_len=integer(max_len, "max_len"),
            head_dim=integer(head_dim, "head_dim"),
            dtype=storage(dtype, "dtype"),
        )
        if value_dim is not None:
            options.flags = _ffi.KV_CACHE_HAS_VALUE_DIM
            options.value_dim = integer(value_dim, "value_dim")
        self._handle = ctypes.c_void_p()
        _ffi.kv_cache_create(options, ctypes.byref(self._handle))
        self._set_sizes(options)

    def _set_sizes(self, options: KVCacheOptions) -> None:
        self._options = options
        self.batch = options.batch
        self.kv_heads = options.kv_heads
        self.max_len = options.max_len
        self.head_dim = options.head_dim
        self.value_dim = options.value_dim if options.flags else options.head_dim
        self.dtype = _name_of(options.dtype)

    def __del__(self, destroy=_ffi.kv_cache_destroy) -> None:
        destroy(getattr(self, "_handle", None))

    def __repr__(self) -> str:
        return (
            f"KVCache(batch={self.batch}, kv_heads={self.kv_heads}, max_len={self.max_len}, head_dim={self.head_dim}, "
            f"value_dim={self.value_dim}, dtype={self.dtype!r})"
        )

    def append(self, key: ArrayLike, value: ArrayLike, lengths: ArrayLike | None = None) -> None:
        """Adds tokens behind those that each entry holds, rounded or quantised to the storage's dtype.

        Args:
            key: (B, Hkv, T, D), float32, float16 or bfloat16.
            value: (B, Hkv, T, Dv), likewise.
            lengths: (B,) integers, how many of the T tokens each entry takes, the first ones; None is all of them.

        Tokens beyond max_len are a ValueError, and no entry is changed.
        """
        counts = None if lengths is None else borrow_integers(lengths, "lengths")
        _ffi.kv_cache_append(self._handle, borrow(key, "key"), borrow(value, "value"), counts)

    def attend(
        self,
        query: ArrayLike,
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
        """Attention of query over the tokens that the cache holds: append first, then attend.

        Args:
            query: (B, Hq, Tq, D), float32, float16 or bfloat16; Hkv divides Hq. Storage of another dtype is widened to
                float32 as it is read.
            attn_mask: broadcast to (B, Hq, Tq, L); L is the longest entry's length.
            is_causal: True (the default) means "lower_right": the last query stands at its entry's last token, query 0
                at kv_length - q_length, also for window and ALiBi. "upper_left" or query_offset say otherwise. False
                lets every query see every token: the memory of an encoder.
            q_lengths: (B,) after a ragged append the lengths that were appended.
            return_lse: also return lse (B, Hq, Tq), float32.
            return_weights: also return (B, Hq, Tq, L).

        All else, formula and errors, as in scaled_dot_product_attention. With storage of query's dtype the bits are
        those of the same keys in an array, with int8 those of the float32 keys scale * q.

        Returns:
            out (B, Hq, Tq, Dv), or a tuple with lse and the weights, in this order.
        """
        q = borrow(query, "query")
        options = _options(
            *(q, choice(_CAUSAL_AT_END, is_causal, "is_causal")),
            *(dropout_p, scale, query_offset, window, softcap, alibi_slopes, sinks, seed, precision),
        )
        columns = int(self.lengths.max(initial=0)) if return_weights else 0
        _set_padding(options, q, attn_mask, q_lengths)
        results = _results(q, options, q.dims[:-1], [self.value_dim], [columns], return_lse, return_weights, out)
        _ffi.attention_kv_cache(q, self._handle, options, *results)
        return _returned(results[0] if out is None else out, *results[1:])

    def truncate(self, n: int | ArrayLike) -> None:
        """Forgets all but the first n tokens of each entry; n is an int or (B,) integers.

        Entries that hold fewer stay as they are.
        """
        if getattr(n, "ndim", 0) == 0 and not isinstance(n, (list, tuple)):
            _ffi.kv_cache_truncate(self._handle, integer(n, "n"), None)
        else:
            _ffi.kv_cache_truncate(self._handle, 0, borrow_integers(n, "lengths"))

    def reset(self) -> None:
        """Forgets all tokens."""
        self.truncate(0)

    def fork(self, indices: ArrayLike | None = None) -> KVCache:
        """A cache of its own whose entry i is a copy of this one's entry indices[i]; None copies them all in order."""
        sources = None if indices is None else borrow_integers(indices, "indices")
        fork = KVCache.__new__(KVCache)
        fork._handle = ctypes.c_void_p()
        _ffi.kv_cache_fork(self._handle, sources, ctypes.byref(fork._handle))
        options = KVCacheOptions.from_buffer_copy(self._options)
        options.batch = self.batch if sources is None else sources.dims[0]
        fork._set_sizes(options)
        return fork

    def reorder(self, indices: ArrayLike) -> None:
        """Entry i becomes what entry indices[i] was, in place; (B,) integers: the beams of a search that live on."""
        _ffi.kv_cache_reorder(self._handle, borrow_integers(indices, "indices"))

    def _views(self) -> list[Tensor]:
        """keys, values, key_scales, value_scales, lengths."""
        views = [Tensor() for _ in range(5)]
        _ffi.kv_cache_view(self._handle, *views)
        return views

    @property
    def keys(self) -> np.ndarray:
        """(B, Hkv, L, D), a view of the cache; L is the longest entry's length.

        What lies past an entry's own length has no meaning.
        """
        return lend(self._views()[0], self)

    @property
    def values(self) -> np.ndarray:
        """(B, Hkv, L, Dv), a view of the cache, as keys."""
        return lend(self._views()[1], self)

    @property
    def key_scales(self) -> np.ndarray | None:
        """(B, Hkv, L) float32, a view of the cache; None unless the storage is int8."""
        return lend(self._views()[2], self) if self.dtype == "int8" else None

    @property
    def value_scales(self) -> np.ndarray | None:
        """(B, Hkv, L) float32, a view of the cache; None unless the storage is int8."""
        return lend(self._views()[3], self) if self.dtype == "int8" else None

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64, the tokens that each entry holds now; a copy."""
        return lend(self._views()[4], self).copy()


def _name_of(dtype: _ffi.DType) -> str:
    return next(name for name, stored in STORAGE.items() if stored == (dtype.code, dtype.bits))


def storage(dtype: Any, argument: str) -> _ffi.DType:
    """What a cache stores, of a name, or of a dtype of NumPy, ml_dtypes, torch or JAX."""
    name = dtype
    if not isinstance(dtype, str):
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = str(dtype).removeprefix("torch.")
    if name not in STORAGE:
        raise TypeError(f"{argument}: expected one of {', '.join(STORAGE)}, got {name}")
    return _ffi.DType(*STORAGE[name], 1)
