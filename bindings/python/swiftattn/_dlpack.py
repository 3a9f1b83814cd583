"""DLPack capsules read through ctypes: numpy.from_dlpack knows no bfloat16."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p, py_object
from typing import Any

_CPU = 1  # kDLCPU
_READ_ONLY = 1  # DLPACK_FLAG_BITMASK_READ_ONLY


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class _DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("manager_ctx", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("dl_tensor", _DLTensor),
    ]


_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = (py_object, c_char_p)
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = c_void_p
_get_pointer.argtypes = (py_object, c_char_p)


class View:
    """What a capsule describes: data, shape, strides in elements, dtype.

    It keeps the capsule and never renames it, so that the capsule, when it goes, calls the producer's deleter itself.
    """

    __slots__ = ("bits", "capsule", "code", "data", "lanes", "read_only", "shape", "source", "strides")

    def __init__(self, source: Any, capsule: Any, name: str):
        self.source = source
        self.capsule = capsule
        if _is_valid(capsule, b"dltensor_versioned"):
            managed = _DLManagedTensorVersioned.from_address(_get_pointer(capsule, b"dltensor_versioned"))
            if managed.major != 1:
                raise ValueError(f"{name}: DLPack version {managed.major}.{managed.minor} is not supported")
            self.read_only = bool(managed.flags & _READ_ONLY)
            tensor = managed.dl_tensor
        elif _is_valid(capsule, b"dltensor"):
            self.read_only = True  # the old protocol cannot say, so nobody promised that writing is fine
            tensor = _DLTensor.from_address(_get_pointer(capsule, b"dltensor"))  # the first field of DLManagedTensor
        else:
            raise TypeError(f"{name}: __dlpack__ gave {type(capsule).__name__} instead of a fresh capsule")
        if tensor.device_type != _CPU:
            raise ValueError(f"{name}: expected an array in CPU memory, got DLPack device type {tensor.device_type}")
        self.code, self.bits, self.lanes = tensor.code, tensor.bits, tensor.lanes
        self.data = (tensor.data or 0) + tensor.byte_offset
        self.shape = tuple(tensor.shape[: tensor.ndim]) if tensor.ndim else ()
        if tensor.strides:
            self.strides = tuple(tensor.strides[: tensor.ndim])
        else:  # NULL stands for row-major
            strides, step = [], 1
            for size in reversed(self.shape):
                strides.append(step)
                step *= size
            self.strides = tuple(reversed(strides))


def export(array: Any, name: str) -> View:
    """Asks the array for a capsule of the versioned protocol, or of the old one if it knows no other."""
    try:
        device = int(array.__dlpack_device__()[0]) if hasattr(array, "__dlpack_device__") else _CPU
        if device != _CPU:
            raise ValueError(f"{name}: expected an array in CPU memory, got DLPack device type {device}")
        try:
            capsule = array.__dlpack__(max_version=(1, 0))
        except TypeError:  # a producer from before versioning
            capsule = array.__dlpack__()
    except (TypeError, ValueError, MemoryError):
        raise
    except Exception as error:  # BufferError and whatever else a producer raises
        raise ValueError(f"{name}: __dlpack__ failed: {error}") from error
    return View(array, capsule, name)
