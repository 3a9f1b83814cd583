"""Examples/pinyin.py on a made-up language: it is learned, its bits do not depend on threads, and predict reads as was trained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from support import run_python

sys.path.append(str(Path(__file__).resolve().parents[2] / "Examples"))
import pinyin
import readings
import reviews
import training
from readings import Sentence, Split

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Glyph")]  # of fonts without Chinese characters
CHARACTERS = "天地玄黄宇宙洪荒日月"
SETTINGS = dict(WIDTH=32, HEADS=2, INNER=64, LAYERS=1, DROPOUT=0.0, SMOOTHING=0.05, TOKENS=120, RATE=1e-2)


def made_up(count, seed=0):
    """Sentences whose first character 日 is read as the one after it says; the others have one reading each."""
    rng = np.random.default_rng(seed)
    found = []
    for text in dict.fromkeys("".join(rng.choice(list(CHARACTERS + "7"), rng.integers(2, 6))) for _ in range(2 * count)):
        names = ["" if character == "7" else f"s{CHARACTERS.index(character)}" for character in text]
        for place, following in enumerate(text[1:]):
            if text[place] == "日":
                names[place] = "ri" if following in "天地玄黄宇" else "mi"
        found.append(Sentence(text, tuple(names)))
    found = [sentence for sentence in found if readings.is_sentence(sentence.text)][:count]
    return Split(found[: count * 8 // 10], found[count * 8 // 10 : count * 9 // 10], found[count * 9 // 10 :])


def prepare(set_attribute, folder):
    for name, value in SETTINGS.items():
        set_attribute(pinyin, name, value)
    set_attribute(pinyin, "FOLDER", Path(folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch.setattr, tmp_path_factory.mktemp("pinyin"))
        split = made_up(4000)
        history = pinyin.train(split, epochs=10, warmup=100, quiet=True)
        yield split, history, pinyin.load()


def greedy(reader, text):
    """Readings by a full pass for every token."""
    source, ids = np.array([reader.vocabulary.source(text)]), [readings.START]
    while ids[-1] != readings.END and len(ids) <= len(text) + 1:
        ids.append(int(reader.model(source, np.array([ids]))[0, -1].argmax()))
    names = {number: name for name, number in reader.vocabulary.readings.items()}
    return [names.get(number, "") for number in ids[1:] if number != readings.END]


def test_the_language_is_learned(trained):
    split, history, reader = trained
    assert history.loss[0] > 2 and np.mean(history.loss[-20:]) < 0.6
    known = readings.all_readings(split.train)
    written = reader.read([sentence.text for sentence in split.test])
    assert readings.score(split.test, written, known) == (1, 1)
    plain = readings.score(split.test, readings.most_frequent(split.test, known), known)
    assert plain.several < 0.8 < plain.all < 1
    wrong = [[*answer[:-1], "?"] for answer in written]
    assert readings.score(split.test, wrong, known).all < 1 > readings.score(split.test, [[]] * len(written), known).all == 0


def test_what_is_loaded_is_what_was_trained(trained):
    split, history, reader = trained
    texts = [sentence.text for sentence in split.validation]
    known = readings.all_readings(split.train)
    assert readings.score(split.validation, reader.read(texts), known).all == max(history.validation)
    again = pinyin.load()
    assert all(array.tobytes() == again.model.state_dict()[name].tobytes() for name, array in reader.model.state_dict().items())
    assert again.vocabulary == reader.vocabulary and again.read(texts) == reader.read(texts)


def test_greedy_is_one_beam_and_more_beams_agree(trained):
    split, _, reader = trained
    texts = [sentence.text for sentence in split.test[:20]]
    assert reader.read(texts, beams=1) == [greedy(reader, text) for text in texts] == reader.read(texts, beams=3)


def test_predict_keeps_what_it_cannot_read(trained):
    reader = trained[2]
    assert pinyin.predict(reader, "日天，日月！ WIFI 月") == "ri s0，mi s9！ WIFI s9"
    assert pinyin.predict(reader, "") == "" and pinyin.predict(reader, "?!") == "?!"
    assert pinyin.spell("用W1吃", ["yòng", "", "", "chī"]) == "yòng W1 chī"
    assert pinyin.spell("天地", ["tiān"]) == "tiān 地" and pinyin.spell("天", ["tiān", "dì"]) == "tiān"
    assert len(pinyin.predict(reader, "天" * 60).split()) == 60


def test_pictures(trained, tmp_path):
    _, history, reader = trained
    written, weights = reader.attention("日天7")
    assert written == ["ri", "s0", "7", "end"] and weights.shape == (1, 2, 4, 3)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    training.draw_attention(tmp_path / "attention.png", "日天7", weights, written)
    training.draw_curves(tmp_path / "curves.png", "Pinyin", history)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("attention.png", "curves.png"))


TRAINING = """
import sys, tempfile
sys.path.insert(0, "Tests/Python")
import test_pinyin as test
test.prepare(setattr, tempfile.mkdtemp())
test.pinyin.DROPOUT = 0.1
print(test.pinyin.train(test.made_up(200), epochs=1, quiet=True))
"""


def test_threads_change_no_bit():
    runs = {run_python(TRAINING, OMP_NUM_THREADS=str(threads)).partition("rate")[0] for threads in (1, 2, 3)}
    assert len(runs) == 1 and len(runs.pop()) > 100


def test_readings_follow_the_phrase():
    assert readings.read("我觉得该睡觉3次") == ("wǒ", "jué", "de", "gāi", "shuì", "jiào", "", "cì")
    assert readings.read("WIFI好") == ("", "", "", "", "hǎo")


def test_held_out_sentences_are_unseen(monkeypatch):
    parts = [["天地玄黄，宇宙！", "7 8，天"], ["宇宙。洪荒？" + "日" * 25], ["洪荒,日月;日月,天地玄黄"]]
    monkeypatch.setattr(reviews, "load", lambda: reviews.Split(*([reviews.Review(t, 0) for t in part] for part in parts)))
    texts = [[sentence.text for sentence in part] for part in readings.load()]
    assert texts == [["天地玄黄", "宇宙"], ["洪荒"], ["日月"]]


def test_batches_hold_every_sentence_once():
    lengths = np.array([2, 5, 5, 3, 24, 5, 2] * 40)
    found = pinyin.batches(lengths, np.random.default_rng(1))
    assert sorted(np.concatenate(found)) == list(range(len(lengths)))
    assert all(len(set(lengths[chosen])) == 1 and len(chosen) * lengths[chosen[0]] <= pinyin.TOKENS for chosen in found)
