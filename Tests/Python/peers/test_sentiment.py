"""Without dropout the sentiment models take the same steps as their twins in torch, which Benchmarks/ compares them with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path += [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[3] / "Benchmarks")]
from made_up_reviews import reviews, split

import sentiment
from torch_sentiment import Twin

STEPS = 6


@pytest.mark.parametrize("kind", sorted(sentiment.SETTINGS))
def test_the_same_steps(kind, monkeypatch):
    monkeypatch.setattr(reviews, "load", lambda: split(STEPS * sentiment.BATCH, 40))
    monkeypatch.setitem(sentiment.SETTINGS, kind, dict(sentiment.SETTINGS[kind], dropout=0.0))
    examples, validation, _, numbers = sentiment.data()
    model = sentiment.build(kind, len(numbers), seed=5)
    before = model.state_dict()
    rule = sentiment.rule(kind, 60)  # three steps of warm-up, the others behind it
    twin = Twin(kind, before, 60)
    optimizer = sentiment.optim.AdamW(model.train(), **rule)
    for batch in examples.batches(sentiment.order(len(examples.labels), 0, 0)):
        sentiment.step(model, optimizer, *batch)
        twin.step(*batch)
    for name, array in model.state_dict().items():
        moved = np.abs(array - before[name]).max()
        want = dict(twin.model.named_parameters())[name].detach().numpy()
        assert moved > 0 and np.abs(array - want).max() < 0.02 * moved, name
    assert sentiment.accuracy(model, validation) == twin.accuracy(validation)
