"""A model that Examples/tiny_llama.py trained and exported goes on in llama.cpp as it does here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from swiftattn import models

llama_cpp = pytest.importorskip("llama_cpp")
sys.path.append(str(Path(__file__).resolve().parents[1]))
import tiny_llama_slice
from tiny_llama_slice import tiny_llama

PROMPTS = "房间很好，", "书", "键盘 3.5 good", "早餐真差，"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    tiny_llama_slice.train(path, seed=2)
    options = dict(n_ctx=tiny_llama.LENGTH, logits_all=True, verbose=False, flash_attn=False, type_k=0, type_v=0)  # 0: float32
    return models.load(path), llama_cpp.Llama(str(path), **options)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_same_tokens_and_logits(files, prompt):
    ours, theirs = files
    ids = theirs.tokenize(prompt.encode(), add_bos=True, special=False)
    assert ids == list(ours.tokenize(prompt))
    theirs.reset()
    theirs.eval(ids)
    want = theirs.scores[: len(ids)]
    got = ours.logits(ids)
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()
    written = []
    for _ in range(40):
        written.append(int(theirs.scores[theirs.n_tokens - 1].argmax()))
        if written[-1] == 0:
            break
        theirs.eval(written[-1:])
    ended = written[-1] == 0
    assert ours.generate(prompt, max_tokens=40) == ours.detokenize(written[: -1 if ended else None])
    assert len(set(written)) > 3
