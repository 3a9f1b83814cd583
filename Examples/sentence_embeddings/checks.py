"""What has to hold for the demo to succeed."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np

from comparison import Row

ERROR_BOUND = 1e-5  # float32 keeps 6e-8; six layers of sums add to it
COSINE_BOUND = 0.999999
PUBLISHED_BOUND = 1e-4  # of numbers with four decimals

# The first sentences of the demo are those of sentence-transformers' quickstart; this is what it prints for them.
PUBLISHED = np.array([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])


class Check(NamedTuple):
    what: str
    measured: str
    bound: str
    passed: bool


def errors(rows: Sequence[Row]) -> list[Check]:
    """NaN fails here and below: NumPy's max and min keep it, and no comparison holds for it."""
    relative = np.max([row.ours.relative for row in rows])
    weight = np.max([row.weights.absolute for row in rows if row.weights])
    return [
        _at_most("largest relative error", relative, ERROR_BOUND),
        _at_most("largest error of an attention weight", weight, ERROR_BOUND),
    ]


def embeddings(with_reference: np.ndarray) -> Check:
    """with_reference (B,): cosines between the embeddings and the reference's."""
    smallest = np.min(with_reference)
    what = "smallest cosine between an embedding and its reference"
    return Check(what, f"{smallest:.9f}", f">= {COSINE_BOUND}", bool(smallest >= COSINE_BOUND))


def published(cosines: np.ndarray) -> Check:
    """cosines (B, B): similarities of the sentences."""
    count = len(PUBLISHED)
    difference = np.abs(cosines[:count, :count] - PUBLISHED).max()
    return _at_most(f"similarities of 1 to {count}, from those that its authors publish", difference, PUBLISHED_BOUND)


def batching(together: np.ndarray, alone: np.ndarray) -> Check:
    """Embeddings (B, W) from the padded batch, and of each sentence on its own: swiftattn promises the same bits."""
    different = int((together != alone).any(-1).sum())
    return Check("embeddings that differ by a bit if computed alone", str(different), "0", different == 0)


def _at_most(what: str, value: float, bound: float) -> Check:
    return Check(what, f"{value:.1e}", f"<= {bound:.0e}", bool(value <= bound))
