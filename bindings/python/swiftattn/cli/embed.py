"""embed: texts as vectors."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import swiftattn

from . import model_files, options
from .failure import Failure


def add_to(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "embed",
        help="turn texts into vectors with an encoder",
        description="Prints the embeddings of texts as a JSON list of vectors, or writes them to a .npy file, or compares "
        "the texts.",
    )
    options.add_model(command)
    command.add_argument("texts", nargs="+", metavar="TEXT", help="a text; - stands for the lines of standard input")
    command.add_argument(
        "--similarity", action="store_true", help="the cosines between all texts, as a table, instead of vectors"
    )
    command.add_argument("--json", action="store_true", help="with --similarity: the cosines as a JSON list of rows")
    command.add_argument(
        "--npy", metavar="FILE", help="write a float32 array in NumPy's format instead; - is standard output"
    )
    options.add_threads(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.npy == "-" and sys.stdout.isatty():
        raise Failure("--npy -: will not write an array to the terminal, name a file or a pipe")
    options.use_threads(arguments)
    texts = _texts(arguments.texts)
    model = model_files.load(arguments.model, "bert")
    result = model.encode(texts)
    if arguments.similarity:
        result = _cosines(result)
    if arguments.npy:
        _save(arguments.npy, result)
    elif arguments.similarity and not arguments.json:
        _table(texts, result)
    else:
        json.dump([[_shortest(number) for number in row] for row in result], sys.stdout)
        sys.stdout.write("\n")


def _texts(words: list[str]) -> list[str]:
    texts = []
    for word in words:
        texts += sys.stdin.read().splitlines() if word == "-" else [word]
    if not texts:
        raise Failure("TEXT: standard input has no line")
    return texts


def _cosines(vectors: np.ndarray) -> np.ndarray:
    """(B, B). RMS norm gives vectors the length of the root of their width; a weight of its inverse makes that 1."""
    width = vectors.shape[1]
    unit = swiftattn.rms_norm(vectors, np.full(width, width**-0.5, np.float32), eps=0.0)
    return swiftattn.matmul(unit, unit.T)


def _save(name: str, result: np.ndarray) -> None:
    if name == "-":
        np.save(sys.stdout.buffer, result)
        return
    with open(name, "wb") as file:
        np.save(file, result)


def _shortest(number: np.float32) -> float:
    """With as many digits as float32 needs."""
    return float(str(number))


def _table(texts: list[str], cosines: np.ndarray) -> None:
    """A row for each text; the nearest of the others is marked."""
    count = len(texts)
    digits = len(str(count))
    print(" " * digits, *(f"{n:>6}" for n in range(1, count + 1)))
    for n, (text, row) in enumerate(zip(texts, cosines)):
        nearest = max((other for other in range(count) if other != n), key=row.__getitem__, default=None)
        cells = (f"{cosine:.2f}{'*' if other == nearest else ' '}" for other, cosine in enumerate(row))
        print(f"{n + 1:>{digits}}", *(f"{cell:>6}" for cell in cells), "", " ".join(text.split()))
