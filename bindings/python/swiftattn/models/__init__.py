"""Models on real weights: load(path) takes a GGUF file or a Hugging Face folder and returns a model that runs in the library."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from .gguf import GGUFFile

__all__ = ["GGUFFile", "family", "load"]

# The module of a family has load(path, **options). Keys: "gguf" for a GGUF file, else the model_type of a folder's config.json.
_FAMILIES = {
    "gguf": "llama",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "llama",
    **dict.fromkeys(("albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"), "bert"),
}


def load(path: str | os.PathLike, **options: Any) -> Any:
    """The model in a GGUF file, or in a Hugging Face folder with config.json and safetensors files.

    Args:
        path: told apart by content: a file that begins with GGUF, or a folder whose config.json names a model_type.
        options: of the model's own class: of decoders those of `swiftattn.models.llama.load`, of encoders those of
            `swiftattn.models.bert.load`.

    Raises ValueError for a path that is neither, and what the family's load raises.
    """
    place = Path(os.fspath(path))
    return import_module(f".{family(place)}", __name__).load(place, **options)


def family(path: str | os.PathLike) -> str:
    """The module of this package that loads what is there: "llama" or "bert"; raises as load."""
    place = Path(os.fspath(path))
    return _FAMILIES[_model_type(place)]


def _model_type(place: Path) -> str:
    try:
        if not place.is_dir():
            with place.open("rb") as file:
                if file.read(4) == b"GGUF":
                    return "gguf"
            raise ValueError(f"path: {place} is neither a GGUF file nor a folder with config.json")
        config = json.loads((place / "config.json").read_bytes())
    except OSError as error:
        raise ValueError(f"path: {error.filename} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"path: {place / 'config.json'} is not JSON: {error}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in _FAMILIES or kind == "gguf":
        known = ", ".join(sorted(_FAMILIES.keys() - {"gguf"}))
        raise ValueError(f"path: {place / 'config.json'} has model_type {kind!r}, expected one of {known}")
    return kind
