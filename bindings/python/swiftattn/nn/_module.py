"""What all blocks share: the handle, its parameters, and how Python's words become the C library's options."""

from __future__ import annotations

import ctypes
from typing import Any, Mapping

import numpy as np

from .. import _ffi
from .._tensor import _NAMES, ArrayLike, borrow, borrow_mask, choice, dtype_name, empty, integer, numpy_dtype, real

_DTYPES = {name: key for key, name in _NAMES.items() if name in ("float32", "float16", "bfloat16", "float64")}


class Module:
    """A block behind a handle of the C library. All numbers are its; Python only passes arrays."""

    def __init__(self, create: Any, *arguments: Any) -> None:
        self._handle = ctypes.c_void_p()
        self._inputs: list[_ffi.Tensor] = []
        create(*arguments, ctypes.byref(self._handle))
        self.training = False

    def __del__(self, destroy=_ffi.module_destroy) -> None:
        destroy(getattr(self, "_handle", None))

    def _parameters(self) -> list[tuple[str, _ffi.Tensor]]:
        count = ctypes.c_int64()
        _ffi.module_parameter_count(self._handle, ctypes.byref(count))
        found = []
        for index in range(count.value):
            name, tensor = ctypes.c_char_p(), _ffi.Tensor()
            _ffi.module_parameter(self._handle, index, ctypes.byref(name), ctypes.byref(tensor))
            found.append((name.value.decode(), tensor))
        return found

    def train(self, mode: bool = True) -> Module:
        """In training dropout is active, and each call keeps what backward needs; modules of float32 and float64 alone.

        Modules begin in inference, other than torch.nn's.
        """
        _ffi.module_set_training(self._handle, bool(mode))
        self.training = bool(mode)
        return self

    def eval(self) -> Module:
        """Back to inference."""
        return self.train(False)

    def _keep(self, *inputs: _ffi.Tensor) -> None:
        """The inputs of a call, for the shapes of their gradients."""
        self._inputs = list(inputs) if self.training else []

    def backward(self, grad_out: ArrayLike) -> tuple[Any, ...]:
        """Adds to the parameters' gradients those of the newest call in training, from that of its result.

        Args:
            grad_out: as the result, the gradient of a loss with respect to it.

        Returns:
            The gradients of the call's floating inputs, in their order; none of models over tokens. An array that was given as
            several inputs has its whole gradient at the first of them, and zeros at the others.

        Raises ValueError without such a call; each call takes one backward.
        """
        gradients = [empty(tensor.dims, tensor) for tensor in self._inputs]
        pointers = (ctypes.POINTER(_ffi.Tensor) * max(len(gradients), 1))(*map(ctypes.pointer, gradients))
        _ffi.module_backward(self._handle, borrow(grad_out, "grad_out"), pointers, len(gradients))
        return tuple(gradient.owner for gradient in gradients)

    def gradients(self) -> dict[str, np.ndarray]:
        """Copies of all parameters' gradients by name; zeros where there is none."""
        found = {}
        for index, (name, _) in enumerate(self._parameters()):
            tensor = _ffi.Tensor()
            _ffi.module_gradient(self._handle, index, ctypes.byref(tensor))
            found[name] = _view(tensor, self).copy()
        return found

    def zero_grad(self) -> None:
        """The next backward begins with gradients of 0."""
        _ffi.module_zero_gradients(self._handle)

    def initialize(self, kind: str = "xavier", *, deviation: float = 0.02, seed: int = 0) -> Module:
        """Sets all parameters from a seed: the same on every machine.

        Args:
            kind: of matrices: "xavier", uniform in +-sqrt(6 / (inputs + outputs)), with tables of embeddings normal of deviation
                1/sqrt(width); or "normal". Biases begin as 0, scales of norms as 1.
            deviation: of "normal".
            seed: 0 to 2^64 - 1.
        """
        word, number = choice(_ffi.INITIALIZATIONS, kind, "kind"), integer(seed, "seed", 0, 2**64 - 1)
        _ffi.module_initialize(self._handle, word, real(deviation, "deviation"), number)
        return self

    @property
    def dropout_state(self) -> tuple[int, int]:
        """(seed, step): what dropout in training is a function of; step counts the calls. To be set for another seed."""
        seed, step = ctypes.c_uint64(), ctypes.c_uint64()
        _ffi.module_get_dropout(self._handle, ctypes.byref(seed), ctypes.byref(step))
        return seed.value, step.value

    @dropout_state.setter
    def dropout_state(self, state: tuple[int, int]) -> None:
        _ffi.module_set_dropout(self._handle, *(integer(number, "dropout_state", 0, 2**64 - 1) for number in state))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by torch.nn's names, as NumPy arrays."""
        return {name: _view(tensor, self).copy() for name, tensor in self._parameters()}

    def load_state_dict(self, state_dict: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Copies arrays into the parameters, converting floating dtypes.

        Args:
            state_dict: arrays (NumPy, torch or others) by torch.nn's names.
            strict: whether a missing or an unknown name is an error.

        Raises ValueError that names the parameters that are missing, unknown or of another shape, and then leaves all as
        it was. TypeError for arrays that are not floating.
        """
        shapes = {name: tuple(tensor.shape[: tensor.ndim]) for name, tensor in self._parameters()}
        if strict:
            missing = [name for name in shapes if name not in state_dict]
            unknown = [name for name in state_dict if name not in shapes]
            if missing or unknown:
                raise ValueError(
                    "state_dict: "
                    + "; ".join(
                        f"{word} {', '.join(names)}" for word, names in (("lacks", missing), ("has unknown", unknown)) if names
                    )
                )
        sources = {name: borrow(_detached(state_dict[name]), name) for name in shapes if name in state_dict}
        for name, source in sources.items():
            if tuple(source.dims) != shapes[name]:
                raise ValueError(f"{name}: shape is {tuple(source.dims)}, expected {shapes[name]}")
            if (source.dtype.code, source.dtype.bits) not in _DTYPES.values():
                raise TypeError(f"{name}: dtype is not floating")
        for name, source in sources.items():
            _ffi.module_load_parameter(self._handle, name.encode(), source)


def _detached(array: ArrayLike) -> ArrayLike:
    """A torch parameter without the wish for a gradient: it is only read."""
    return array.detach() if hasattr(array, "detach") else array


def _view(tensor: _ffi.Tensor, owner: Any) -> np.ndarray:
    """A parameter's elements as an array that keeps the module alive."""
    dtype = numpy_dtype(dtype_name(tensor.dtype))
    shape = tuple(tensor.shape[: tensor.ndim])
    size = int(np.prod(shape)) * dtype.itemsize
    buffer = (ctypes.c_uint8 * size).from_address(tensor.data)
    buffer.owner = owner
    return np.frombuffer(buffer, np.uint8, size).view(dtype).reshape(shape)


def dtype_option(dtype: Any) -> _ffi.DType:
    """A dtype by its name, as NumPy's or as torch's."""
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            pass
    code, bits = choice(_DTYPES, name, "dtype")
    return _ffi.DType(code, bits, 1)


def count_option(value: Any, name: str) -> int:
    """A size; 0, which stands for a default in C, is none."""
    return integer(value, name, 1)


def require_batch_first(batch_first: bool) -> None:
    if not batch_first:
        raise ValueError("batch_first: expected True, the batch is the first dim in swiftattn")


class Visibility:
    """swiftattn_visibility and the arrays that it borrows."""

    def __init__(self, like: _ffi.Tensor, attn_mask: Any, key_padding_mask: Any, is_causal: Any, names: tuple[str, str]):
        self._masks = [
            None if mask is None else borrow_mask(mask, name, like)
            for mask, name in zip((attn_mask, key_padding_mask), names)
        ]
        self.struct = _ffi.Visibility(*map(_ffi.pointer, self._masks), bool(is_causal), 0)
