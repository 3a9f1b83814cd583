"""Command line: python -m swiftattn info."""

from __future__ import annotations

import argparse
import sys

import swiftattn
from swiftattn import _ffi


def info(arguments: argparse.Namespace) -> int:
    facts = {**swiftattn.cpu_info(), "library": _ffi.path}
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")
    return 0


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m swiftattn", description=swiftattn.__doc__)
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    command = commands.add_parser(
        "info",
        help="what the library runs on",
        description="Prints the instruction set of the kernels in use, the number of threads that a call may use, "
        "the version of the library and where it was loaded from. SWIFTATTN_ISA and OMP_NUM_THREADS change the "
        "first two, SWIFTATTN_LIBRARY the last.",
    )
    command.set_defaults(run=info)
    arguments = parser.parse_args(words)
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
