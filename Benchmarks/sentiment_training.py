"""Trains the sentiment models of Examples/sentiment.py beside PyTorch: python Benchmarks/sentiment_training.py [--seeds N].

Both libraries begin with the same values and see the same batches; each has a process of its own, and they take turns. First
reviews a second in training, the median of rounds of so many steps; then, with --seeds, whole trainings: test accuracy of the
epoch that is best in validation, for each model, library and seed.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Examples"))
import sentiment

LIBRARIES = "swiftattn", "torch"
STEPS, ROUNDS = 20, 9
SPEED, BELOW, ABOVE = 1.5, 0.5, 0.5  # bars: ratio of speeds; points of accuracy below torch, and of improved above plain


def start(library: str, threads: int) -> None:
    """In a library's own process."""
    global _library, _data
    os.environ["OMP_NUM_THREADS"] = str(threads)
    _library, _data = library, sentiment.data()
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
    else:
        import swiftattn

        swiftattn.set_num_threads(threads)


def begin(kind: str) -> None:
    """A training that `go` carries on."""
    global _step, _batches
    steps = ROUNDS * STEPS
    model = sentiment.build(kind, len(_data[3]))
    items = len(_data[0].labels)
    _batches = itertools.chain.from_iterable(_data[0].batches(sentiment.order(items, 0, epoch)) for epoch in itertools.count())
    if _library == "torch":
        from torch_sentiment import Twin

        _step = Twin(kind, model.state_dict(), steps).step
    else:
        optimizer = sentiment.optim.AdamW(model.train(), **sentiment.rule(kind, steps))
        _step = lambda *batch: sentiment.step(model, optimizer, *batch)


def go() -> float:
    """Reviews a second over the next steps."""
    count = 0
    since = time.perf_counter()
    for batch in itertools.islice(_batches, STEPS):
        _step(*batch)
        count += len(batch[-1])
    return count / (time.perf_counter() - since)


def train(kind: str, seed: int) -> tuple[float, float]:
    """A whole training: the best validation accuracy, and the test accuracy of that epoch, in percent."""
    if _library == "swiftattn":
        with tempfile.TemporaryDirectory() as folder:
            sentiment.FOLDER = Path(folder)
            history = sentiment.train(kind, seed, quiet=True)
        return 100 * max(history.validation), 100 * history.test
    import torch
    from torch_sentiment import Twin

    torch.manual_seed(seed)
    examples, validation, test, numbers = _data
    items, epochs = len(examples.labels), sentiment.SETTINGS[kind]["epochs"]
    twin = Twin(kind, sentiment.build(kind, len(numbers), seed).state_dict(), epochs * -(-items // sentiment.BATCH))
    best = 0.0, 0.0
    for epoch in range(epochs):
        for batch in examples.batches(sentiment.order(items, seed, epoch)):
            twin.step(*batch)
        seen = twin.accuracy(validation)
        if seen > best[0]:
            best = seen, twin.accuracy(test)
    return 100 * best[0], 100 * best[1]


def measure_speed(teams: dict, threads: int) -> bool:
    print(f"reviews a second in training, {threads} threads, median of {ROUNDS - 1} rounds of {STEPS} batches in turns")
    met = True
    for kind in sentiment.SETTINGS:
        speeds: dict[str, list[float]] = {library: [] for library in LIBRARIES}
        for team in teams.values():
            team.apply(begin, (kind,))
        for _ in range(ROUNDS):
            for library, team in teams.items():
                time.sleep(0.3)  # threads of the library before may still be awake
                speeds[library].append(team.apply(go))
        ours, theirs = (statistics.median(speeds[library][1:]) for library in LIBRARIES)  # the first round warms up
        met &= ours / theirs >= SPEED
        print(f"{kind:10} swiftattn {ours:6.0f}  torch {theirs:6.0f}  ratio {ours / theirs:.2f} (bar {SPEED})", flush=True)
    return met


def measure_accuracy(teams: dict, seeds: int) -> bool:
    means: dict[tuple[str, str], float] = {}
    print(f"accuracy in percent, validation and test, seeds 0 to {seeds - 1}")
    for kind in sentiment.SETTINGS:
        for library, team in teams.items():
            found = [team.apply(train, (kind, seed)) for seed in range(seeds)]
            means[kind, library] = float(np.mean([test for _, test in found]))
            runs = "  ".join(f"{validation:.2f} {test:.2f}" for validation, test in found)
            print(f"{kind:10} {library:10} {runs}  mean of test {means[kind, library]:.2f}", flush=True)
    met = means["improved", "swiftattn"] - means["plain", "swiftattn"] >= ABOVE
    return met and all(means[kind, "torch"] - means[kind, "swiftattn"] <= BELOW for kind in sentiment.SETTINGS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of each library (default 2)")
    parser.add_argument("--seeds", type=int, default=0, help="whole trainings of each model and library (default none)")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    teams = {library: context.Pool(1, start, (library, options.threads)) for library in LIBRARIES}
    met = measure_speed(teams, options.threads)
    if options.seeds:
        met &= measure_accuracy(teams, options.seeds)
    for team in teams.values():
        team.close()
        team.join()
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
