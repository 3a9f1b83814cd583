"""How far results are from the float64 reference."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np

# What MiniLM and the reference return: the stages, and the attention weights of those that are layers.
Result = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


class Errors(NamedTuple):
    absolute: float  # largest |x - reference| of any number
    relative: float  # largest |x - reference| / |reference| of any vector along the last axis, in the 2-norm


class Row(NamedTuple):
    stage: str
    ours: Errors
    plain: Errors  # of the reference itself in float32
    weights: Errors | None  # of the layer's attention weights


def unpad(result: Result, lengths: np.ndarray) -> list[Result]:
    """The result of a padded batch sentence by sentence, as the reference gives them."""
    stages, attention = result
    return [
        (
            {name: x[b, :length] if x.ndim == 3 else x[b] for name, x in stages.items()},
            {name: weights[b, :, :length, :length] for name, weights in attention.items()},
        )
        for b, length in enumerate(lengths)
    ]


def rows(ours: Sequence[Result], plain: Sequence[Result], exact: Sequence[Result]) -> list[Row]:
    """One for each stage, over all sentences."""

    def between(results: Sequence[Result], part: int, name: str) -> Errors:
        return errors([result[part][name] for result in results], [reference[part][name] for reference in exact])

    stages, attention = exact[0]
    return [
        Row(
            name,
            between(ours, 0, name),
            between(plain, 0, name),
            between(ours, 1, name) if name in attention else None,
        )
        for name in stages
    ]


def similarity_row(ours: np.ndarray, plain: np.ndarray, exact: np.ndarray) -> Row:
    """ours (B, B): the cosines; plain and exact (B, W): the embeddings to take them from."""
    reference = exact @ exact.T
    return Row("similarities", errors([ours], [reference]), errors([plain @ plain.T], [reference]), None)


def errors(results: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> Errors:
    """NaN where any number is NaN."""
    pairs = [(result - reference, reference) for result, reference in zip(results, references)]
    absolute = np.max([np.abs(difference).max() for difference, _ in pairs])
    relative = np.max([np.max(_length(difference) / _length(reference)) for difference, reference in pairs])
    return Errors(float(absolute), float(relative))


def cosines(results: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Between rows of the same number, in the references' float64."""
    results = results.astype(references.dtype)
    return (results * references).sum(-1) / (_length(results) * _length(references))


def _length(x: np.ndarray) -> np.ndarray:
    return np.sqrt((x * x).sum(-1))
