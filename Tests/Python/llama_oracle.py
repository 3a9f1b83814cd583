"""A Llama in plain NumPy, to be read from top to bottom: what the library's decoders are held against.

A file is read with the package gguf, which shares nothing with the library; everything else is here. Arrays are (tokens,
features), or (heads, tokens, dim) inside attention.
"""

from __future__ import annotations

import gguf
import numpy as np

# ---- Weights: codes of 4, 6 or 8 bits, with scales for blocks of 32 or 256 neighbours of a row


def half(raw):
    """Two bytes as binary16, in the last dim."""
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def nibbles(raw):
    """Low nibbles of all bytes, then the high ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def q4_0(b):  # d (2), codes (16)
    return half(b[:, :2]) * (nibbles(b[:, 2:]).astype(np.float32) - 8)


def q4_1(b):  # d (2), m (2), codes (16)
    return half(b[:, :2]) * nibbles(b[:, 4:]).astype(np.float32) + half(b[:, 2:4])


def q8_0(b):  # d (2), codes (32)
    return half(b[:, :2]) * b[:, 2:].view(np.int8).astype(np.float32)


def q4_k(b):  # d (2), dmin (2), eight scales and mins of 6 bits (12), codes (128)
    packed = b[:, 4:16]
    low, upper = packed[:, :8] & 63, packed[:, :8] >> 6
    scale = np.concatenate([low[:, :4], packed[:, 8:] & 15 | upper[:, :4] << 4], axis=1)
    least = np.concatenate([low[:, 4:], packed[:, 8:] >> 4 | upper[:, 4:] << 4], axis=1)
    codes = nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    d, m = half(b[:, :2]) * scale, half(b[:, 2:4]) * least
    return (d[:, :, None] * codes - m[:, :, None]).reshape(len(b), 256)


def q6_k(b):  # low nibbles (128), upper two bits (64), sixteen scales (16), d (2)
    low = nibbles(b[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    upper = b[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = (low | upper << 4).reshape(-1, 16, 16).astype(np.float32) - 32
    d = half(b[:, 208:210]) * b[:, 192:208].view(np.int8)
    return (d[:, :, None] * codes).reshape(len(b), 256)


BLOCKS = {  # number of the format: bytes of a block, and what it stands for
    2: (18, q4_0),
    3: (20, q4_1),
    8: (34, q8_0),
    12: (144, q4_k),
    14: (210, q6_k),
}


def dequantise(tensor):
    """A tensor of a gguf.GGUFReader in float32."""
    shape = [int(size) for size in reversed(tensor.shape)]
    raw = np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8)
    kind = int(tensor.tensor_type)
    if kind == 0:
        return raw.view(np.float32).reshape(shape)
    if kind == 1:
        return raw.view(np.float16).astype(np.float32).reshape(shape)
    if kind == 30:  # bfloat16: the upper half of a float32
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    size, function = BLOCKS[kind]
    return function(raw.reshape(-1, size)).reshape(shape)


# ---- Rotary positions


def frequencies(dim, base, scaling):
    """inv[i] = base^(-2i/dim), stretched; and what cosines and sines are multiplied by."""
    inv = base ** (-np.arange(0, dim, 2) / dim)
    kind = scaling.get("kind")
    if kind == "linear":
        return inv / scaling["factor"], 1.0
    if kind == "divisors":  # a tensor of the file
        return inv / scaling["divisors"].astype(np.float64), 1.0
    if kind == "yarn":
        factor, length = scaling["factor"], scaling["original"]
        turning = lambda times: dim * np.log(length / (times * 2 * np.pi)) / (2 * np.log(base))  # noqa: E731
        a, b = max(np.floor(turning(32)), 0), min(np.ceil(turning(1)), dim - 1)
        ramp = np.clip((np.arange(dim // 2) - a) / (b - a), 0, 1)
        return inv / factor * ramp + inv * (1 - ramp), 0.1 * np.log(factor) + 1
    return inv, 1.0


def rotate(x, positions, inv, size, neighbours):
    """Turns the pairs (2i, 2i + 1), or (i, i + n), of each head of x (heads, tokens, dim) by position * inv[i]."""
    angle = positions[:, None] * inv
    cos, sin = (size * np.cos(angle)).astype(x.dtype), (size * np.sin(angle)).astype(x.dtype)
    n, out = len(inv), x.copy()
    first, second = (slice(0, 2 * n, 2), slice(1, 2 * n, 2)) if neighbours else (slice(0, n), slice(n, 2 * n))
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, b * cos + a * sin
    return out


# ---- The model


class Llama:
    """sizes: heads, kv_heads, eps, base, rotary_dim, scaling, neighbours. weights: by GGUF's names, in float32.

    work is the dtype that everything is computed in.
    """

    def __init__(self, sizes, weights, work=np.float64):
        self.sizes, self.work = sizes, work
        self.weights = {name: array.astype(work) for name, array in weights.items()}
        self.layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blk."))
        self.rotary = frequencies(sizes["rotary_dim"], sizes["base"], sizes["scaling"])

    @classmethod
    def open(cls, path, work=np.float64):
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer")}
        weights = {tensor.name: dequantise(tensor) for tensor in reader.tensors}
        arch = fields["general.architecture"]
        get = lambda key, default=None: fields.get(f"{arch}.{key}", default)  # noqa: E731
        heads = get("attention.head_count")
        scaling = {"kind": get("rope.scaling.type"), "factor": get("rope.scaling.factor")}
        scaling["original"] = get("rope.scaling.original_context_length")
        if "rope_freqs.weight" in weights:
            scaling = {"kind": "divisors", "divisors": weights.pop("rope_freqs.weight")}
        head_dim = get("embedding_length") // heads
        sizes = dict(
            heads=heads,
            kv_heads=get("attention.head_count_kv", heads),
            eps=get("attention.layer_norm_rms_epsilon"),
            base=get("rope.freq_base", 10000.0),
            rotary_dim=get("rope.dimension_count", head_dim),
            scaling=scaling,
            neighbours=arch == "llama",
        )
        return cls(sizes, weights, work)

    def norm(self, x, name):
        """RMSNorm: x / sqrt(mean(x^2) + eps) * weight."""
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.sizes["eps"]) * self.weights[name]

    def linear(self, x, name):
        y = x @ self.weights[name + ".weight"].T
        return y + self.weights[name + ".bias"] if name + ".bias" in self.weights else y

    def attention(self, x, layer, positions, cache, window):
        """Causal attention with grouped heads over the cache, to which the tokens' keys and values are added."""
        s, tokens = self.sizes, len(x)
        heads = lambda y, n: y.reshape(tokens, n, -1).transpose(1, 0, 2)  # noqa: E731
        q = heads(self.linear(x, f"blk.{layer}.attn_q"), s["heads"])
        k = heads(self.linear(x, f"blk.{layer}.attn_k"), s["kv_heads"])
        v = heads(self.linear(x, f"blk.{layer}.attn_v"), s["kv_heads"])
        q = rotate(q, positions, *self.rotary, s["neighbours"])
        k = rotate(k, positions, *self.rotary, s["neighbours"])
        if layer in cache:
            k, v = (np.concatenate([old, new], axis=1) for old, new in zip(cache[layer], (k, v)))
        cache[layer] = k, v
        group = s["heads"] // s["kv_heads"]
        k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]).astype(self.work)
        back = positions[:, None] - np.arange(k.shape[1])  # how far behind each token a key stands
        scores = np.where((back >= 0) & (back < (window or len(back) + k.shape[1])), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self.linear((weights @ v).transpose(1, 0, 2).reshape(tokens, -1), f"blk.{layer}.attn_output"), weights

    def feed_forward(self, x, layer):
        """SwiGLU: down(silu(gate x) * up x)."""
        gate = self.linear(x, f"blk.{layer}.ffn_gate")
        with np.errstate(over="ignore"):
            hidden = gate / (1 + np.exp(-gate)) * self.linear(x, f"blk.{layer}.ffn_up")
        return self.linear(hidden, f"blk.{layer}.ffn_down")

    def run(self, ids, cache=None, window=None):
        """(logits, states, attention): of each token; of each layer, the embedding first; of each layer and head."""
        cache = {} if cache is None else cache
        ids = np.asarray(ids)
        start = cache[0][0].shape[1] if cache else 0
        positions = np.arange(start, start + len(ids))
        x = self.weights["token_embd.weight"][ids]
        states, attended = [x], []
        for layer in range(self.layers):
            out, weights = self.attention(self.norm(x, f"blk.{layer}.attn_norm.weight"), layer, positions, cache, window)
            x = x + out
            x = x + self.feed_forward(self.norm(x, f"blk.{layer}.ffn_norm.weight"), layer)
            states.append(x)
            attended.append(weights)
        x = self.norm(x, "output_norm.weight")
        head = "output" if "output.weight" in self.weights else "token_embd"
        return self.linear(x, head), np.array(states), np.array(attended)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def relative_rms(got, expected):
    return float(np.sqrt(np.mean((np.asarray(got, np.float64) - expected) ** 2) / np.mean(np.asarray(expected, np.float64) ** 2)))
