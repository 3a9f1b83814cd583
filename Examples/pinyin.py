"""Chinese text to pinyin with tones: the Transformer of "Attention Is All You Need", trained from scratch by swiftattn.

    python Examples/pinyin.py train [--epochs N] [--seed N] [--reviews N]
    python Examples/pinyin.py evaluate [--reviews N]
    python Examples/pinyin.py predict TEXT... [--beams N]

Many characters are read in several ways (觉得 juéde, 睡觉 shuìjiào): the reading needs the sentence. As in the paper: post-norm
layers, sinusoidal positions, dropout, label smoothing, Adam with its betas and the warm-up to an inverse square root, Xavier
initialisation, teacher forcing; greedy decoding or a beam search through KV caches. A character of the source is a token, so is
a whole reading of the target. What is not Chinese, or was not met in training, is written as it stands.

Sentences of one length make a batch: there is no padding. train leaves a checkpoint, the learning curves and a picture of
the attention from readings to characters in out/pinyin; evaluate and predict load the checkpoint.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import readings
import reviews
import training
from readings import END, KEEP, START, Split, Vocabulary
from swiftattn import nn, optim

WIDTH, HEADS, INNER, LAYERS = 128, 4, 512, 2
DROPOUT, SMOOTHING = 0.1, 0.1
TOKENS = 1024  # of the source in a batch
RATE, WARMUP, EPOCHS = 1.5e-3, 1000, 10
CHECKED = 2000  # validation sentences that are read after each epoch
FOLDER = Path(__file__).resolve().parents[1] / "out" / "pinyin"


def build(characters: int, syllables: int, seed: int = 0) -> nn.EncoderDecoder:
    """The model for so many tokens on each side, initialised from a seed.

    Characters begin as large as their positions are: the paper multiplies its embedding by sqrt(WIDTH) to this end.
    """
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, DROPOUT)
    model = nn.EncoderDecoder(layer, LAYERS, LAYERS, characters, syllables, tied_head=True)
    model.dropout_state = seed, 0
    state = model.initialize("xavier", seed=seed).state_dict()
    model.load_state_dict({**state, "src_embedding.weight": state["src_embedding.weight"] * WIDTH**0.5})
    return model


def batches(lengths: np.ndarray, order: np.random.Generator):
    """Indices of sentences of one length, about TOKENS characters; all sentences once, in a random order."""
    shuffled = order.permutation(len(lengths))
    found = []
    for length in np.unique(lengths):
        same = shuffled[lengths[shuffled] == length]
        size = max(TOKENS // int(length), 1)
        found += [same[first : first + size] for first in range(0, len(same), size)]
    return [found[i] for i in order.permutation(len(found))]


class Reader:
    """A model with its vocabulary."""

    def __init__(self, model: nn.EncoderDecoder, vocabulary: Vocabulary) -> None:
        self.model, self.vocabulary = model, vocabulary
        self._names = {number: reading for reading, number in vocabulary.readings.items()}

    def read(self, texts: list[str], beams: int = 1) -> list[list[str]]:
        """The readings that the model writes for each text; "" for what stands as it is."""
        self.model.eval()
        found: list[list[str]] = [[] for _ in texts]
        for chosen in batches(np.array([len(text) for text in texts]), np.random.default_rng(0)):
            source = np.array([self.vocabulary.source(texts[i]) for i in chosen])
            written = self.model.write(source, start=START, end=END, max_length=source.shape[1] + 1, beams=beams)
            for i, ids in zip(chosen, written.ids):
                found[i] = [self._names.get(number, "") for number in ids if number != END]
        return found

    def attention(self, text: str) -> tuple[list[str], np.ndarray]:
        """What is written for a text, and the weights (layers, heads, T, S) with which it looked at the characters."""
        self.model.eval()
        written = self.read([text])[0]
        ids = [START, *(self.vocabulary.readings.get(reading, KEEP) for reading in written)]
        weights = self.model(np.array([self.vocabulary.source(text)]), np.array([ids]), return_attentions=True)[1]
        return [*(reading or text[i : i + 1] for i, reading in enumerate(written)), "end"], weights[:, 0]


def train(split: Split, seed: int = 0, epochs: int = EPOCHS, warmup: int = WARMUP, quiet: bool = False) -> training.History:
    """Trains a model and returns its history; the checkpoint holds the best epoch by validation accuracy."""
    vocabulary = Vocabulary.of(split.train)
    known = readings.all_readings(split.train)
    model = build(len(vocabulary.characters) + reviews.UNKNOWN + 1, len(vocabulary.readings) + KEEP + 1, seed)
    reader = Reader(model, vocabulary)
    source = [vocabulary.source(sentence.text) for sentence in split.train]
    target = [[START, *vocabulary.target(sentence), END] for sentence in split.train]
    lengths = np.array([len(ids) for ids in source])
    optimizer = optim.AdamW(
        model, RATE, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, schedule="inverse_square_root", warmup=warmup
    )
    checked = split.validation[:CHECKED]
    order = np.random.default_rng(seed)
    history = training.History()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with training.Progress(f"pinyin, seed {seed}", epochs * len(source), "sentences", quiet) as progress:
        for epoch in range(epochs):
            for chosen in batches(lengths, order):
                model.train()
                src, tgt = (np.array([side[i] for i in chosen], np.int32) for side in (source, target))
                logits = model(src, tgt[:, :-1])
                measured = training.learn(model, optimizer, logits, tgt[:, 1:], label_smoothing=SMOOTHING)
                history.step(measured["loss"])
                progress.advance(len(chosen), **measured)
            written = reader.read([sentence.text for sentence in checked])
            history.validation.append(readings.score(checked, written, known).all)
            if history.validation.index(max(history.validation)) == epoch:
                nn.save_checkpoint(
                    FOLDER / "model.safetensors", model, characters=list(vocabulary.characters), readings=list(vocabulary.readings)
                )
            progress.resume()
        history.rate = progress.rate
    return history


def load() -> Reader:
    """The trained model."""
    path = FOLDER / "model.safetensors"
    if not path.exists():
        raise SystemExit(f"{path.name} is not there yet: python Examples/pinyin.py train")
    model = build(*training.table_rows(path, "src_embedding", "tgt_embedding"))
    facts = nn.load_checkpoint(path, model)
    characters = {character: number for number, character in enumerate(facts["characters"], reviews.UNKNOWN + 1)}
    return Reader(model, Vocabulary(characters, {reading: number for number, reading in enumerate(facts["readings"], KEEP + 1)}))


def predict(reader: Reader, text: str, beams: int = 1) -> str:
    """A text in pinyin; sentence by sentence, long ones in pieces of the length that was trained."""
    longest = readings.LONGEST
    parts = [[part[i : i + longest] for i in range(0, len(part), longest)] for part in readings.cut(text)]
    chosen = [piece for pieces in parts for piece in pieces if any(map(readings.is_chinese, piece))]
    written = dict(zip(chosen, reader.read(chosen, beams)))
    return "".join(" ".join(spell(piece, written.get(piece, [])) for piece in pieces) for pieces in parts)


def spell(text: str, written: list[str]) -> str:
    """Readings with spaces between them; characters without one as they stand."""
    result, before = "", False
    for character, reading in itertools.zip_longest(text, written[: len(text)], fillvalue=""):
        isolated = bool(reading) or readings.is_chinese(character)
        result += (" " if result and (before or isolated) else "") + (reading or character)
        before = isolated
    return result


def report(reader: Reader, split: Split) -> list[str]:
    """Lines of accuracy on the test sentences, beside that of reading every character as it mostly is."""
    known = readings.all_readings(split.train)
    texts = [sentence.text for sentence in split.test]
    answers = {
        "most frequent reading": readings.most_frequent(split.test, known),
        "greedy": reader.read(texts),
        "4 beams": reader.read(texts, beams=4),
    }
    scores = {name: readings.score(split.test, answer, known) for name, answer in answers.items()}
    lines = [f"{len(texts)} test sentences; Chinese characters read right, of all and of those with several readings:"]
    return lines + [f"  {name:24}{score.all:8.2%}{score.several:8.2%}" for name, score in scores.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    learn, ask = commands.add_parser("train", help="train, evaluate and draw"), commands.add_parser("predict", help="read texts")
    check = commands.add_parser("evaluate", help="the trained model on the test sentences")
    for command in (learn, check):
        command.add_argument("--reviews", type=int, help="how many of each part are used; default: all")
    learn.add_argument("--epochs", type=int, default=EPOCHS)
    learn.add_argument("--seed", type=int, default=0)
    ask.add_argument("texts", nargs="+", metavar="TEXT")
    ask.add_argument("--beams", type=int, default=1, help="1: greedy")
    given = parser.parse_args()
    if given.command == "predict":
        reader = load()
        for text in given.texts:
            print(predict(reader, text, given.beams))
        return
    split = readings.load(given.reviews)
    if given.command == "train":
        history = train(split, given.seed, given.epochs)
        print(f"validation {max(history.validation):.2%}, {history.rate:.0f} sentences/s; pictures in {FOLDER}")
        training.draw_curves(FOLDER / "curves.png", "Pinyin", history)
    reader = load()
    print("\n".join(report(reader, split)))
    text = next(text for text, names in split.test if "觉" in text and all(names) and 10 <= len(text) <= 16)
    written, weights = reader.attention(text)
    training.draw_attention(FOLDER / "attention.png", text, weights, written)


if __name__ == "__main__":
    main()
