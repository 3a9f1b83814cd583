"""attend: pictures of a model's attention over a text."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NamedTuple

import numpy as np

from ..pictures import AttentionMap, Place, save_html, save_png
from . import model_files, options
from .failure import Failure


def add_to(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "attend",
        help="draw a model's attention over a text",
        description="Draws how the tokens of a text attend to one another in each layer and head: a page to explore in "
        "a browser, which needs nothing else and no network, and an image. Without --html and --png both are written: "
        "attention.html and attention.png.",
    )
    options.add_model(command)
    command.add_argument("text", metavar="TEXT", help="the text; - reads it from standard input")
    command.add_argument("--html", metavar="FILE", help="the page")
    command.add_argument("--png", metavar="FILE", help="the image; needs matplotlib")
    command.add_argument("--layer", type=options.whole(1), metavar="N", help="shown large; default: the middle one")
    command.add_argument(
        "--head", type=options.whole(1), default=1, metavar="N", help="shown large; default: %(default)s"
    )
    command.add_argument("--token", metavar="WORD", help="whose row is pointed out: its text, or its number from 1")
    command.add_argument(
        "--max-tokens",
        type=options.whole(1, 512),
        default=128,
        metavar="N",
        help="longest text to draw; default: %(default)s",
    )
    options.add_threads(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    html, png = arguments.html, arguments.png
    if html is None and png is None:
        html, png = "attention.html", "attention.png"
    if png is not None:
        import matplotlib  # noqa: F401  a missing one is reported before the work
    options.use_threads(arguments)
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    seen = _attention(model_files.load(arguments.model), text, arguments.max_tokens)
    name = model_files.find(arguments.model).stem
    picture = AttentionMap(seen.tokens, seen.weights, seen.causal, _start(arguments, seen), name)
    for path, save in ((html, save_html), (png, save_png)):
        if path is not None:
            save(path, picture)
            print(path)


class Seen(NamedTuple):
    tokens: list[str]  # with their leading spaces
    weights: np.ndarray  # (layers, heads, T, T)
    causal: bool


def _attention(model: Any, text: str, limit: int) -> Seen:
    causal = hasattr(model, "generate")
    words = model.tokenize(text) if causal else model.tokenize([text]).words[0]
    if not 1 <= len(words) <= limit:
        raise Failure(f"TEXT: is {len(words)} tokens long, expected 1 to {limit} (--max-tokens)")
    if not causal:
        return Seen(_spaced(words), model.attend(text).weights, causal)
    pieces = zip(model.tokenizer.pieces(words), words)
    return Seen([piece or model.tokenizer.word(id) for piece, id in pieces], model.attention(words), causal)


def _spaced(words: list[str]) -> list[str]:
    """A tokenizer's words, which mark the beginning or the going on of a word, with the space before them."""
    for mark in ("\u2581", "\u0120"):
        if any(word.startswith(mark) for word in words):
            return [word.replace(mark, " ") for word in words]
    return [word[2:] if word.startswith("##") else f" {word}" for word in words]


def _start(arguments: argparse.Namespace, seen: Seen) -> Place:
    layers, heads, count, _ = seen.weights.shape
    layer = (layers + 1) // 2 if arguments.layer is None else arguments.layer
    for name, number, size in (("layer", layer, layers), ("head", arguments.head, heads)):
        if number > size:
            raise Failure(f"--{name}: expected 1 to {size}, got {number}")
    return Place(layer - 1, arguments.head - 1, _token(arguments.token, seen))


def _token(wanted: str | None, seen: Seen) -> int:
    """A token that equals the word, else the one of that number; by default the last that is not special."""
    texts, count = [token.strip() for token in seen.tokens], len(seen.tokens)
    if wanted is None:
        return count - 1 if seen.causal else max(count - 2, 0)
    if wanted in texts:
        return texts.index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= count:
        return int(wanted) - 1
    raise Failure(f"--token: expected 1 to {count} or one of {' '.join(texts)}; got {wanted!r}")
