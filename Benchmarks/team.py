"""The processes of the contenders as the benchmark sees them: started alike, asked one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import machine

TIMEOUT = 300.0  # seconds; no answer of a working library takes so long
QUIET_SHARE = 0.05  # of a processor: a process that uses less has put its threads to sleep
QUIET_STEP = 0.004
QUIET_LIMIT = 0.6  # OpenMP runtimes spin for 0.2 seconds after the last parallel region


class WorkerFailure(Exception):
    """The process died, hangs, or raised; the text says which."""


class Worker:
    """A process with the threads, the processors and the allocator settings that all contenders get."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self._threads = threads
        self._start()

    def _start(self) -> None:
        """Starts the process; ImportError and the like of its library come out as WorkerFailure."""
        self._connection, theirs = Pipe()
        environment = {
            **os.environ,
            **{f"{runtime}_NUM_THREADS": str(self._threads) for runtime in ("OMP", "MKL", "OPENBLAS")},
            # Freed memory stays with the process, as in a long-running program; otherwise every large result is
            # paid for in page faults, which say nothing of a kernel.
            "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        }
        processors = machine.processors(self._threads)
        script = str(Path(__file__).with_name("worker.py"))
        self._process = subprocess.Popen(
            [sys.executable, script, self.name, str(self._threads), str(theirs.fileno())],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        )
        theirs.close()
        try:
            self._answer()
        except (EOFError, OSError) as error:
            self.stop()
            raise WorkerFailure(f"{self._end()} at its start") from error

    def ask(self, method: str, *arguments: Any) -> Any:
        """The answer; after a death or a hang the process is started anew for the next question."""
        try:
            self._connection.send((method, arguments))
            return self._answer()
        except (EOFError, OSError) as error:
            self.stop()
            reason = self._end()
            self._start()
            raise WorkerFailure(reason) from error

    def _end(self) -> str:
        code = self._process.returncode
        return f"the process ended by {signal.Signals(-code).name}" if code < 0 else f"the process ended with {code}"

    def _answer(self) -> Any:
        if not self._connection.poll(TIMEOUT):
            raise TimeoutError
        good, answer = self._connection.recv()
        if not good:
            raise WorkerFailure(answer)
        return answer

    def settle(self) -> None:
        """Waits until the process leaves the processors alone: spinning threads would slow the next contender."""
        clock = (~self._process.pid << 3) | 2  # Linux' CPU-time clock of another process
        end = time.perf_counter() + QUIET_LIMIT
        used, now = time.clock_gettime(clock), time.perf_counter()
        while now < end:
            time.sleep(QUIET_STEP)
            used_before, before = used, now
            used, now = time.clock_gettime(clock), time.perf_counter()
            if used - used_before < QUIET_SHARE * (now - before):
                return

    def stop(self) -> None:
        self._connection.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
