"""generate: a language model's continuation of a prompt, as it comes."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from ..caches import STORAGE
from . import model_files, options
from .failure import Failure


def add_to(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "generate",
        help="continue a prompt with a language model",
        description="Prints the answer of a language model as it comes. The prompt is put into the model's chat "
        "template where it has one, as a user's message; --raw continues it as it stands. Speeds go to stderr.",
    )
    options.add_model(command)
    command.add_argument("prompt", metavar="PROMPT", help="the text; - reads it from standard input")
    command.add_argument("--raw", action="store_true", help="no chat template")
    command.add_argument("--system", metavar="TEXT", help="a system message before the prompt")
    command.add_argument(
        "--max-tokens", type=options.whole(1), default=256, metavar="N", help="at most; default: %(default)s"
    )
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the answer; may be repeated")
    command.add_argument(
        "--context", type=options.whole(1), metavar="N", help="tokens in all; default: what the model was trained on"
    )
    command.add_argument(
        "--window", type=options.whole(1), metavar="N", help="tokens that a token sees; then the context has no end"
    )
    command.add_argument(
        "--kv-dtype",
        choices=tuple(STORAGE),
        default="float32",
        help="of the KV cache; default: %(default)s",
    )
    command.add_argument("--quiet", action="store_true", help="no speeds")
    options.add_threads(command)
    sampling = command.add_argument_group("sampling", "in the order and with the meaning of Hugging Face's generate")
    for name, kind, default, text in (
        ("temperature", options.number(0), 0.0, "0 always takes the likeliest token"),
        ("top-k", options.whole(0), 0, "only the k likeliest; 0: all"),
        ("top-p", options.number(0, 1), 1.0, "only the likeliest that make up this probability"),
        ("min-p", options.number(0, 1), 0.0, "only those with this part of the likeliest's probability"),
        (
            "repetition-penalty",
            options.number(0, above=True),
            1.0,
            "divides the logits of tokens that were there; 1: none",
        ),
        ("presence-penalty", options.number(-1e9), 0.0, "subtracted from those"),
        ("frequency-penalty", options.number(-1e9), 0.0, "subtracted as many times as they were there"),
    ):
        sampling.add_argument(
            f"--{name}", type=kind, default=default, metavar="X", help=f"{text}; default: %(default)s"
        )
    sampling.add_argument("--seed", type=options.whole(0), metavar="N", help="the same seed gives the same answer")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    if arguments.raw and arguments.system is not None:
        raise Failure("--system: is part of a chat template, which --raw leaves out")
    options.use_threads(arguments)
    limits = {name: getattr(arguments, name) for name in ("context", "window") if getattr(arguments, name)}
    model = model_files.load(arguments.model, "llama", sequences=1, kv_dtype=arguments.kv_dtype, **limits)
    prompt = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    ids = _ids(model, prompt, arguments)
    answer = model.generate(
        ids,
        stream=True,
        **{name: getattr(arguments, name) for name in ("max_tokens", "stop", "temperature", "seed")},
        **{name: getattr(arguments, name) for name in ("top_k", "top_p", "min_p")},
        **{
            f"{name}_penalty": getattr(arguments, f"{name}_penalty") for name in ("repetition", "presence", "frequency")
        },
    )
    speeds = _write(model, answer, len(ids))
    if not arguments.quiet:
        print(speeds, file=sys.stderr)


def _ids(model: Any, prompt: str, arguments: argparse.Namespace) -> list[int]:
    if arguments.raw or (model.chat is None and arguments.system is None):
        ids = model.tokenize(prompt)
    else:
        system = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
        ids = model.tokenize(model.render([*system, {"role": "user", "content": prompt}]), bos=False)
    if not ids:
        raise Failure("PROMPT: is empty, expected at least one token")
    return ids


def _write(model: Any, answer: Any, prompted: int) -> str:
    """Prints the pieces; the speeds in words. The first piece ends the prefill."""
    times, counts = [time.perf_counter()], [prompted]
    for piece in answer:
        sys.stdout.write(piece)
        sys.stdout.flush()
        times[1:] = [*times[1:2], time.perf_counter()]
        counts[1:] = [*counts[1:2], int(model.lengths[0])]
    sys.stdout.write("\n")
    if len(times) == 1:
        return f"prefill: {prompted} tokens; no answer"
    said = [f"prefill: {prompted} tokens, {prompted / (times[1] - times[0]):,.0f} tokens/s"]
    if counts[-1] > counts[1]:
        decoded = counts[-1] - counts[1]
        said.append(f"decode: {decoded} tokens, {decoded / (times[-1] - times[1]):,.0f} tokens/s")
    return "; ".join(said)
