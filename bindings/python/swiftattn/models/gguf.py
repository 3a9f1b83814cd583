"""GGUF files: metadata and tensors, read by the library."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from ctypes import byref, c_char_p, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np

from .. import _ffi
from .._tensor import borrow


class GGUFFile(Mapping):
    """The metadata of a GGUF file as a mapping, and its tensors by name.

    Values are int, float, bool, str, or for arrays a list of str or a NumPy array of int64 or float64. Arrays of arrays are
    None. The file must not shrink while it is open.

    Args:
        path: of a file of version 2 or 3.

    Raises ValueError with the C library's message for a file that is cut short, contradicts itself or is none at all.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._handle = c_void_p()
        _ffi.gguf_open(encoded(path), byref(self._handle))
        keys, tensors = c_int64(), c_int64()
        _ffi.gguf_count(self._handle, byref(keys), byref(tensors))
        self._keys = {self._key(index)[0]: index for index in range(keys.value)}
        self._tensors = dict(self._tensor(index) for index in range(tensors.value))

    def __del__(self, close=_ffi.gguf_close) -> None:
        close(getattr(self, "_handle", None))

    def _key(self, index: int) -> tuple[str, int, bool, int]:
        name, type_, is_array, count = c_char_p(), c_int32(), c_int32(), c_int64()
        _ffi.gguf_key(self._handle, index, byref(name), byref(type_), byref(is_array), byref(count))
        return name.value.decode(), type_.value, bool(is_array.value), count.value

    def _tensor(self, index: int) -> tuple[str, tuple[int, int, tuple[int, ...]]]:
        name, format_, ndim, shape = c_char_p(), c_int32(), c_int32(), (c_int64 * 4)()
        _ffi.gguf_tensor(self._handle, index, byref(name), byref(format_), byref(ndim), shape)
        return name.value.decode(), (index, format_.value, tuple(shape[: ndim.value]))

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __getitem__(self, key: str) -> Any:
        index = self._keys[key]
        _, type_, is_array, count = self._key(index)
        if type_ == _ffi.GGUF_ARRAY:
            return None
        if type_ == _ffi.GGUF_STRING:
            values: Any = self._strings(index, count)
        else:
            values = np.empty(count, np.float64 if type_ in (_ffi.GGUF_FLOAT32, _ffi.GGUF_FLOAT64) else np.int64)
            _ffi.gguf_numbers(self._handle, index, borrow(values, "out", True))
        if is_array:
            return values
        return bool(values[0]) if type_ == _ffi.GGUF_BOOL else values[0] if type_ == _ffi.GGUF_STRING else values[0].item()

    def _strings(self, index: int, count: int) -> list[str]:
        text, offsets = c_void_p(), ctypes.POINTER(c_int64)()
        _ffi.gguf_strings(self._handle, index, byref(text), byref(offsets))
        ends = offsets[: count + 1]
        together = ctypes.string_at(text.value, ends[count])
        return [together[first:end].decode() for first, end in zip(ends, ends[1:])]

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, in NumPy's order of dims."""
        return {name: shape for name, (_, _, shape) in self._tensors.items()}

    def tensor_format(self, name: str) -> int:
        """The file's number of a tensor's format: 0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0, 12 Q4_K, 14 Q6_K, 30 BF16, others."""
        return self._tensors[name][1]

    def tensor(self, name: str) -> np.ndarray:
        """The elements of a tensor, dequantised to float32. Raises TypeError for a format that the library does not read."""
        index, _, shape = self._tensors[name]
        out = np.empty(shape, np.float32)
        _ffi.gguf_load(self._handle, index, borrow(out, "out", True))
        return out


def encoded(path: str | os.PathLike) -> bytes:
    """A path for C, which ends at the first zero byte."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError(f"path: {path!r} contains a zero byte")
    return name
