"""Examples/generate.c, compiled against the library, says what the Python package says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import gguf_files
import pytest
from swiftattn import _ffi
from swiftattn.models import load

ROOT = Path(__file__).resolve().parents[2]
compiler = os.environ.get("CC") or shutil.which("cc")
pytestmark = [pytest.mark.once, pytest.mark.skipif(not compiler, reason="no C compiler")]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path, library = tmp_path_factory.mktemp("c") / "generate", Path(_ffi.path)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{ROOT / 'include'}"]
    links = [f"-L{library.parent}", "-lswiftattn", f"-Wl,-rpath,{library.parent}"]
    subprocess.run([compiler, *flags, str(ROOT / "Examples/generate.c"), *links, "-o", str(path)], check=True)
    return path


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_the_same_continuation(program, tmp_path):
    model = gguf_files.write_model(tmp_path / "model.gguf", format="Q4_1", table="Q8_0")
    result = run(program, model, 20, 3, 1, 4, 1, 5)
    assert result.returncode == 0 and result.stderr == ""
    ids = [int(word) for word in result.stdout.split()]
    assert ids == load(model).generate([3, 1, 4, 1, 5], max_tokens=20, as_ids=True)


def test_errors_are_said(program, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGML")
    for arguments, code, message in (
        ((tmp_path / "bad.gguf", 1, 1), 1, "expected the letters GGUF"),
        ((tmp_path / "none.gguf", 1, 1), 1, "cannot be read"),
        ((), 2, "usage"),
    ):
        result = run(program, *arguments)
        assert result.returncode == code and message in result.stderr
