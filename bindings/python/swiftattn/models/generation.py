"""Continuing prompts token by token: one or several side by side, whole or as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._tensor import integer
from ..sampling import sample
from .tokenizer import TextStream


def generate(
    model: Any,
    prompt: Any,
    *,
    max_tokens: int = 128,
    stop: str | int | Sequence[str | int] = (),
    stream: bool = False,
    as_ids: bool = False,
    temperature: float = 0.0,
    seed: int | None = None,
    **sampling: Any,
) -> Any:
    """Continues a prompt until a stop token, or for max_tokens.

    Args:
        prompt: a text, a list of ids, or a list of messages (dicts with "role" and "content") that the model's chat template
            turns into text; or a list of texts or of lists of ids, which are continued side by side, model.sequences at a time.
        max_tokens: at most so many new tokens for each prompt. With a context that ends before, the call raises ValueError.
        stop: further ends: ids, or texts at which the answer is cut. The tokenizer's own ends always count.
        stream: return an iterator of pieces of text (of ids with as_ids) as they come; for one prompt.
        as_ids: return ids instead of text; no tokenizer is needed, and ends are those in `stop` alone where there is none.
        temperature: 0 is greedy.
        seed: of the draws; the same seed gives the same tokens.
        sampling: top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty as `swiftattn.sample` takes
            them. Penalties see the prompt and what has come.

    Returns:
        The new text (or ids), without the stop; a list of them for several prompts.

    Raises ValueError, TypeError or MemoryError with the C library's message.
    """
    integer(max_tokens, "max_tokens", 0)
    prompts, single = _prompts(model, prompt)
    ends, texts = _stops(model, stop, as_ids)
    options = {"temperature": temperature, "seed": seed, **sampling}
    if stream:
        if not single:
            raise ValueError("stream: expected a single prompt")
        return _stream(model, prompts[0], max_tokens, ends, texts, as_ids, options)
    results: list[Any] = []
    for first in range(0, len(prompts), model.sequences):
        results += _continue(model, prompts[first : first + model.sequences], max_tokens, ends, texts, options)
    answers = [_cut(model, ids, texts) if not as_ids else ids for ids in results]
    return answers[0] if single else answers


def _prompts(model: Any, prompt: Any) -> tuple[list[np.ndarray], bool]:
    if isinstance(prompt, str):
        return [model.ids(prompt, "prompt")], True
    listed = list(prompt)
    if listed and all(isinstance(part, Mapping) for part in listed):
        return [np.array(model.tokenizer.encode(model.render(listed), bos=False), np.int64)], True
    if listed and all(isinstance(part, (str, list, tuple, np.ndarray)) for part in listed):
        return [model.ids(part, "prompt") for part in listed], False
    return [model.ids(prompt, "prompt")], True


def _stops(model: Any, stop: Any, as_ids: bool) -> tuple[set[int], list[str]]:
    stops = [stop] if isinstance(stop, (str, int, np.integer)) else list(stop)
    texts = [part for part in stops if isinstance(part, str)]
    if any(not part for part in texts):
        raise ValueError("stop: expected texts that are not empty")
    ends = {integer(part, "stop") for part in stops if not isinstance(part, str)}
    return ends | (set() if as_ids and not texts else set(model.tokenizer.ends)), texts


def _draws(model: Any, prompts: list[np.ndarray], options: dict) -> Iterator[np.ndarray]:
    """The next id of each prompt, again and again; what is sent back says which of them go on.

    Prompts are the model's first sequences, which are emptied before and after.
    """
    count = len(prompts)
    try:
        for sequence in range(count):
            model.truncate(0, sequence)
        logits = np.stack([model.prefill(ids, sequence) for sequence, ids in enumerate(prompts)])
        history = [list(ids) for ids in prompts]
        steps = 0
        while True:
            ids = sample(logits, previous_tokens=_padded(history) if _looks_back(options) else None, draw=steps, **options)
            going = yield ids
            for past, id in zip(history, ids):
                past.append(int(id))
            padded = np.full(model.sequences, -1, np.int64)
            padded[:count] = np.where(going, ids, -1)
            logits = model.step(padded)[:count]
            steps += 1
    finally:
        for sequence in range(count):
            model.truncate(0, sequence)


def _looks_back(options: dict) -> bool:
    return any(name.endswith("_penalty") for name in options)


def _padded(history: list[list[int]]) -> np.ndarray:
    table = np.full((len(history), max(map(len, history))), -1, np.int64)
    for row, past in zip(table, history):
        row[: len(past)] = past
    return table


def _continue(
    model: Any, prompts: list[np.ndarray], max_tokens: int, ends: set[int], texts: list[str], options: dict
) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in prompts]
    going = np.array([max_tokens > 0] * len(prompts))
    streams = [TextStream(model.tokenizer) if texts else None for _ in prompts]
    heard = [""] * len(prompts)
    draws = _draws(model, prompts, options)
    ids = next(draws) if going.any() else None
    while going.any():
        for row in np.flatnonzero(going):
            id = int(ids[row])
            if id in ends:
                going[row] = False
                continue
            answers[row].append(id)
            if texts:
                heard[row] += streams[row].add(id)
            going[row] = len(answers[row]) < max_tokens and not any(text in heard[row] for text in texts)
        if going.any():
            ids = draws.send(going)
    draws.close()
    return answers


def _stream(
    model: Any, prompt: np.ndarray, max_tokens: int, ends: set[int], texts: list[str], as_ids: bool, options: dict
) -> Iterator[Any]:
    """Pieces as they come. Text that may be the beginning of a stop is held back."""
    draws = _draws(model, [prompt], options)
    stream = None if as_ids else TextStream(model.tokenizer)
    held, ids = "", None
    try:
        for _ in range(max_tokens):
            ids = next(draws) if ids is None else draws.send(np.array([True]))
            id = int(ids[0])
            if id in ends:
                break
            if as_ids:
                yield id
                continue
            held += stream.add(id)
            ready, held, ended = _ready(held, texts)
            if ready:
                yield ready
            if ended:
                return
        if not as_ids:
            ready, held, ended = _ready(held + stream.rest(), texts)
            if ready or (held and not ended):
                yield ready if ended else ready + held
    finally:
        draws.close()


def _ready(held: str, texts: list[str]) -> tuple[str, str, bool]:
    """What can be said, what must wait, and whether a stop was found."""
    found = [held.index(text) for text in texts if text in held]
    if found:
        return held[: min(found)], "", True
    waiting = max((n for text in texts for n in range(1, len(text)) if held.endswith(text[:n])), default=0)
    return held[: len(held) - waiting], held[len(held) - waiting :], False


def _cut(model: Any, ids: list[int], texts: list[str]) -> str:
    answer = model.detokenize(ids)
    return answer[: min((answer.index(text) for text in texts if text in answer), default=len(answer))]
