"""The commands' common parser, and what every failure becomes: a line on stderr and status 1; 2 is for wrong usage."""

from __future__ import annotations

import argparse
import os
import sys

from . import attend, bench, embed, generate, info
from .extras import missing
from .failure import Failure

COMMANDS = (info, generate, embed, attend, bench)


def main(words: list[str] | None = None) -> int:
    """The exit status: 0, or 1 after a failure. Raises SystemExit for --help (0) and wrong usage (2)."""
    arguments = _parser().parse_args(words)
    try:
        arguments.run(arguments)
        sys.stdout.flush()  # here, where a full disk can still be reported
    except ImportError as error:
        return _failed(missing(error))
    except MemoryError as error:
        return _failed(f"out of memory {error}".rstrip())
    except OSError as error:
        _drop_output()
        return _failed(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (Failure, ValueError, TypeError) as error:  # the library's own messages are made to be read
        return _failed(str(error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m swiftattn",
        description="Transformers on the CPU: run language models and encoders, look into their attention, "
        "measure this machine.",
        epilog="`python -m swiftattn COMMAND --help` says more. Status: 0 done, 1 failed, 2 wrong usage.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def _drop_output() -> None:
    """What could not be written would be tried again at exit, and fail there."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(message: str) -> int:
    print(f"swiftattn: {message}", file=sys.stderr)
    return 1
