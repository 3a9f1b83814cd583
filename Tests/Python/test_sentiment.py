"""Examples/sentiment.py on small made-up reviews: it learns, its bits do not depend on threads, it resumes, and predict answers."""

from __future__ import annotations

import pytest
import swiftattn
from made_up_reviews import reviews, split

import sentiment
import training

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Glyph")]  # of fonts without Chinese characters
KINDS = sorted(sentiment.SETTINGS)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(reviews, "load", lambda: split(600, 100))
    monkeypatch.setattr(sentiment, "FOLDER", tmp_path)
    threads = swiftattn.get_num_threads()
    yield
    swiftattn.set_num_threads(threads)


def train(kind, **options):
    return sentiment.train(kind, **{"seed": 3, "epochs": 3, "quiet": True, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_learns_and_predicts(kind, tmp_path):
    history = train(kind)
    assert max(history.validation) > 0.9 and history.test > 0.9 and history.rate > 0
    good, bad = sentiment.predict(kind, ["房间好，服务赞", "键盘坏，内容烂，差"])
    assert good > 0.5 > bad
    text = "早餐真棒"
    weights = sentiment.attention(kind, text)
    assert weights.shape == (1, sentiment.HEADS, 4, 4)
    assert abs(weights.sum(-1) - 1).max() < 1e-6
    training.draw_curves(tmp_path / "curves.png", "Sentiment", history)
    training.draw_attention(tmp_path / "attention.png", text, weights)
    for name in ("curves.png", "attention.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_for_any_number_of_threads(kind):
    losses = []
    for threads in (1, 2):
        swiftattn.set_num_threads(threads)
        losses.append(train(kind, epochs=1).loss)
    assert losses[0] == losses[1] and len(losses[0]) == 10
    assert train(kind, epochs=1, seed=4).loss != losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_resumes_bit_for_bit(kind, monkeypatch):
    whole = train(kind)

    class Interrupted(Exception):
        pass

    def order(items, seed, epoch, original=sentiment.order):
        if epoch == 2:
            raise Interrupted
        return original(items, seed, epoch)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(sentiment, "order", order)
        train(kind)
    again = train(kind, resume=True)
    assert (again.loss, again.validation, again.test) == (whole.loss, whole.validation, whole.test)
    with pytest.raises(SystemExit, match="another training"):
        train(kind, resume=True, seed=4)


def test_predict_before_train():
    with pytest.raises(SystemExit, match="sentiment.py train --model plain"):
        sentiment.predict("plain", ["好"])
