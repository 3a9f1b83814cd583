"""info: what the library runs on."""

from __future__ import annotations

import argparse
import json

import swiftattn
from swiftattn import _ffi


def add_to(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "info",
        help="what the library runs on",
        description="Prints the instruction set of the kernels in use, the number of threads that a call may use, the "
        "version of the library, the processor's features that have kernels of their own, and where the library was "
        "loaded from. SWIFTATTN_ISA and OMP_NUM_THREADS change the first two, SWIFTATTN_LIBRARY the last.",
    )
    command.add_argument("--json", action="store_true", help="as a JSON object")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    facts = {**swiftattn.cpu_info(), "library": _ffi.path}
    if arguments.json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {' '.join(value) if isinstance(value, list) else value}")
