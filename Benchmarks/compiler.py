"""Small C files, compiled when they are needed for the machine that they run on."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "native"
INCLUDE = SOURCES.parents[1] / "include"

COMPILER = os.environ.get("CC", "cc")


def available() -> bool:
    return shutil.which(COMPILER) is not None


def load(source: str, *flags: str) -> ctypes.CDLL:
    """The compiled file, loaded; OSError if there is no compiler, or with its words if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "native.so"
        # -march=native: a ceiling is what this machine can do.
        command = [COMPILER, "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", *flags]
        done = subprocess.run([*command, str(SOURCES / source), "-o", str(library)], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{source}: {done.stderr.strip()}")
        return ctypes.CDLL(str(library))
