"""The command line as a user meets it: output, messages on stderr, exit status."""

import json
import os
import signal
import subprocess
import sys

import pytest
import swiftattn

pytestmark = pytest.mark.once

COMMANDS = ("info", "bench")


def start(*words, environment=(), **options):
    command = [sys.executable, "-m", "swiftattn", *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, env={**os.environ, **dict(environment)}, text=True, encoding="utf-8", **streams)


def run(*words, status=0, text=None, **options):
    """(stdout, stderr) of a run that has to end with this status."""
    process = start(*words, stdin=subprocess.PIPE, **options)
    out, err = process.communicate(text, timeout=120)
    assert process.returncode == status, (words, out, err)
    return out, err


def fails(*words, **options):
    """The one line that a failing run prints."""
    out, err = run(*words, status=1, **options)
    assert out == "" and err.startswith("swiftattn: ") and err.count("\n") == 1, (out, err)
    return err[len("swiftattn: ") : -1]


def test_help():
    out, err = run("--help")
    assert err == "" and all(f"\n    {command} " in out for command in COMMANDS)
    for command in COMMANDS:
        out, err = run(command, "--help")
        assert err == "" and out.startswith(f"usage: python -m swiftattn {command} ")


@pytest.mark.parametrize("words", [[], ["nope"], ["info", "more"], ["bench", "--threads", "0"], ["bench", "--seconds", "nan"]])
def test_wrong_usage(words):
    out, err = run(*words, status=2)
    assert out == "" and "usage: " in err and "error: " in err


def test_info():
    expected = {**swiftattn.cpu_info(), "library": swiftattn._ffi.path}
    assert json.loads(run("info", "--json")[0]) == expected
    lines = dict(line.split(None, 1) for line in run("info")[0].splitlines())
    assert lines.keys() == expected.keys()
    assert lines["isa"] == expected["isa"] and lines["version"] == expected["version"]
    other = json.loads(run("info", "--json", environment={"SWIFTATTN_ISA": "portable", "OMP_NUM_THREADS": "3"})[0])
    assert (other["isa"], other["threads"]) == ("portable", 3)


def test_bench():
    out, err = run("bench", "--json", "--seconds", "0.01", "--threads", "1")
    result = json.loads(out)
    assert err == "" and result["threads"] == 1 and len(result["results"]) >= 5
    for case in result["results"]:
        assert case["seconds"] > 0 and case["ratio"] == pytest.approx(case["numpy_seconds"] / case["seconds"])
    message = fails("bench", "--json", environment={"SWIFTATTN_ISA": "vax"})
    assert "SWIFTATTN_ISA" in message and "vax" in message


def test_a_full_disk_is_reported():
    with open("/dev/full", "w") as full:
        process = start("info", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err == "swiftattn: [Errno 28] No space left on device\n"


def test_a_closed_pipe_ends_it_quietly():
    process = start("bench", "--seconds", "0")
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == -signal.SIGPIPE


def test_interrupt_ends_it_quietly():
    process = start("bench", "--seconds", "60")
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and err == ""
