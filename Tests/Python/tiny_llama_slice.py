"""A tiny Llama for the tests here and beside llama.cpp: trained on a few made-up reviews and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_reviews import reviews, split

import tiny_llama


def train(path: Path, seed: int):
    """What tiny_llama.train returns; the GGUF file is at the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_llama, "VOCABULARY", 320)
        patch.setattr(tiny_llama, "BATCH", 8)
        patch.setattr(reviews, "load", lambda: split(200, 40))
        model, tokenizer, history, loss = tiny_llama.train(seed=seed, epochs=3, quiet=True)
    tiny_llama.export(path, model, tokenizer)
    return model, tokenizer, history, loss
