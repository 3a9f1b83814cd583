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
        """Chooses the fastest formulation. -> seconds of a call by formulation, the choice; or the reasons of none."""
        self._call = None
        if self._data != case.data:
            self._arrays.clear()
            gc.collect()  # the old arrays go before the new ones come
            self._data, self._arrays = case.data, inputs.make(case)
        tried: dict[str, float] = {}
        refused: dict[str, str] = {}
        for label, build in self._module.formulations(case, self._arrays).items():
            try:
                call = build()
                seconds, batch = _trial(call)
            except Exception as error:  # whatever a library raises at what it does not support
                refused[label] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                continue
            if seconds < min(tried.values(), default=math.inf):
                self._call, self._batch = call, batch
            tried[label] = seconds
        return {"tried": tried, "refused": refused, "chosen": min(tried, key=tried.get, default=None)}

    def result(self, step: int, width: int) -> np.ndarray:
        """Every step-th row of the result, float32."""
        rows = self._call.read(self._call.run()).reshape(-1, width)[::step]
        return np.ascontiguousarray(rows, np.float32)

    def sample(self, seconds: float, most: int) -> list[float]:
        """Seconds of one call, measured a few times: for about `seconds` in all, at least once and at most `most`."""
        times = []
        end = time.perf_counter() + seconds
        while not times or (len(times) < most and time.perf_counter() < end):
            times.append(_measure(self._call.run, self._batch) / self._call.calls)
        return times


def _measure(run: Callable[[], Any], batch: int) -> float:
    start = time.perf_counter()
    for _ in range(batch):
        run()
    return (time.perf_counter() - start) / batch


def _trial(call: Call) -> tuple[float, int]:
    """Seconds of a call and how many runs to time at once. The first run, which may still prepare, does not count."""
    call.run()
    batch = max(1, math.ceil(BATCH_SECONDS / _measure(call.run, 1)))
    end = time.perf_counter() + TRIAL_SECONDS
    best = _measure(call.run, batch)
    while time.perf_counter() < end:
        best = min(best, _measure(call.run, batch))
    return best / call.calls, batch


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
