"""Arrays to borrowed swiftattn_tensor structs without copies, and fresh arrays for results."""

from __future__ import annotations

import ctypes
import operator
import sys
from functools import cache, lru_cache
from typing import Any, Sequence

import numpy as np

from . import _dlpack
from ._ffi import MAX_DIMS, DType, Tensor

# What callers may pass: a NumPy array, anything np.asarray takes, a torch tensor, an object with __dlpack__.
ArrayLike = Any
# What comes back: a torch tensor if the first input is one, else a NumPy array.
Array = Any

# DLPack's type code and width by name; the names are the same in NumPy, ml_dtypes, torch and JAX.
_DTYPES = {
    "float32": (2, 32),
    "float16": (2, 16),
    "bfloat16": (4, 16),
    "float64": (2, 64),
    "bool": (6, 8),
    **{f"int{bits}": (0, bits) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (1, bits) for bits in (8, 16, 32, 64)},
}
_NAMES = {value: name for name, value in _DTYPES.items()}


def dtype_name(dtype: DType) -> str:
    return _NAMES[dtype.code, dtype.bits]


@lru_cache(maxsize=4096)
def _layout(shape: tuple, strides: tuple, dtype: str, name: str) -> Tensor:
    """A tensor that lacks only its data; strides count elements."""
    if dtype not in _DTYPES:
        raise TypeError(f"{name}: dtype {dtype} is not supported")
    if len(shape) > MAX_DIMS:
        raise ValueError(f"{name}: rank is {len(shape)}, at most {MAX_DIMS} is supported")
    tensor = Tensor(ndim=len(shape), dtype=DType(*_DTYPES[dtype], 1))
    tensor.shape[: len(shape)] = shape
    tensor.strides[: len(shape)] = strides
    return tensor


@lru_cache(maxsize=4096)
def _numpy_layout(shape: tuple, strides: tuple, dtype: np.dtype, name: str) -> Tensor:
    """As _layout, from NumPy's strides in bytes."""
    if dtype.name not in _DTYPES:
        raise TypeError(f"{name}: dtype {dtype} is not supported")
    if not dtype.isnative:
        raise TypeError(f"{name}: dtype {dtype} has the other byte order; use array.astype(dtype.newbyteorder('='))")
    return _layout(shape, tuple(stride // dtype.itemsize for stride in strides), dtype.name, name)


_copy_layout = Tensor.from_buffer_copy


def _bind(layout: Tensor, data: int, owner: Any, dims: tuple) -> Tensor:
    tensor = _copy_layout(layout)
    tensor.data = data
    tensor.owner = owner
    tensor.dims = dims
    return tensor


class _ArrayHead(ctypes.Structure):
    """The beginning of NumPy's PyArrayObject, the same in every version of its ABI."""

    _fields_ = [("object", ctypes.c_char * object.__basicsize__), ("data", ctypes.c_size_t)]


def _reads_heads() -> bool:
    """Whether the address of an array can be read from its head, ten times as fast as array.ctypes.data."""
    if sys.implementation.name != "cpython":
        return False
    probes = np.empty((2, 3)), np.empty(5, np.uint8)[2:]
    return all(_ArrayHead.from_address(id(probe)).data == probe.ctypes.data for probe in probes)


if _reads_heads():
    _head = _ArrayHead.from_address

    def _address(array: np.ndarray) -> int:
        return _head(id(array)).data

else:

    def _address(array: np.ndarray) -> int:
        return array.ctypes.data


def _from_numpy(array: np.ndarray, name: str, writable: bool) -> Tensor:
    shape = array.shape
    layout = _numpy_layout(shape, array.strides, array.dtype, name)
    flags = array.flags
    if writable and not flags.writeable:
        raise ValueError(f"{name}: the array is read-only")
    if not flags.aligned:
        if writable:
            raise ValueError(f"{name}: the data is not aligned to its elements")
        return _from_numpy(array.copy(), name, writable)
    return _bind(layout, _address(array), array, shape)


def _torch() -> Any:
    """The torch module if the caller has imported it; swiftattn itself never does."""
    module = sys.modules.get("torch")
    return module if hasattr(module, "Tensor") else None


def _from_torch(array: Any, torch: Any, name: str, writable: bool) -> Tensor:
    if array.device.type != "cpu":
        raise ValueError(f"{name}: expected a tensor in CPU memory, got device {array.device}")
    if array.layout is not torch.strided or array.is_nested:
        raise ValueError(f"{name}: expected a dense strided tensor, got layout {array.layout}")
    if array.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name}: the tensor requires grad, which swiftattn does not record; "
            "use tensor.detach() or torch.no_grad()"
        )
    if array.is_neg():  # a view whose numbers are stored with the other sign
        if writable:
            raise ValueError(f"{name}: the tensor is a lazily negated view; use tensor.resolve_neg()")
        array = array.resolve_neg()
    if array.data_ptr() % array.element_size():
        if writable:
            raise ValueError(f"{name}: the data is not aligned to its elements")
        array = array.clone()
    return _bind_torch(array, name)


