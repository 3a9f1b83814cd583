"""Arguments that several commands share, and types that turn what is out of range into wrong usage."""

from __future__ import annotations

import argparse
from typing import Callable

import swiftattn

MODEL = "a GGUF file, a Hugging Face folder with safetensors, or an installed Python package that carries either"


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=MODEL)


def add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threads",
        type=whole(1, 1024),
        metavar="N",
        help="threads to use; default: OMP_NUM_THREADS, else every processor",
    )


def use_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        swiftattn.set_num_threads(arguments.threads)


def whole(low: int, high: int = 2**63 - 1) -> Callable[[str], int]:
    """A type of whole numbers from low to high."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number {_range(low, high)}, got {text!r}")
        return number

    return convert


def number(low: float, high: float = float("inf"), above: bool = False) -> Callable[[str], float]:
    """A type of finite numbers from low (or above it) to high."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (low < value if above else low <= value) or not value <= high or value == float("inf"):
            bound = f"above {low:g}" if above else _range(low, high)
            raise argparse.ArgumentTypeError(f"expected a number {bound}, got {text!r}")
        return value

    return convert


def _range(low: float, high: float) -> str:
    if low == -float("inf"):
        return ""
    return f"from {low:g} to {high:g}" if high < 2**63 - 1 else f"from {low:g}"
