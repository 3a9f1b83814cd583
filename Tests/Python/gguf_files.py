"""Small GGUF files for the tests: random models of every format, written with the package gguf."""

from __future__ import annotations

import gguf
import numpy as np

FORMATS = {
    name: gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K")
}
BYTES = {"Q4_0": (32, 18), "Q4_1": (32, 20), "Q8_0": (32, 34), "Q4_K": (256, 144), "Q6_K": (256, 210)}


def stored(rng, shape, name):
    """Random weights of about 1 / sqrt(columns) in a format, as bytes (rows, bytes of a row) or floats."""
    size = shape[-1] ** -0.5
    if name in ("F32", "F16"):
        return (rng.standard_normal(shape) * size).astype(np.float32 if name == "F32" else np.float16)
    if name == "BF16":
        return gguf.quantize((rng.standard_normal(shape) * size).astype(np.float32), FORMATS[name])
    block, count = BYTES[name]
    raw = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, count), np.uint8)

    def put(at, values):
        raw[..., at : at + 2] = np.ascontiguousarray(np.broadcast_to(values, raw.shape[:-1])).astype(np.float16)[..., None].view(np.uint8)

    signs = rng.choice([-1.0, 1.0], raw.shape[:-1])
    if name == "Q4_0":
        put(0, signs * size / 5)
    elif name == "Q4_1":
        put(0, size / 5)
        put(2, -7.5 * size / 5)
    elif name == "Q8_0":
        put(0, signs * size / 70)
    elif name == "Q4_K":
        put(0, size / 5 / 32)
        put(2, 7.5 * size / 5 / 32)
    else:
        put(208, signs * size / 18 / 64)
    return raw.reshape(*shape[:-1], -1)


def write_model(
    path,
    *,
    format="F32",
    table="F32",
    arch="llama",
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    hidden=96,
    vocabulary=50,
    context=96,
    tied=True,
    rotary_dim=None,
    scaling=None,
    divisors=False,
    tokenizer=False,
    seed=0,
):
    """A random model whose matrices have one format, and its embedding (and head) another."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, arch)
    width = heads * head_dim
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if rotary_dim:
        writer.add_rope_dimension_count(rotary_dim)
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType[scaling[0].upper()])
        writer.add_rope_scaling_factor(scaling[1])
        writer.add_rope_scaling_orig_ctx_len(scaling[2])
    if tokenizer:
        add_tokenizer(writer, vocabulary)

    def matrix(name, rows, columns, kind):
        raw = stored(rng, (rows, columns), kind)
        writer.add_tensor(name, raw, raw_dtype=None if kind in ("F32", "F16") else FORMATS[kind])

    def vector(name, count, around):
        writer.add_tensor(name, (around + 0.1 * rng.standard_normal(count)).astype(np.float32))

    matrix("token_embd.weight", vocabulary, width, table)
    for n in range(layers):
        vector(f"blk.{n}.attn_norm.weight", width, 1)
        vector(f"blk.{n}.ffn_norm.weight", width, 1)
        for part, rows in (("q", width), ("k", kv_heads * head_dim), ("v", kv_heads * head_dim)):
            matrix(f"blk.{n}.attn_{part}.weight", rows, width, format)
            if arch == "qwen2":
                vector(f"blk.{n}.attn_{part}.bias", rows, 0)
        matrix(f"blk.{n}.attn_output.weight", width, width, format)
        for part, rows, columns in (("gate", hidden, width), ("up", hidden, width), ("down", width, hidden)):
            matrix(f"blk.{n}.ffn_{part}.weight", rows, columns, format)
    vector("output_norm.weight", width, 1)
    if divisors:
        pairs = (rotary_dim or head_dim) // 2
        writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, pairs).astype(np.float32))
    if not tied:
        matrix("output.weight", vocabulary, width, table)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def add_tokenizer(writer, vocabulary):
    """Single letters, two special tokens, and a few merges."""
    words = ["<s>", "</s>", *map(chr, range(97, 123)), "\u0120", "he", "ll", "hell", "hello", "\u0120w"]
    words += [f"<{i}>" for i in range(len(words), vocabulary)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, *[1] * (vocabulary - 2)])
    writer.add_token_merges(["h e", "l l", "he ll", "hell o", "\u0120 w"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(
        "{% for m in messages %}{{ m.role[0] }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}a{% endif %}"
    )
