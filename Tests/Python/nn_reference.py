"""The blocks of swiftattn.nn in plain NumPy on a state dict, in the dtype of its arrays; built on reference.py.

A `bias` here is what masks come to: (B or 1, H or 1, T, S), added to the scores, -inf where a key is hidden.
"""

from __future__ import annotations

import numpy as np
import reference


def part(state, prefix):
    """The entries of a state dict behind a prefix."""
    return {name[len(prefix) :]: array for name, array in state.items() if name.startswith(prefix)}


def linear(state, x):
    return x @ state["weight"].T + state.get("bias", 0)


def norm(state, x, kind="layer", eps=1e-5):
    if kind == "rms":
        return reference.rms_norm(x, state["weight"], eps, work=x.dtype.type)
    return reference.layer_norm(x, state["weight"], state.get("bias"), eps, work=x.dtype.type)


def multihead_attention(state, query, key, value, heads, kv_heads=None, bias=None, scale=None, positions="none", start=0):
    """query (B, T, E), key and value (B, S, ...) -> out (B, T, E), weights (B, H, T, S)."""
    kv_heads = kv_heads or heads
    width = query.shape[-1]
    dim = width // heads
    if "in_proj_weight" in state:
        w_q, w_k, w_v = np.split(state["in_proj_weight"], [width, width + kv_heads * dim])
    else:
        w_q, w_k, w_v = (state[f"{name}_proj_weight"] for name in "qkv")
    b_q, b_k, b_v = np.split(state.get("in_proj_bias", np.zeros(width + 2 * kv_heads * dim)), [width, width + kv_heads * dim])

    def split(x, count):  # (B, T, count * D) -> (B, count, T, D)
        return x.reshape(*x.shape[:2], count, dim).swapaxes(1, 2)

    q = split(query @ w_q.T + b_q, heads)
    k, v = split(key @ w_k.T + b_k, kv_heads), split(value @ w_v.T + b_v, kv_heads)
    options = {}
    if positions == "rope":
        cos, sin = reference.rotary_tables(dim, start + max(q.shape[2], k.shape[2]))
        q, k = (reference.rotary_embedding(x, cos, sin, work=q.dtype.type) for x in (q, k))
    if positions == "alibi":
        options["alibi_slopes"] = reference.alibi_slopes(heads)
    if bias is not None:
        options["attn_mask"] = np.broadcast_to(bias, (q.shape[0], heads, q.shape[2], k.shape[2]))
    result = reference.attention(q, k, v, scale=scale, work=q.dtype.type, **options)
    out = result.out.swapaxes(1, 2).reshape(query.shape)
    return linear(part(state, "out_proj."), out) if "out_proj.weight" in state else out, result.weights


def feed_forward(state, x, activation):
    wide = linear(part(state, "linear1."), x)
    if "linear_gate.weight" in state:
        wide = getattr(reference, activation)(linear(part(state, "linear_gate."), x), wide, work=x.dtype.type)
    elif activation == "gelu_tanh":
        wide = reference.gelu(wide, "tanh", work=x.dtype.type)
    else:
        wide = getattr(reference, activation)(wide, work=x.dtype.type)
    return linear(part(state, "linear2."), wide)


def residual(state, x, kind, norm_first, function):
    """norm(x + f(x)), or x + f(norm(x))."""
    return x + function(norm(state, x, kind)) if norm_first else norm(state, x + function(x), kind)


def encoder_layer(state, x, heads, activation="relu", norm_first=False, kind="layer", bias=None, **options):
    own = part(state, "self_attn.")
    x = residual(
        part(state, "norm1."), x, kind, norm_first, lambda y: multihead_attention(own, y, y, y, heads, bias=bias, **options)[0]
    )
    return residual(part(state, "norm2."), x, kind, norm_first, lambda y: feed_forward(state, y, activation))


def decoder_layer(
    state, x, memory, heads, activation="relu", norm_first=False, kind="layer", bias=None, memory_bias=None, **options
):
    own, cross = part(state, "self_attn."), part(state, "multihead_attn.")
    kv_heads = options.get("kv_heads")
    x = residual(
        part(state, "norm1."), x, kind, norm_first, lambda y: multihead_attention(own, y, y, y, heads, bias=bias, **options)[0]
    )
    x = residual(
        *(part(state, "norm2."), x, kind, norm_first),
        lambda y: multihead_attention(cross, y, memory, memory, heads, kv_heads, bias=memory_bias)[0],
    )
    return residual(part(state, "norm3."), x, kind, norm_first, lambda y: feed_forward(state, y, activation))


def stack(state, x, layer, **options):
    """layer(state, x, **options) for each layer in turn, then the norm if there is one."""
    n = 0
    while part(state, f"layers.{n}."):
        x = layer(part(state, f"layers.{n}."), x, **options)
        n += 1
    kind = options.get("kind", "layer")
    return norm(part(state, "norm."), x, kind) if "norm.weight" in state else x


def causal(length):
    return np.triu(np.full((length, length), -np.inf), 1)


def random_state(rng, module, dtype=np.float64):
    """Random parameters for a module of swiftattn.nn: small weights, norms near 1."""
    state = {}
    for name, array in module.state_dict().items():
        wide = rng.standard_normal(array.shape) * 0.2
        state[name] = (wide + (("norm" in name and "weight" in name) * 1.0)).astype(array.dtype)
    module.load_state_dict(state)
    return {name: array.astype(dtype) for name, array in state.items()}
