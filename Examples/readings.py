"""Sentences of the reviews with the reading of each character: what pinyin.py learns from.

A sentence is what stands between punctuation, 2 to 24 characters with a Chinese one among them. Those of a review are all in the
part of the split that the review is in; what repeats, within a part or from one before it, counts once. Readings are those
of pypinyin with its dictionary of phrases: 觉 is jué in 觉得 and jiào in 睡觉.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import NamedTuple

import reviews

LONGEST = 24
START, END, KEEP = 0, 1, 2  # the first tokens of what is written; KEEP: the character stands as it is
_BREAKS = re.compile(r"([\s，。！？；：、…～·,.!?;:~\"'“”‘’()（）\[\]【】《》<>—\-]+)")


class Sentence(NamedTuple):
    text: str
    readings: tuple[str, ...]  # one for each character; "" if it is not Chinese


class Split(NamedTuple):
    train: list[Sentence]
    validation: list[Sentence]
    test: list[Sentence]


class Vocabulary(NamedTuple):
    """Numbers of characters and of readings; what occurs once has none."""

    characters: dict[str, int]
    readings: dict[str, int]

    @classmethod
    def of(cls, sentences: list[Sentence]) -> Vocabulary:
        counts = Counter(reading for sentence in sentences for reading in sentence.readings if reading)
        frequent = sorted(counts, key=lambda reading: (-counts[reading], reading))
        characters = reviews.vocabulary([sentence.text for sentence in sentences])
        return cls(characters, {reading: number for number, reading in enumerate(frequent, KEEP + 1)})

    def source(self, text: str) -> list[int]:
        return [self.characters.get(character, reviews.UNKNOWN) for character in text]

    def target(self, sentence: Sentence) -> list[int]:
        """A reading for each character that has a number; nobody can know those of others."""
        pairs = zip(sentence.text, sentence.readings)
        return [self.readings.get(reading, KEEP) if character in self.characters else KEEP for character, reading in pairs]


def load(count: int | None = None) -> Split:
    """The sentences of all reviews, or of the first `count` of each part."""
    seen: set[str] = set()
    parts = []
    for part in reviews.load():
        texts = [text for review in part[:count] for text in cut(review.text) if is_sentence(text) and len(text) <= LONGEST]
        fresh = [text for text in dict.fromkeys(texts) if text not in seen]
        seen.update(fresh)
        parts.append([Sentence(text, read(text)) for text in fresh])
    return Split(*parts)


def cut(text: str) -> list[str]:
    """A text as what stands between punctuation and, in turn, the punctuation."""
    return _BREAKS.split(text)


def is_chinese(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def is_sentence(text: str) -> bool:
    return len(text) >= 2 and any(map(is_chinese, text))


def read(text: str) -> tuple[str, ...]:
    """The reading of each character by pypinyin, with tone marks."""
    from pypinyin import Style, pinyin

    found = pinyin(text, style=Style.TONE, errors=lambda others: [""] * len(others))
    return tuple(reading[0] if is_chinese(character) else "" for character, reading in zip(text, found, strict=True))


def all_readings(sentences: list[Sentence]) -> dict[str, Counter]:
    """How often each Chinese character is read in each way."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for sentence in sentences:
        for character, reading in zip(*sentence):
            if reading:
                counts[character][reading] += 1
    return counts


class Score(NamedTuple):
    """Shares of Chinese characters that were read right: of all, and of those that are read in several ways."""

    all: float
    several: float


def score(sentences: list[Sentence], written: list[list[str]], known: dict[str, Counter]) -> Score:
    """Place by place; `known` are the training's readings, which say what is read in several ways."""
    right, total = [0, 0], [0, 0]
    for sentence, answer in zip(sentences, written, strict=True):
        answer = answer + [""] * len(sentence.text)
        for character, reading, got in zip(sentence.text, sentence.readings, answer):
            if reading:
                for kind in range(1 + (len(known.get(character, ())) > 1)):
                    right[kind] += got == reading
                    total[kind] += 1
    return Score(*(r / max(t, 1) for r, t in zip(right, total)))


def most_frequent(sentences: list[Sentence], known: dict[str, Counter]) -> list[list[str]]:
    """Each character read as it mostly is in the training, whatever stands beside it: what a model has to beat."""
    best = {character: max(sorted(counts), key=counts.get) for character, counts in known.items()}
    return [[best.get(character, "") for character in sentence.text] for sentence in sentences]
