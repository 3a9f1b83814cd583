"""Examples/tiny_llama.py on a small slice: what the trained module says, the GGUF file says under swiftattn.models."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import swiftattn
import tiny_llama_slice
from made_up_reviews import reviews, split
from swiftattn import models

import tiny_llama

pytestmark = pytest.mark.once
PROMPT = "房间很好，"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    return path, *tiny_llama_slice.train(path, seed=1)


def test_learns(trained):
    _, _, tokenizer, history, loss = trained
    uniform = np.log(tokenizer.get_vocab_size())
    assert abs(history.loss[0] - uniform) < 0.5
    assert history.loss[-1] < 0.5 * uniform and loss < 0.5 * uniform
    assert len(history.validation) == 3 and history.validation[-1] > 0.25  # the commonest token is 0.16


def test_the_same_bits_for_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(tiny_llama, "VOCABULARY", 320)
    monkeypatch.setattr(reviews, "load", lambda: split(64, 8))
    before, losses = swiftattn.get_num_threads(), []
    for threads in (1, 2):
        swiftattn.set_num_threads(threads)
        losses.append(tiny_llama.train(seed=1, epochs=1, quiet=True)[2].loss)
    swiftattn.set_num_threads(before)
    assert losses[0] == losses[1]


def test_tokens_of_the_file(trained):
    path, _, tokenizer, _, _ = trained
    read = models.load(path).tokenizer
    for text in (PROMPT, "键盘 good! 3.5\n？", "從未見過"):
        ids = tokenizer.encode(text).ids
        assert read.encode(text) == [0, *ids]
        assert read.decode(ids) == text


def test_logits_of_the_file(trained):
    path, model, tokenizer, _, _ = trained
    ids = np.array([0, *tokenizer.encode("酒店早餐棒" * 6).ids])
    want = model(ids[None], is_causal=True)[0]
    got = models.load(path).logits(ids)
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_greedy_generation(trained):
    path, model, tokenizer, _, _ = trained
    ids = [0, *tokenizer.encode(PROMPT).ids]
    begin = len(ids)
    for _ in range(24):
        following = int(model(np.array([ids]), is_causal=True)[0, -1].argmax())
        if following == 0:
            break
        ids.append(following)
    assert models.load(path).generate(PROMPT, max_tokens=24) == tokenizer.decode(ids[begin:])
    command = [sys.executable, "-m", "swiftattn", "generate", path, PROMPT, "--max-tokens", "24", "--quiet"]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=True).stdout
    assert said == tokenizer.decode(ids[begin:]) + "\n"
