"""The process of one contender, or of the ceilings: answers (method, arguments) from a pipe until it closes."""

from __future__ import annotations

import gc
import importlib
import math
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import inputs
from cases import Case
from contenders import Call

BATCH_SECONDS = 2e-4  # calls shorter than this are timed several at once: a clock is not finer than that
TRIAL_SECONDS = 0.03  # per formulation, to find those worth more
HOPELESS = 3.0  # a formulation so many times slower than the fastest is timed no further


class Contender:
    """One library at one case at a time."""

    def __init__(self, name: str, threads: int) -> None:
        self._module = importlib.import_module("contenders." + name)
        self._facts = self._module.start(threads)
        self._data: Case | None = None
        self._arrays: dict[str, np.ndarray] = {}
        self._playing: dict[str, Timed] = {}

    def facts(self) -> dict[str, Any]:
        return self._facts

    def prepare(self, case: Case) -> dict[str, Any]:
        """Tries the formulations; the answer has the seconds of each, which play on, and why others were refused."""
        self._playing.clear()
        if self._data != case.data:
            self._arrays.clear()
            gc.collect()  # the old arrays go before the new ones come
            self._data, self._arrays = case.data, inputs.make(case)
        tried: dict[str, float] = {}
        refused: dict[str, str] = {}
        for label, build in self._module.formulations(case, self._arrays).items():
            try:
                timed = Timed(build())
                tried[label] = timed.fastest(TRIAL_SECONDS)
                self._playing[label] = timed
            except Exception as error:  # whatever a library raises at what it does not support
                refused[label] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        for label, seconds in tried.items():
            if seconds > HOPELESS * min(tried.values()):
                del self._playing[label]
        return {"tried": tried, "refused": refused, "playing": list(self._playing)}

    def result(self, label: str, step: int, width: int) -> np.ndarray:
        """Every step-th row of the result, float32."""
        call = self._playing[label].call
        rows = call.read(call.run()).reshape(-1, width)[::step]
        return np.ascontiguousarray(rows, np.float32)

    def fastest(self, seconds: float) -> dict[str, float]:
        """Seconds of the fastest call of each formulation that plays."""
        return {label: timed.fastest(seconds) for label, timed in self._playing.items()}


class Timed:
    """A call and how many runs of it to time at once."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._batch = 1
        call.run()  # the first run may still prepare something
        self._batch = max(1, math.ceil(BATCH_SECONDS / self._measure()))

    def fastest(self, seconds: float) -> float:
        """Seconds of the fastest call among those that begin within `seconds`."""
        end = time.perf_counter() + seconds
        best = self._measure()
        while time.perf_counter() < end:
            best = min(best, self._measure())
        return best / self.call.calls

    def _measure(self) -> float:
        run = self.call.run
        start = time.perf_counter()
        for _ in range(self._batch):
            run()
        return (time.perf_counter() - start) / self._batch


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
