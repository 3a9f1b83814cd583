"""Trainings on disk, in safetensors files."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from ..optim import Optimizer
from ._module import Module


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("checkpoints need the package safetensors: pip install safetensors") from None
    return safetensors


def save_checkpoint(path: str | os.PathLike, module: Module, optimizer: Optimizer | None = None, **facts: Any) -> None:
    """Writes all that a training needs to go on, bit for bit: parameters ("module.NAME"), the optimizer's averages
    ("optimizer.NAME") and steps, and the state of dropout.

    Args:
        path: of the file; it is replaced as a whole.
        facts: what else JSON can hold, an epoch or a configuration: load_checkpoint returns it.

    Gradients are not part of it: save between a step and the next backward. ImportError without safetensors.
    """
    safetensors = _safetensors()
    tensors = {f"module.{name}": array for name, array in module.state_dict().items()}
    state: dict[str, Any] = {"dropout": module.dropout_state, "facts": facts}
    if optimizer is not None:
        tensors.update({f"optimizer.{name}": array for name, array in optimizer.state_dict().items()})
        state["steps"] = optimizer.steps
    path = os.fspath(path)
    safetensors.numpy.save_file(tensors, path + ".new", {"swiftattn": json.dumps(state)})
    os.replace(path + ".new", path)


def load_checkpoint(path: str | os.PathLike, module: Module, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Reads what save_checkpoint wrote into a module and an optimizer of the same kind; returns the facts.

    Raises ValueError for a file that is none or fits another module, ImportError without safetensors.
    """
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            state = json.loads((file.metadata() or {})["swiftattn"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        seed, step = state["dropout"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: {os.fspath(path)} is no checkpoint: {error}") from None

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}

    if optimizer is not None:
        if "steps" not in state:
            raise ValueError(f"path: {os.fspath(path)} has no optimizer")
        optimizer.load_state_dict(part("optimizer."), state["steps"])
    module.load_state_dict(part("module."))
    module.dropout_state = seed, step
    return state["facts"]
