"""The process of one contender, or of the ceilings: answers (method, arguments) from a pipe until it closes."""

from __future__ import annotations

import gc
import importlib
import math
import sys
import time
from multiprocessing.connection import Connection
from typing import Any, Callable

import numpy as np

import inputs
from cases import Case
from contenders import Call

BATCH_SECONDS = 2e-4  # calls shorter than this are timed several at once: a clock is not finer than that
TRIAL_SECONDS = 0.05  # per formulation, to find the fastest


class Contender:
    """One library at one case at a time."""

    def __init__(self, name: str, threads: int) -> None:
        self._module = importlib.import_module("contenders." + name)
        self._facts = self._module.start(threads)
        self._data: Case | None = None
        self._arrays: dict[str, np.ndarray] = {}
        self._call: Call | None = None
        self._batch = 1

    def facts(self) -> dict[str, Any]:
        return self._facts

    def prepare(self, case: Case) -> dict[str, Any]:
        """Chooses the fastest formulation; the answer has the seconds of each, and why others were refused."""
        self._call = None
        if self._data != case.data:
            self._arrays.clear()
            gc.collect()  # the old arrays go before the new ones come
            self._data, self._arrays = case.data, inputs.make(case)
        tried: dict[str, float] = {}
        refused: dict[str, str] = {}
        fastest = None
        for label, build in self._module.formulations(case, self._arrays).items():
            try:
                self._call = build()
                self._batch = _batch(self._call)
                tried[label] = self.fastest(TRIAL_SECONDS)
            except Exception as error:  # whatever a library raises at what it does not support
                refused[label] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                continue
            if tried[label] == min(tried.values()):
                fastest = self._call, self._batch
        self._call, self._batch = fastest or (None, 1)
        return {"tried": tried, "refused": refused, "chosen": min(tried, key=tried.get, default=None)}

    def result(self, step: int, width: int) -> np.ndarray:
        """Every step-th row of the result, float32."""
        rows = self._call.read(self._call.run()).reshape(-1, width)[::step]
        return np.ascontiguousarray(rows, np.float32)

    def fastest(self, seconds: float) -> float:
        """Seconds of the fastest call among those that begin within `seconds`."""
        end = time.perf_counter() + seconds
        best = _measure(self._call.run, self._batch)
        while time.perf_counter() < end:
            best = min(best, _measure(self._call.run, self._batch))
        return best / self._call.calls


def _measure(run: Callable[[], Any], batch: int) -> float:
    start = time.perf_counter()
    for _ in range(batch):
        run()
    return (time.perf_counter() - start) / batch


def _batch(call: Call) -> int:
    """How many runs to time at once. The first run, which may still prepare something, does not count."""
    call.run()
    return max(1, math.ceil(BATCH_SECONDS / _measure(call.run, 1)))


def serve(connection: Connection, subject: Any) -> None:
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, getattr(subject, method)(*arguments)))
        except Exception as error:
            connection.send((False, f"{type(error).__name__}: {error}"))


def main(name: str, threads: int, descriptor: int) -> None:
    connection = Connection(descriptor)
    try:
        if name == "ceilings":
            from ceilings import Ceilings

            subject: Any = Ceilings()
        else:
            subject = Contender(name, threads)
    except Exception as error:
        connection.send((False, f"{type(error).__name__}: {error}"))
        return
    connection.send((True, None))
    serve(connection, subject)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
