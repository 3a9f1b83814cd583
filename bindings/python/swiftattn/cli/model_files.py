"""The model that a MODEL argument names."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from swiftattn import models

from .failure import Failure

# What a command can work with, by the module of swiftattn.models that loads it.
KINDS = {"llama": "a language model", "bert": "a text encoder"}


def load(name: str, wanted: str | None = None, **limits: Any) -> Any:
    """The model, which has to be of a kind if one is wanted; limits are options of its loader."""
    place = find(name)
    try:
        kind = models.family(place)
        if wanted not in (None, kind):
            raise Failure(f"is {KINDS[kind]}, expected {KINDS[wanted]}")
        return models.load(place, **limits)
    except (Failure, ValueError, TypeError) as error:
        message = str(error)
        raise Failure(message if str(place) in message else f"{name}: {message}") from None


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
