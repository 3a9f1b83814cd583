"""Sentence embeddings of a real model on swiftattn: checked layer by layer, compared, timed and drawn."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import checkpoint
import checks
import comparison
import picture
import reference
import report
from model import MiniLM, similarities

SENTENCES = (
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
)

DRAWN = 4  # the sentence of the picture
WORD = "it"
CHOSEN = (3, 1)  # layer 4, head 2 finds what a pronoun stands for
CAPTION = (
    "Layer 1, head 3 looks at the token before, layer 2, head 9 at the one after.\n"
    "The dark first column of many heads is [CLS]: there a head looks that finds nothing to look at."
)

PROGRESS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("runs"),
    TimeElapsedColumn(),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="sentence_embeddings", description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("out/attention.png"), help="default: %(default)s")
    arguments = parser.parse_args()

    # A log has no width of its own.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    try:
        files = checkpoint.load()
    except FileNotFoundError as error:
        console.print(f"sentence_embeddings: {error}", markup=False, soft_wrap=True)
        return 1
    batch = checkpoint.tokenize(files.tokenizer, SENTENCES)
    model = MiniLM(files.config, files.weights)
    report.heading(console, files, SENTENCES, batch)

    def in_numpy(dtype: type) -> Callable[[], list[comparison.Result]]:
        weights = {name: array.astype(dtype) for name, array in files.weights.items()}
        return lambda: [
            reference.encode(ids[:length], files.config, weights) for ids, length in zip(batch.ids, batch.lengths)
        ]

    # Refreshed by hand between runs: a thread that draws would take its share of the machine from what is timed.
    with Progress(*PROGRESS, console=console, auto_refresh=False) as progress:
        # NumPy goes first: OpenMP's threads stay awake for a while after a call and would slow it down.
        exact, time_float64 = measured(progress, "NumPy float64", 3, in_numpy(np.float64))
        plain, time_float32 = measured(progress, "NumPy float32", 5, in_numpy(np.float32))
        _, time_ours = measured(progress, "swiftattn float32", 50, lambda: model(batch.ids, batch.lengths))
    console.print()

    stages, attention = model(batch.ids, batch.lengths, return_weights=True)
    embeddings = stages["unit length"]
    cosines = similarities(embeddings)
    alone = np.stack([embedded_alone(model, ids[:length]) for ids, length in zip(batch.ids, batch.lengths)])
    exact_embeddings, plain_embeddings = (
        np.stack([reference_stages["unit length"] for reference_stages, _ in results]) for results in (exact, plain)
    )

    rows = [
        *comparison.rows(comparison.unpad((stages, attention), batch.lengths), plain, exact),
        comparison.similarity_row(cosines, plain_embeddings, exact_embeddings),
    ]
    report.layers(console, rows)
    report.similarities(console, SENTENCES, cosines)
    others = {
        "the NumPy reference in float32, sentence by sentence": time_float32,
        "the NumPy reference in float64, sentence by sentence": time_float64,
    }
    report.times(console, int(batch.lengths.sum()), time_ours, others)
    made = [
        *checks.errors(rows),
        checks.embeddings(comparison.cosines(embeddings, exact_embeddings)),
        checks.published(cosines),
        checks.batching(embeddings, alone),
    ]
    report.checks(console, made)

    length = batch.lengths[DRAWN]
    weights = [layer[DRAWN, :, :length, :length] for layer in attention.values()]
    picture.draw(arguments.picture, SENTENCES[DRAWN], batch.tokens[DRAWN], weights, CHOSEN, WORD, CAPTION)
    console.print(f"Attention weights of sentence {DRAWN + 1}, drawn: {arguments.picture}", soft_wrap=True)
    return 0 if all(check.passed for check in made) else 1


def embedded_alone(model: MiniLM, ids: np.ndarray) -> np.ndarray:
    """ids (T,) -> (W,), from a batch of one."""
    stages, _ = model(ids[None], np.array([len(ids)]))
    return stages["unit length"][0]


def measured(progress: Progress, text: str, runs: int, function: Callable[[], Any]) -> tuple[Any, float]:
    """What the function returns, and the shortest of its runs after one to warm up, in seconds."""
    task = progress.add_task(text, total=runs + 1)
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
        progress.update(task, advance=1, refresh=True)
    return result, min(times[1:])


if __name__ == "__main__":
    sys.exit(main())
