"""bench: a few of the library's operations on this machine, beside NumPy."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any, Callable

import numpy as np
import swiftattn

from . import bench_cases, options
from .bench_cases import Case
from .failure import Failure

SETTLE = 0.25  # the threads of a library stay awake for a while after a call and would slow down the other
TOLERANCE = 1e-4  # relative, of the largest number: float32 in another order of sums


def add_to(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "bench",
        help="measure this machine, beside NumPy",
        description="Times some operations in float32 and the same in NumPy, about 10 seconds in all: the fastest call of "
        "each. Checks that both agree. What NumPy uses of threads is NumPy's affair (OPENBLAS_NUM_THREADS).",
    )
    command.add_argument("--json", action="store_true", help="as a JSON object")
    command.add_argument(
        "--seconds",
        type=options.number(0, 60),
        default=0.3,
        metavar="S",
        help="for each measurement; default: %(default)s",
    )
    options.add_threads(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    options.use_threads(arguments)
    info = swiftattn.cpu_info()
    results = []
    if not arguments.json:
        print(
            f"swiftattn {info['version']}, {info['isa']}, {info['threads']} threads; NumPy {np.__version__}; float32\n"
        )
        print(f"{'':44}{'swiftattn':>12}{'':>15}{'NumPy':>12}{'ratio':>8}")
    for case in bench_cases.all_cases():
        result = _measured(case, arguments.seconds)
        results.append(result)
        if not arguments.json:
            rate = f"{result['rate']:.0f} {result['unit']}"
            times = (f"{result[name] * 1e3:.2f} ms" for name in ("seconds", "numpy_seconds"))
            ours, theirs = times
            print(f"{case.name:44}{ours:>12}{rate:>15}{theirs:>12}{result['ratio']:>7.1f}x", flush=True)
    if arguments.json:
        json.dump({**info, "numpy": np.__version__, "results": results}, sys.stdout)
        print()


def _measured(case: Case, seconds: float) -> dict[str, Any]:
    theirs, expected = _fastest(case.numpy, seconds)
    ours, got = _fastest(case.ours, seconds)
    difference = np.abs(got - expected).max() / np.abs(expected).max()
    if not difference <= TOLERANCE:
        raise Failure(
            f"{case.name}: the result is wrong, it differs from NumPy's by {difference:.1e} of its largest number"
        )
    return {
        "case": case.name,
        "seconds": ours,
        "numpy_seconds": theirs,
        "ratio": theirs / ours,
        "rate": case.work / ours / 1e9,
        "unit": case.unit,
    }


def _fastest(function: Callable[[], np.ndarray], seconds: float) -> tuple[float, np.ndarray]:
    """Seconds of the fastest call, after one to warm up, and what it returns."""
    time.sleep(SETTLE)
    result = function()
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        function()
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best, result
