"""Optimizers of swiftattn.nn's modules; every number is computed in the library."""

from __future__ import annotations

import ctypes
from typing import Any, Mapping

import numpy as np

from . import _ffi
from ._tensor import ArrayLike, borrow, choice, integer, real


class Optimizer:
    """Moves a module's parameters along their gradients; AdamW or SGD.

    Rates of step t = 1, 2, ... with w = warmup:
        "constant"              lr * min(1, t / w)
        "inverse_square_root"   lr * min(t / w, sqrt(w / t)), the paper's, with its peak lr at w
        "cosine"                lr * t / w up to w, then from lr down to final_lr along half a cosine until total_steps
    """

    def __init__(self, module: Any, kind: int, **options: Any) -> None:
        self.module = module
        self._handle = ctypes.c_void_p()
        schedule = choice(_ffi.SCHEDULES, options.pop("schedule"), "schedule")
        counts = {name: integer(options.pop(name), name) for name in ("warmup", "total_steps")}
        numbers = {name: real(value, name) for name, value in options.items()}
        struct = _ffi.OptimizerOptions(
            struct_size=ctypes.sizeof(_ffi.OptimizerOptions), kind=kind, schedule=schedule, **counts, **numbers
        )
        _ffi.optimizer_create(module._handle, struct, ctypes.byref(self._handle))

    def __del__(self, destroy=_ffi.optimizer_destroy) -> None:
        destroy(getattr(self, "_handle", None))

    def step(self) -> float:
        """One step along the gradients, which are kept: zero_grad. Returns their norm over all parameters before clipping."""
        norm = ctypes.c_double()
        _ffi.optimizer_step(self._handle, ctypes.byref(norm))
        return norm.value

    def zero_grad(self) -> None:
        """The next backward of the module begins with gradients of 0."""
        self.module.zero_grad()

    @property
    def steps(self) -> int:
        """Steps made."""
        steps = ctypes.c_int64()
        _ffi.optimizer_get_steps(self._handle, ctypes.byref(steps), None)
        return steps.value

    @property
    def lr(self) -> float:
        """The rate of the next step."""
        rate = ctypes.c_double()
        _ffi.optimizer_get_steps(self._handle, None, ctypes.byref(rate))
        return rate.value

    def _state(self) -> dict[str, np.ndarray]:
        """Views of the averages by name."""
        from .nn._module import _view

        count = ctypes.c_int64()
        _ffi.optimizer_state_count(self._handle, ctypes.byref(count))
        found = {}
        for index in range(count.value):
            name, tensor = ctypes.c_char_p(), _ffi.Tensor()
            _ffi.optimizer_state(self._handle, index, ctypes.byref(name), ctypes.byref(tensor))
            found[name.value.decode()] = _view(tensor, self)
        return found

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the averages that the rule keeps, by name: "exp_avg.NAME" and "exp_avg_sq.NAME", or "momentum.NAME"."""
        return {name: view.copy() for name, view in self._state().items()}

    def load_state_dict(self, state_dict: Mapping[str, ArrayLike], steps: int) -> None:
        """Continues a training after so many steps.

        Raises ValueError for names, shapes or dtypes that do not fit, and then leaves all as it was.
        """
        views = self._state()
        if views.keys() != state_dict.keys():
            wrong = sorted(views.keys() ^ state_dict.keys())
            raise ValueError(f"state_dict: lacks or has unknown {', '.join(wrong)}")
        arrays = {name: np.asarray(borrow(array, name).owner) for name, array in state_dict.items()}
        for name, view in views.items():
            if arrays[name].shape != view.shape or arrays[name].dtype != view.dtype:
                found = f"{arrays[name].dtype} {arrays[name].shape}"
                raise ValueError(f"{name}: is {found}, expected {view.dtype} {view.shape}")
        _ffi.optimizer_set_steps(self._handle, integer(steps, "steps", 0))
        for name, view in views.items():
            view[...] = arrays[name]


class AdamW(Optimizer):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p = (1 - r d) p - r m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps).

    Args:
        module: a swiftattn.nn module of float32 or float64.
        lr: the largest rate r.
        betas: b1 and b2.
        eps: above 0.
        weight_decay: d, of all parameters.
        clip_norm: gradients whose norm over all parameters is larger are scaled to it; 0: never.
        schedule: "constant", "inverse_square_root" or "cosine"; see Optimizer.
        warmup, total_steps, final_lr: of the schedule.
    """

    def __init__(
        self,
        module: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        clip_norm: float = 0.0,
        schedule: str = "constant",
        warmup: int = 0,
        total_steps: int = 0,
        final_lr: float = 0.0,
    ) -> None:
        super().__init__(
            *(module, _ffi.OPTIMIZER_ADAMW),
            **dict(lr=lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=weight_decay, clip_norm=clip_norm),
            **dict(schedule=schedule, warmup=warmup, total_steps=total_steps, final_lr=final_lr),
        )


class SGD(Optimizer):
    """h = g + d p; m = h at the first step, then momentum m + h; p = p - r m. Arguments as AdamW's."""

    def __init__(
        self,
        module: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        clip_norm: float = 0.0,
        schedule: str = "constant",
        warmup: int = 0,
        total_steps: int = 0,
        final_lr: float = 0.0,
    ) -> None:
        super().__init__(
            *(module, _ffi.OPTIMIZER_SGD),
            **dict(lr=lr, beta1=0.0, beta2=0.0, eps=1e-8, momentum=momentum, weight_decay=weight_decay, clip_norm=clip_norm),
            **dict(schedule=schedule, warmup=warmup, total_steps=total_steps, final_lr=final_lr),
        )
