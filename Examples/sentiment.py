"""Sentiment of Chinese reviews by one layer of self-attention, trained from scratch by swiftattn.

    python Examples/sentiment.py train [--model plain|improved] [--epochs N] [--seed N] [--reviews N] [--resume]
    python Examples/sentiment.py predict TEXT... [--model plain|improved]

plain      characters -> embedding -> multi-head self-attention (no biases, no output projection, dropout on the weights) ->
           mean over the review -> two classes
improved   the attention as a pre-norm layer with RMSNorm, rotary positions, residuals and a feed-forward part

Reviews are packed one behind the other: there is no padding to compute. train leaves a checkpoint, the learning curves and
a picture of the attention over a review in out/sentiment; predict loads the checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import reviews
import training
from swiftattn import nn, optim, softmax

WIDTH, HEADS, INNER = 128, 4, 256
LENGTH = 128  # characters of a review that are read
BATCH = 64
FOLDER = Path(__file__).resolve().parents[1] / "out" / "sentiment"

# The best of a small search on the validation reviews alone: docs/training.md.
SETTINGS = {
    "plain": dict(lr=1e-3, dropout=0.1, epochs=6),
    "improved": dict(lr=2e-3, dropout=0.2, epochs=6),
}


def build(kind: str, characters: int, seed: int = 0) -> nn.TokenModel:
    """The model, initialised from a seed."""
    common = dict(dim_feedforward=INNER, dropout=SETTINGS[kind]["dropout"], bias=False)
    if kind == "plain":
        layer, rest = nn.TransformerEncoderLayer(WIDTH, HEADS, **common), dict(attention_only=True)
    else:
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, **common, activation="swiglu", norm="rms", norm_first=True, positions="rope")
        rest = dict(final_norm="rms")
    vocabulary = characters + reviews.UNKNOWN + 1
    model = nn.TokenModel(layer, 1, vocabulary, head="classes", num_classes=2, head_bias=True, **rest)
    model.dropout_state = seed, 0
    return model.initialize("xavier", seed=seed)


class Packed:
    """Reviews as ids, and batches of them without padding."""

    def __init__(self, items: list[reviews.Review], numbers: dict[str, int]) -> None:
        self.ids = [encode(review.text, numbers) for review in items]
        self.labels = np.array([review.positive for review in items])

    def batch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ids (rows,), where each review begins (B + 1,), and labels (B,)."""
        parts = [self.ids[i] for i in chosen]
        starts = np.cumsum([0, *map(len, parts)]).astype(np.int32)
        return np.concatenate(parts), starts, self.labels[chosen]

    def batches(self, order: np.ndarray):
        for first in range(0, len(order), BATCH):
            yield self.batch(order[first : first + BATCH])


def encode(text: str, numbers: dict[str, int]) -> np.ndarray:
    return np.array([numbers.get(character, reviews.UNKNOWN) for character in text[:LENGTH]], np.int32)


def accuracy(model: nn.TokenModel, data: Packed) -> float:
    model.eval()
    right = 0
    for ids, starts, labels in data.batches(np.arange(len(data.labels))):
        right += int((model(ids, cu_seqlens=starts, pooling="mean").argmax(-1) == labels).sum())
    return right / len(data.labels)


def data(count: int | None = None) -> tuple[Packed, Packed, Packed, dict[str, int]]:
    """The parts for training, validation and test, of at most `count` reviews each, and the vocabulary of the first."""
    split = reviews.load()
    numbers = reviews.vocabulary([review.text for review in split.train[:count]])
    return *(Packed(part[:count], numbers) for part in split), numbers


