"""Where the model is that a MODEL argument names."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from .failure import Failure


def find(name: str) -> Path:
    """A path as it is given; for an installed package the GGUF file or the folder with safetensors inside it."""
    path = Path(name)
    if path.exists():
        return path
    try:
        files = importlib.metadata.distribution(name).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError):  # ValueError: an empty name
        raise Failure(f"{name}: no such file or folder, and no installed package of that name") from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(file.locate())
        if file.name == "model.safetensors":
            return Path(file.locate()).parent
    raise Failure(f"{name}: the package is installed, but carries neither a GGUF file nor a model.safetensors")
