"""What the machine can do at most: arithmetic peaks and memory speeds, measured by small C kernels in the same run."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import compiler
from cases import Case

TRIAL_SECONDS = 0.003  # long beside a barrier, short enough for some trials to run undisturbed on a busy machine
SECONDS = 0.4  # all trials of one number
MIN_TRIALS = 5
CHAINS = 12  # as in peaks.c

# How many products of bfloat16 tiles stand for one product: float32 is the sum of three bfloat16, float16 of two.
TILE_PRODUCTS = {
    ("float32", "highest"): 6,
    ("float32", "high"): 3,
    ("float32", "medium"): 1,
    ("bfloat16", "highest"): 1,
    ("float16", "highest"): 3,
}


class Ceilings:
    """Runs in a process of its own, pinned as the contenders are."""

    def __init__(self) -> None:
        self._wide = _declared(compiler.load("peaks.c", "-DWIDTH=64"))
        self._narrow = _declared(compiler.load("peaks.c", "-DWIDTH=32"))
        self._memory = compiler.load("bandwidth.c")
        self._memory.buffer_create.restype = ctypes.c_void_p
        self._memory.buffer_create.argtypes = [ctypes.c_size_t]
        self._memory.buffer_destroy.argtypes = [ctypes.c_void_p]
        for function in (self._memory.read_speed, self._memory.copy_speed):
            function.restype = ctypes.c_double
            function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]

    def peaks(self) -> dict[str, float]:
        """Flops per second; 0 for a unit that the machine lacks."""
        return {
            name: _fastest(function, flops)
            for name, function, flops in (
                ("fma", self._wide.fma_peak, 2 * 16 * CHAINS),
                ("fma_256", self._narrow.fma_peak, 2 * 8 * CHAINS),
                ("bf16_dot", self._wide.bf16_dot_peak, 2 * 32 * CHAINS),
                ("amx", self._wide.amx_peak, 4 * 2 * 16 * 16 * 32),
            )
        }

    def memory(self, size: int) -> dict[str, float]:
        """Bytes per second over a working set of this size, read or copied."""
        buffer = self._memory.buffer_create(size)
        if not buffer:
            raise MemoryError(f"no memory for a buffer of {size} bytes")
        try:
            return {
                "read": _fastest(lambda times: self._memory.read_speed(buffer, size, times), size),
                "copy": _fastest(lambda times: self._memory.copy_speed(buffer, size, times), size),
            }
        finally:
            self._memory.buffer_destroy(buffer)


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name in ("fma_peak", "bf16_dot_peak", "amx_peak"):
        getattr(library, name).restype = ctypes.c_double
        getattr(library, name).argtypes = [ctypes.c_int64]
    return library


def _fastest(function: Any, work: int) -> float:
    """The best of many short trials; `work` is what one repetition counts on one thread."""
    speed = function(max(1, int(1e7 / work)))
    if not speed:
        return 0.0
    times = max(1, int(speed * TRIAL_SECONDS / work))
    end = time.perf_counter() + SECONDS
    trial = 0
    while trial < MIN_TRIALS or time.perf_counter() < end:
        speed = max(speed, function(times))
        trial += 1
    return speed


def working_set(case: Case, beyond_cache: int) -> int:
    """The size at which a case's memory speed is measured: the next power of two, or the size beyond every cache."""
    return min(1 << max(20, (case.bytes - 1).bit_length()), beyond_cache)


def floor(case: Case, measured: dict[str, Any], isa: str) -> tuple[float, str]:
    """The least seconds that the machine needs, and what bounds them: "flop", "read" or "copy"."""
    copying = case.group == "rows"
    kind = "copy" if copying else "read"
    by_memory = case.bytes / measured["memory"][working_set(case, measured["beyond_cache"])][kind]
    by_arithmetic = case.flops / peak(case, measured["peaks"], isa)
    return (by_memory, kind) if by_memory >= by_arithmetic else (by_arithmetic, "flop")


def peak(case: Case, peaks: dict[str, float], isa: str) -> float:
    """The arithmetic peak for the case's precision with the units of an instruction set."""
    if isa in ("avx2", "portable"):
        return peaks["fma_256"]
    found = [peaks["fma"], peaks["fma_256"]]
    if isa == "amx":
        found.append(peaks["amx"] / TILE_PRODUCTS[case.dtype, case.precision])
    if case.dtype == "bfloat16" or case.precision == "medium":
        found.append(peaks["bf16_dot"])
    return max(found)