def order(items: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the training reviews in an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(items)


def rule(kind: str, steps: int) -> dict:
    """Arguments of AdamW."""
    rates = dict(lr=SETTINGS[kind]["lr"], schedule="cosine", warmup=steps // 20, total_steps=steps)
    return dict(rates, weight_decay=0.01, clip_norm=1.0)


def step(model: nn.TokenModel, optimizer: optim.AdamW, ids: np.ndarray, starts: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """One step of training; loss and accuracy of its batch."""
    return training.learn(model, optimizer, model(ids, cu_seqlens=starts, pooling="mean"), labels)


def train(
    kind: str, seed: int = 0, epochs: int | None = None, count: int | None = None, quiet: bool = False, resume: bool = False
) -> training.History:
    """Trains a model and returns its history; KIND.safetensors holds the best epoch by validation accuracy.

    KIND-last.safetensors holds the last epoch with all that a training needs to go on; with `resume` it does.
    """
    epochs = epochs or SETTINGS[kind]["epochs"]
    examples, validation, test, numbers = data(count)
    model = build(kind, len(numbers), seed)
    items = len(examples.labels)
    optimizer = optim.AdamW(model, **rule(kind, epochs * -(-items // BATCH)))
    history = training.History()
    FOLDER.mkdir(parents=True, exist_ok=True)
    best, last = FOLDER / f"{kind}.safetensors", FOLDER / f"{kind}-last.safetensors"
    run = dict(seed=seed, epochs=epochs, reviews=items)
    if resume:
        facts = nn.load_checkpoint(last, model, optimizer)
        if facts["run"] != run:
            raise SystemExit(f"{last.name} is of another training: {facts['run']}")
        history = training.History(**facts["history"])
    done = len(history.validation)
    with training.Progress(f"{kind}, seed {seed}", (epochs - done) * items, "reviews", quiet) as progress:
        for epoch in range(done, epochs):
            model.train()
            for batch in examples.batches(order(items, seed, epoch)):
                measured = step(model, optimizer, *batch)
                history.step(measured["loss"])
                progress.advance(len(batch[-1]), **measured)
            history.rate = progress.rate
            history.validation.append(accuracy(model, validation))
            if history.validation.index(max(history.validation)) == epoch:
                history.test = accuracy(model, test)
                nn.save_checkpoint(best, model, kind=kind, characters="".join(numbers))
            nn.save_checkpoint(last, model, optimizer, run=run, history=vars(history))
            progress.resume()
    return history


def load(kind: str) -> tuple[nn.TokenModel, dict[str, int]]:
    """The trained model and its vocabulary."""
    path = FOLDER / f"{kind}.safetensors"
    if not path.exists():
        raise SystemExit(f"{path.name} is not there yet: python Examples/sentiment.py train --model {kind}")
    (vocabulary,) = training.table_rows(path, "embedding")
    model = build(kind, vocabulary - reviews.UNKNOWN - 1)
    characters = nn.load_checkpoint(path, model)["characters"]
    return model, {character: number for number, character in enumerate(characters, reviews.UNKNOWN + 1)}


def predict(kind: str, texts: list[str]) -> list[float]:
    """The probability that each text is positive."""
    model, numbers = load(kind)
    data = Packed([reviews.Review(text, 0) for text in texts], numbers)
    ids, starts, _ = data.batch(np.arange(len(texts)))
    return [float(p) for p in softmax(model(ids, cu_seqlens=starts, pooling="mean"))[:, 1]]


def attention(kind: str, text: str) -> np.ndarray:
    """Weights (1, heads, T, T) of the characters of a text."""
    model, numbers = load(kind)
    return model(encode(text, numbers)[None], pooling="mean", return_attentions=True).attentions[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    learn, ask = commands.add_parser("train", help="train and draw"), commands.add_parser("predict", help="classify texts")
    for command in (learn, ask):
        command.add_argument("--model", choices=SETTINGS, default="improved")
    learn.add_argument("--epochs", type=int, help="default: as many as chosen on the validation reviews")
    learn.add_argument("--seed", type=int, default=0)
    learn.add_argument("--reviews", type=int, help="how many of each part are used; default: all")
    learn.add_argument("--resume", action="store_true", help="go on behind the last epoch of an interrupted training")
    ask.add_argument("texts", nargs="+", metavar="TEXT")
    given = parser.parse_args()
    if given.command == "predict":
        for text, positive in zip(given.texts, predict(given.model, given.texts)):
            print(f"{'positive' if positive >= 0.5 else 'negative'} {max(positive, 1 - positive):6.1%}  {text}")
        return
    history = train(given.model, given.seed, given.epochs, given.reviews, resume=given.resume)
    training.draw_curves(FOLDER / f"{given.model}-curves.png", f"Sentiment, {given.model} model", history)
    text = next(review.text for review in reviews.load().test if 12 <= len(review.text) <= 24)
    training.draw_attention(FOLDER / f"{given.model}-attention.png", text, attention(given.model, text))
    print(f"validation {max(history.validation):.2%}, test {history.test:.2%}, {history.rate:.0f} reviews/s; pictures in {FOLDER}")


if __name__ == "__main__":
    main()