@lru_cache(maxsize=4096)
def _torch_layout(shape: tuple, strides: tuple, dtype: Any, name: str) -> Tensor:
    return _layout(tuple(shape), strides, str(dtype)[len("torch.") :], name)


def _bind_torch(array: Any, name: str) -> Tensor:
    shape = array.shape
    return _bind(_torch_layout(shape, array.stride(), array.dtype, name), array.data_ptr(), array, shape)


def _from_dlpack(array: Any, name: str, writable: bool) -> Tensor:
    view = _dlpack.export(array, name)
    if writable and view.read_only:
        raise ValueError(f"{name}: the array is read-only")
    if view.lanes != 1:
        raise TypeError(f"{name}: dtype with {view.lanes} lanes is not supported")
    dtype = _NAMES.get((view.code, view.bits), f"of DLPack code {view.code} with {view.bits} bits")
    layout = _layout(view.shape, view.strides, dtype, name)
    if view.data % (view.bits // 8):
        raise ValueError(f"{name}: the data is not aligned to its elements")
    return _bind(layout, view.data, view, view.shape)


def borrow(array: ArrayLike, name: str, writable: bool = False) -> Tensor:
    """The array as a tensor that shares its memory; `name` is the argument's name in errors."""
    if type(array) is np.ndarray:
        return _from_numpy(array, name, writable)
    torch = _torch()
    if torch is not None and isinstance(array, torch.Tensor):
        return _from_torch(array, torch, name, writable)
    if hasattr(array, "__dlpack__") and not isinstance(array, (np.ndarray, np.generic)):
        return _from_dlpack(array, name, writable)
    if array is None or isinstance(array, (str, bytes, dict)):
        raise TypeError(f"{name}: expected an array, got {type(array).__name__}")
    if writable and not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an array to write to, got {type(array).__name__}")
    return _from_numpy(_converted(array, name), name, writable)


def _converted(array: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(array)
    except MemoryError:
        raise
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
    except Exception as error:  # ragged lists, and whatever an __array__ raises
        raise ValueError(f"{name}: {error}") from error


def borrow_optional(array: ArrayLike | None, name: str) -> Tensor | None:
    return None if array is None else borrow(array, name)


def borrow_integers(array: ArrayLike, name: str) -> Tensor:
    """As borrow; integers of other widths than 32 and 64 bits, and lists, become int64."""
    if isinstance(array, (list, tuple)):
        array = _converted(array, name) if len(array) else np.empty(0, np.int64)
    tensor = borrow(array, name)
    kind = tensor.dtype
    code, bits = kind.code, kind.bits
    if code == 1 or (code == 0 and bits < 32):
        wide = _as(tensor, np.int64)
        if bits == 64 and (wide < 0).any():
            raise ValueError(f"{name}: a value is beyond int64")
        return _from_numpy(wide, name, False)
    return tensor


def _from_list(array: Sequence, name: str, like: Tensor) -> Tensor:
    """A list of numbers as float32, or float64 where `like` is; a list of bools stays bool."""
    listed = _converted(array, name)
    if listed.dtype.kind in "iuf":
        listed = listed.astype(np.float64 if like.dtype.bits == 64 else np.float32)
    return _from_numpy(listed, name, False)


def borrow_floats(array: ArrayLike, name: str, like: Tensor) -> Tensor:
    """As borrow; other floating types than float32, or float64 where `like` is float64, are converted to it."""
    if isinstance(array, (list, tuple)):
        return _from_list(array, name, like)
    tensor = borrow(array, name)
    width = 64 if like.dtype.bits == 64 else 32
    if tensor.dtype.code not in (2, 4) or tensor.dtype.bits == width:
        return tensor  # fits, or is no floating type at all: then the C library says so
    return _from_numpy(_as(tensor, np.float64 if width == 64 else np.float32), name, False)


def borrow_mask(array: ArrayLike, name: str, like: Tensor) -> Tensor:
    """As borrow; an array keeps its type, a list of numbers becomes floats that go with `like`."""
    return _from_list(array, name, like) if isinstance(array, (list, tuple)) else borrow(array, name)


def _as(tensor: Tensor, dtype: type) -> np.ndarray:
    """A NumPy copy of a borrowed tensor in another type."""
    owner = tensor.owner
    if not isinstance(owner, np.ndarray):
        torch = _torch()
        if torch is not None and isinstance(owner, torch.Tensor):
            owner = owner.detach().to(getattr(torch, np.dtype(dtype).name)).numpy()
        else:
            owner = np.asarray(owner.source)
    return owner.astype(dtype)


def empty(shape: Sequence[int], like: Tensor, dtype: str | None = None) -> Tensor:
    """A fresh array of the kind that `like` is, and of its dtype unless another is named."""
    owner = like.owner
    if type(owner) is np.ndarray:
        array = np.empty(shape, owner.dtype if dtype is None else numpy_dtype(dtype))
        dims, strides = array.shape, array.strides
        if dtype is None and dims == like.dims and strides == owner.strides:
            return _bind(like, _address(array), array, dims)
        return _bind(_numpy_layout(dims, strides, array.dtype, "out"), _address(array), array, dims)
    if dtype is None:
        dtype = dtype_name(like.dtype)
    torch = None if isinstance(owner, np.ndarray) else _torch()
    if torch is None or not isinstance(owner, torch.Tensor):
        return _from_numpy(np.empty(shape, numpy_dtype(dtype)), "out", True)
    try:
        return _bind_torch(torch.empty(shape, dtype=getattr(torch, dtype)), "out")
    except RuntimeError as error:  # torch's way to say that memory could not be had
        raise MemoryError(str(error)) from None


def lend(view: Tensor, owner: Any) -> np.ndarray:
    """The library's own memory as a NumPy array, which keeps `owner` alive."""
    dtype = numpy_dtype(dtype_name(view.dtype))
    shape = view.shape[: view.ndim]
    strides = [stride * dtype.itemsize for stride in view.strides[: view.ndim]]
    if 0 in shape:
        return np.empty(shape, dtype)
    size = sum((extent - 1) * stride for extent, stride in zip(shape, strides)) + dtype.itemsize
    memory = (ctypes.c_uint8 * size).from_address(view.data)
    memory.owner = owner
    flat = np.frombuffer(memory, np.uint8)
    return np.lib.stride_tricks.as_strided(flat[: dtype.itemsize].view(dtype), shape, strides)


@cache
def numpy_dtype(name: str) -> np.dtype:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError("bfloat16 in NumPy needs the package ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def broadcast(*shapes: Sequence[int]) -> list[int]:
    """The broadcast shape for allocating a result; where the shapes disagree the C library says so."""
    if shapes.count(shapes[0]) == len(shapes):
        return list(shapes[0])
    rank = max(map(len, shapes))
    result = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if result[axis] == 1:
                result[axis] = size
    return result


def choice(table: dict, value: Any, name: str) -> int:
    """The C constant of a keyword's value."""
    try:
        return table[value]
    except KeyError:
        expected = ", ".join(map(repr, table))
        raise ValueError(f"{name}: expected one of {expected}, got {value!r}") from None
    except TypeError:  # unhashable
        raise TypeError(f"{name}: expected a word, got {type(value).__name__}") from None


def integer(value: Any, name: str, low: int = -(2**63), high: int = 2**63 - 1) -> int:
    """An int that its C type can hold; ctypes would drop the high bits without a word."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if not low <= number <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {number}")
    return number


def real(value: Any, name: str) -> float:
    if type(value) is float:
        return value
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}") from None
    except OverflowError:
        raise ValueError(f"{name}: the number is beyond float64") from None
