"""What a picture shows: tokens and the attention between them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import NamedTuple, Sequence

import numpy as np

_NAMES = {" ": "␣", "\n": "↵", "\r": "←", "\t": "⇥"}
_JOINER = "\u200d"  # holds an emoji together


class Place(NamedTuple):
    """A head and a token, each counted from 0."""

    layer: int
    head: int
    token: int


@dataclass(frozen=True)
class AttentionMap:
    """weights[l, h, i, j], (layers, heads, T, T): the part of token i's attention that goes to token j.

    tokens carry their own leading spaces: joined they are the text. causal: no token sees a later one. `start` is what
    is shown first. Raises ValueError for weights that are no such array, or not all within 0 and 1.
    """

    tokens: Sequence[str]
    weights: np.ndarray
    causal: bool
    start: Place
    model: str = ""

    def __post_init__(self) -> None:
        shape, count = np.shape(self.weights), len(self.tokens)
        if len(shape) != 4 or shape[2:] != (count, count) or 0 in shape:
            raise ValueError(f"weights: shape is {shape}, expected (layers, heads, {count}, {count})")
        if not np.all((self.weights >= 0) & (self.weights <= 1.001)):  # a sum's rounding may pass 1
            raise ValueError("weights: expected numbers from 0 to 1")
        for name, index, size in zip(Place._fields, self.start, shape):
            if not 0 <= index < size:
                raise ValueError(f"start: {name} is {index}, expected 0 to {size - 1}")

    @property
    def labels(self) -> list[str]:
        return [label(token) for token in self.tokens]

    @property
    def text(self) -> str:
        return "".join(f" {label(token)}" if token.startswith(" ") else label(token) for token in self.tokens).strip()


def label(token: str) -> str:
    """The token without the spaces before it, and with a sign or a number for what cannot be seen."""
    seen = token.lstrip(" ") or token or "∅"
    return "".join(_NAMES.get(char) or char if _visible(char) else f"⟨{ord(char):X}⟩" for char in seen)


def _visible(char: str) -> bool:
    """Not a control, a mark of direction, a lone surrogate or the like."""
    return (
        char in _NAMES
        or char == _JOINER
        or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    )
