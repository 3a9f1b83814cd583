"""What is timed: every case with its shape, its flop and byte counts and how exact a result has to be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

ITEM_SIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

# Largest RMS error, relative to the RMS of the exact result, with which a contender still computes the same thing.
AGREEMENT = {
    ("float32", "highest"): 1e-5,
    ("float32", "high"): 1e-3,
    ("float32", "medium"): 3e-2,
    ("bfloat16", "highest"): 2e-2,
    ("float16", "highest"): 3e-3,
}

# The same for what a cache rounds.
STORAGE_AGREEMENT = {"float16": 3e-3, "bfloat16": 2e-2, "int8": 3e-2}

# The check computes about this many flops in float64, beyond that every n-th row: it should not outlast the timing.
REFERENCE_FLOPS = 2e10
REFERENCE_ELEMENTS = 2**20  # of the row kernels, whose erf NumPy computes one number at a time


@dataclass(frozen=True)
class Case:
    """One thing to compute.

    shape: attention (B, Hq, Hkv, Tq, Tk, D); linear (m, n, k); embedding (tokens, vocabulary, width); rotary_embedding
    (heads, positions, head dim); all others (rows, width). The gradients have the shapes of their operations.
    """

    group: str
    operation: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    precision: str = "highest"
    causal: bool = False
    mask: bool = False
    quick: bool = False
    storage: str = ""  # dtype of the cache that holds key and value

    @property
    def name(self) -> str:
        words = [self.group, *([self.operation] if self.operation != self.group else []), self.dtype]
        words += [self.precision] if self.precision != "highest" else []
        words += ["x".join(map(str, self.shape))]
        words += ["causal"] if self.causal else []
        words += ["masked"] if self.mask else []
        words += [f"stored as {self.storage}"] if self.storage else []
        return " ".join(words)

    @property
    def data(self) -> Case:
        """The case that stands for all that have the same inputs and the same exact result."""
        operation = self.operation
        for suffix in ("_from_c", "_cached", "_paged"):
            operation = operation.removesuffix(suffix)
        return replace(self, group="", operation=operation, precision="highest", quick=False, storage="")

    @property
    def is_attention(self) -> bool:
        return self.operation.startswith("attention")

    @property
    def is_gradient(self) -> bool:
        return self.operation.endswith("_backward")

    @property
    def is_linear(self) -> bool:
        return self.operation.startswith("linear")

    @property
    def agreement(self) -> float:
        return max(AGREEMENT[self.dtype, self.precision], STORAGE_AGREEMENT.get(self.storage, 0.0))

    @property
    def flops(self) -> int:
        """Of the matrix products; a causal mask leaves only the visible pairs. The row kernels are bound by memory."""
        if self.is_attention:
            batch, q_heads, _, q_length, k_length, dim = self.shape
            pairs = q_length * k_length
            if self.causal:
                pairs = sum(min(query + 1, k_length) for query in range(q_length))
            products = 7 if self.operation == "attention_training" else 2
            return 2 * products * batch * q_heads * pairs * dim
        if self.is_linear:
            m, n, k = self.shape
            return 2 * m * n * k * (2 if self.is_gradient else 1)
        return 0

    @property
    def kv_bytes(self) -> int:
        batch, _, kv_heads, _, k_length, dim = self.shape
        return 2 * batch * kv_heads * k_length * dim * ITEM_SIZE[self.storage or self.dtype]

    @property
    def bytes(self) -> int:
        """Every input read once, every output written once."""
        size = ITEM_SIZE[self.dtype]
        if self.is_attention:
            batch, q_heads, _, q_length, k_length, dim = self.shape
            masks = batch * q_length * k_length * size if self.mask else 0
            return self.kv_bytes + 2 * batch * q_heads * q_length * dim * size + masks
        if self.is_linear:
            m, n, k = self.shape
            return (2 * (m * k + n * k) + m * n if self.is_gradient else m * k + n * k + m * n) * size
        if self.operation == "embedding":
            tokens, _, width = self.shape
            return tokens * (8 + 2 * width * size)
        if self.operation == "embedding_backward":
            tokens, vocabulary, width = self.shape
            return tokens * (8 + width * size) + vocabulary * width * size
        passes = 3 if self.operation == "swiglu" or self.is_gradient else 2
        return math.prod(self.shape) * size * passes

    @property
    def width(self) -> int:
        """Length of a row of the result."""
        if self.operation == "cross_entropy":
            return 1
        return self.shape[1] if self.operation == "linear" else self.shape[-1]

    @property
    def check_step(self) -> int:
        """Every how many rows the result is compared with the exact one."""
        if self.is_attention or self.operation in ("cross_entropy", "linear_backward", "embedding_backward"):
            return 1
        if self.operation == "linear":
            return max(1, int(self.flops / REFERENCE_FLOPS))
        return max(1, math.prod(self.shape) // REFERENCE_ELEMENTS)


# (B, Hq, Hkv, Tq, Tk, D), causal, mask
FORWARD = (
    ((1, 8, 8, 1024, 1024, 64), False, False),
    ((1, 8, 8, 1024, 1024, 64), True, False),
    ((1, 8, 8, 4096, 4096, 64), True, False),
    ((1, 32, 8, 1024, 1024, 128), True, False),
    ((8, 12, 12, 128, 128, 64), False, False),
    ((8, 12, 12, 512, 512, 64), False, False),
    ((1, 8, 8, 333, 777, 80), False, False),
    ((2, 16, 16, 256, 256, 128), False, True),
)
FORWARD_QUICK = (FORWARD[0], FORWARD[1], FORWARD[4])
TRAINING = (((1, 8, 8, 1024, 1024, 64), True), ((4, 12, 12, 512, 512, 64), False), ((1, 16, 4, 1024, 1024, 128), True))
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
DECODE = ((1, 32, 8, 1, 4096, 128), (8, 32, 8, 1, 4096, 128), (1, 9, 3, 1, 2048, 64), (16, 32, 8, 1, 1024, 128))
LINEAR = (
    (1024, 1024, 1024),
    (512, 4096, 4096),
    (128, 1536, 576),
    (1, 4096, 4096),
    (8, 4096, 4096),
    (64, 64, 64),
    (2048, 11008, 4096),
)
LINEAR_QUICK = (LINEAR[0], LINEAR[4])
ROW_KERNELS = ("softmax", "layer_norm", "rms_norm", "relu", "gelu", "silu", "swiglu")
ROWS = ((512, 768), (8192, 4096))  # in the cache, and beyond every cache
EMBEDDINGS = ((512, 30522, 384), (16384, 32000, 1024))
GRADIENT_KERNELS = ("softmax_backward", "layer_norm_backward", "relu_backward", "gelu_backward", "silu_backward")
GRADIENT_ROWS = ((512, 768), (8192, 1024))
LINEAR_GRADIENTS = ((512, 1024, 1024), (2048, 768, 3072))
EMBEDDING_GRADIENT = (8192, 32000, 768)
ROTARY = ((32, 1024, 128), (32, 1, 128))
SAMPLING = {"top_k": 50, "top_p": 0.9}
LOGITS = ((512, 32000), (1, 32000))

# dtype, precision
ARITHMETIC = (
    ("float32", "highest"),
    ("float32", "high"),
    ("float32", "medium"),
    ("bfloat16", "highest"),
    ("float16", "highest"),
)
DTYPES = ("float32", "bfloat16", "float16")
STORAGE = ("float32", "float16", "bfloat16", "int8")


def _attention() -> list[Case]:
    found = []
    for problem in FORWARD:
        shape, causal, mask = problem
        for dtype, precision in ARITHMETIC:
            # Quick: every precision of the first problem, float32 of the others.
            quick = problem in FORWARD_QUICK and (problem == FORWARD[0] or (dtype, precision) == ARITHMETIC[0])
            found.append(Case("attention", "attention", shape, dtype, precision, causal, mask, quick))
    return found


def of_length(length: int, dtype: str) -> Case:
    """The problem that is drawn over the sequence length."""
    return Case("length", "attention", (1, 8, 8, length, length, 64), dtype)


def _lengths() -> list[Case]:
    others = [length for length in LENGTHS if of_length(length, "float32").shape != FORWARD[0][0]]
    return [of_length(length, dtype) for length in others for dtype in DTYPES]


def _training() -> list[Case]:
    """Forward and backward."""
    return [Case("training", "attention_training", shape, causal=causal, quick=True) for shape, causal in TRAINING]


def _decode() -> list[Case]:
    return [
        Case("decode", "attention", shape, dtype, quick=shape == DECODE[0] and dtype != "float16")
        for shape in DECODE
        for dtype in DTYPES
    ]


def _caches() -> list[Case]:
    """Decoding with float32 queries from a cache of each storage, in one piece and in blocks."""
    whole = [
        Case("cache", "attention_cached", shape, storage=storage, quick=shape == DECODE[0])
        for shape in DECODE
        for storage in STORAGE
    ]
    return whole + [Case("cache", "attention_paged", shape, storage="float32") for shape in DECODE]


def _linear() -> list[Case]:
    found = []
    for shape in LINEAR:
        for dtype, precision in ARITHMETIC:
            quick = shape in LINEAR_QUICK and precision == "highest" and dtype != "float16"
            found.append(Case("linear", "linear", shape, dtype, precision, quick=quick))
    return found


def _rows() -> list[Case]:
    sizes = [(kernel, shape) for kernel in ROW_KERNELS for shape in ROWS]
    sizes += [("embedding", shape) for shape in EMBEDDINGS]
    return [
        Case("rows", kernel, shape, dtype, quick=dtype == "float32" and shape in (ROWS[1], EMBEDDINGS[1]))
        for kernel, shape in sizes
        for dtype in ("float32", "bfloat16")
    ]


def _gradients() -> list[Case]:
    """The backward alone, from what the forward left."""
    problems = [(kernel, shape) for kernel in GRADIENT_KERNELS for shape in GRADIENT_ROWS]
    problems += [("linear_backward", shape) for shape in LINEAR_GRADIENTS] + [("embedding_backward", EMBEDDING_GRADIENT)]
    return [Case("gradients", operation, shape) for operation, shape in problems]


def _tokens() -> list[Case]:
    """What stands around a language model's layers."""
    problems = [("rotary_embedding", shape) for shape in ROTARY]
    problems += [("sampling_distribution", shape) for shape in LOGITS]
    problems += [(operation, LOGITS[0]) for operation in ("cross_entropy", "cross_entropy_backward")]
    return [Case("tokens", operation, shape) for operation, shape in problems]


def _small() -> list[Case]:
    """So little work that the call itself is what takes the time."""
    keys = (1, 1, 1, 1, 16, 64)
    return [
        Case("small", "attention_from_c", keys, quick=True),
        Case("small", "attention", keys, quick=True),
        Case("small", "linear", (1, 64, 64)),
        Case("small", "softmax", (1, 64)),
        Case("small", "layer_norm", (1, 64)),
    ]


def all_cases() -> list[Case]:
    return [*_attention(), *_training(), *_lengths(), *_decode(), *_caches(), *_linear(), *_rows(), *_gradients(), *_tokens(), *_small()]
