"""What the library runs on: instruction set, threads, version."""

from __future__ import annotations

from . import _ffi
from ._tensor import integer


def cpu_info() -> dict[str, str | int | list[str]]:
    """{"isa": kernels in use, "threads": largest number that a call may use, "version": of the library, "features": what
    the machine has among "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx" and "neon"}.

    isa is "portable", "avx2", "avx512", "amx" or "neon"; "unsupported" if SWIFTATTN_ISA names one that the machine lacks.
    """
    return {
        "isa": _ffi.cpu_isa().decode(),
        "threads": get_num_threads(),
        "version": _ffi.version().decode(),
        "features": _ffi.cpu_features().decode().split(),
    }


def set_num_threads(n: int) -> None:
    """Sets the largest number of threads that a later call may use: 1 to 1024, or 0 for the default.

    The default is OMP_NUM_THREADS if set, else the processors in the affinity mask. Results never depend on it.
    """
    _ffi.set_num_threads(integer(n, "threads", -(2**31), 2**31 - 1))


def get_num_threads() -> int:
    """The largest number of threads that a call may use."""
    return _ffi.get_num_threads()
