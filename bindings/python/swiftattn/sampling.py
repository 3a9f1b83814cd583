"""Tokens drawn from logits."""

from __future__ import annotations

import ctypes
import secrets

from . import _ffi
from ._ffi import SamplingOptions
from ._tensor import Array, ArrayLike, borrow, borrow_integers, empty, integer, real


def sample(
    logits: ArrayLike,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    previous_tokens: ArrayLike | None = None,
    seed: int | None = None,
    draw: int = 0,
) -> Array:
    """One token for each row of logits.

    The steps are taken in the order of the arguments' list below, each on what the one before it left, with the meaning
    that they have in Hugging Face's generate; swiftattn.h has the formulas.

    Args:
        logits: (..., V), float32, float16, bfloat16 or float64.
        repetition_penalty: divides positive logits of previous tokens and multiplies negative ones; finite, above 0.
        presence_penalty, frequency_penalty: taken off the logits of previous tokens, once and for each occurrence.
        temperature: divides the logits; 0 is greedy: the largest logit, the lowest index of equal ones.
        top_k: keeps logits not below the k-th largest; 0 keeps all.
        top_p: takes away the least likely tokens as long as they sum up to at most 1 - top_p.
        min_p: takes away tokens less likely than min_p times the most likely one.
        previous_tokens: (..., n) integers, leading dims broadcast to the rows; -1 is no token.
        seed: 0 <= seed < 2^64. The same seed and draw give the same tokens, on any number of threads. None: one that
            nobody knows.
        draw: calls that differ in it are independent under one seed: the step of a generation.

    Returns:
        (...) int64, an array like logits. Rows draw independently. At least the most likely token can always be drawn.

    Raises ValueError (also for a row that holds NaN, or -inf alone), TypeError (dtypes) or MemoryError with the C
    library's message.
    """
    source = borrow(logits, "logits")
    options = _options(
        temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, previous_tokens
    )
    options.seed = secrets.randbits(64) if seed is None else integer(seed, "seed", 0, 2**64 - 1)
    options.draw = integer(draw, "draw", 0, 2**64 - 1)
    out = empty(source.dims[:-1], source, "int64")
    _ffi.sample(source, options, out)
    return out.owner


def sampling_distribution(
    logits: ArrayLike,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    previous_tokens: ArrayLike | None = None,
) -> Array:
    """The probabilities that sample draws by, an array like logits; 0 for tokens that were taken away.

    Arguments and errors are those of sample.
    """
    source = borrow(logits, "logits")
    options = _options(
        temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, previous_tokens
    )
    out = empty(source.dims, source)
    _ffi.sampling_distribution(source, options, out)
    return out.owner


def _options(
    temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, previous_tokens
) -> SamplingOptions:
    options = SamplingOptions(
        struct_size=ctypes.sizeof(SamplingOptions),
        flags=_ffi.SAMPLING_HAS_TEMPERATURE | _ffi.SAMPLING_HAS_TOP_P,
        temperature=real(temperature, "temperature"),
        top_k=integer(top_k, "top_k"),
        top_p=real(top_p, "top_p"),
        min_p=real(min_p, "min_p"),
        repetition_penalty=real(repetition_penalty, "repetition_penalty"),
        presence_penalty=real(presence_penalty, "presence_penalty"),
        frequency_penalty=real(frequency_penalty, "frequency_penalty"),
    )
    if options.repetition_penalty == 0:  # in C the default
        raise ValueError("repetition_penalty: expected a finite number above 0, got 0")
    if previous_tokens is not None:
        options.previous_tokens = ctypes.pointer(borrow_integers(previous_tokens, "previous_tokens"))
    return options
