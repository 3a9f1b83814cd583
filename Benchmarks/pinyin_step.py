"""One training step of Examples/pinyin.py beside the same model in PyTorch: python Benchmarks/pinyin_step.py [--rounds N].

Forward, loss, backward and Adam on sentences of one length, which the example trains on too. Each library has a process of
its own, they take turns, and the best time of each counts.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "Examples"))
import pinyin
import swiftattn

CHARACTERS, READINGS = 3500, 1185  # about those of the reviews


class Peer(torch.nn.Module):
    """The layers of torch.nn.Transformer, sinusoidal positions, a head that is the target's table."""

    def __init__(self) -> None:
        super().__init__()
        self.source = torch.nn.Embedding(CHARACTERS, pinyin.WIDTH)
        self.target = torch.nn.Embedding(READINGS, pinyin.WIDTH)
        self.transformer = torch.nn.Transformer(
            *(pinyin.WIDTH, pinyin.HEADS, pinyin.LAYERS, pinyin.LAYERS, pinyin.INNER, pinyin.DROPOUT), batch_first=True
        )
        self.drop = torch.nn.Dropout(pinyin.DROPOUT)
        angles = torch.arange(64)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, pinyin.WIDTH, 2) / pinyin.WIDTH)
        self.positions = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        sides = [
            self.drop(table(ids) + self.positions[: ids.shape[1]]) for table, ids in ((self.source, source), (self.target, target))
        ]
        mask = torch.nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.transformer(*sides, tgt_mask=mask, tgt_is_causal=True) @ self.target.weight.T


def ours():
    model = pinyin.build(CHARACTERS, READINGS).train()
    optimizer = swiftattn.optim.AdamW(model, 1e-3, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)

    def step(source, target):
        logits = model(source, target[:, :-1])
        _, gradient = swiftattn.cross_entropy_backward(logits, target[:, 1:], label_smoothing=pinyin.SMOOTHING)
        model.zero_grad()
        model.backward(gradient)
        optimizer.step()

    return step


def theirs():
    model = Peer().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.9, 0.98), eps=1e-9)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=pinyin.SMOOTHING)

    def step(source, target):
        source, target = torch.from_numpy(source), torch.from_numpy(target)
        optimizer.zero_grad()
        loss(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten()).backward()
        optimizer.step()

    return step


def start(library: str, threads: int) -> None:
    """In a library's own process."""
    global _step
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    swiftattn.set_num_threads(threads)
    _step = ours() if library == "swiftattn" else theirs()


def seconds(length: int, steps: int = 3) -> float:
    """Of the best of a few steps."""
    rng, batch, best = np.random.default_rng(0), pinyin.TOKENS // length, math.inf
    source, target = (rng.integers(3, top, (batch, n)) for top, n in ((CHARACTERS, length), (READINGS, length + 2)))
    for _ in range(steps):
        since = time.perf_counter()
        _step(source, target)
        best = min(best, time.perf_counter() - since)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=swiftattn.get_num_threads())
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    pools = {name: spawn.Pool(1, start, (name, given.threads)) for name in ("swiftattn", "torch")}
    for length in (5, 9, 16):
        rounds = [{name: pool.apply(seconds, (length,)) for name, pool in pools.items()} for _ in range(given.rounds)]
        best = {name: min(times[name] for times in rounds) for name in pools}
        line = "  ".join(f"{name} {1e3 * time:.1f} ms" for name, time in best.items())
        print(f"{pinyin.TOKENS // length:4} sentences of {length:2} characters: {line}  {best['torch'] / best['swiftattn']:.2f}x")
    for pool in pools.values():
        pool.terminate()


if __name__ == "__main__":
    main()
