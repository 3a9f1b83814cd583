"""What every function of swiftattn means, in plain float64 NumPy: the oracle of the tests and the semantics to read.

Each function takes `work`, the dtype in which it computes. float64 gives the reference; float32 gives the plain
same-precision implementation whose error the library is measured against.

Legend: B batch, Hq/Hkv query and key/value heads, Tq/Tk query and key length, D head dim of q and k, Dv of v.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    *,
    query_offset=None,
    window=None,
    softcap=0.0,
    alibi_slopes=None,
    sinks=None,
    q_lengths=None,
    kv_lengths=None,
    seed=0,
    first_entry=0,
    work=np.float64,
):
    """Scaled dot-product attention of query (..., Hq, Tq, D), key (..., Hkv, Tk, D), value (..., Hkv, Tk, Dv).

    Returns out (..., Hq, Tq, Dv), lse (..., Hq, Tq), and (..., Hq, Tq, Tk) each: weights, scaled, capped, biased; kept is
    what dropout multiplied the weights with.
    """
    q, k, v = (np.asarray(array).astype(work) for array in (query, key, value))
    rank = max(q.ndim, k.ndim, v.ndim)
    q, k, v = (array[(None,) * (3 - array.ndim)] if array.ndim < 3 else array for array in (q, k, v))

    # The leading dims are broadcast, and together they are B.
    lead = np.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3])
    q, k, v = (np.broadcast_to(array, lead + array.shape[-3:]) for array in (q, k, v))
    batch = math.prod(lead)
    q, k, v = (array.reshape((batch,) + array.shape[-3:]) for array in (q, k, v))
    q_heads, q_len, head_dim = q.shape[1:]
    kv_heads, k_len = k.shape[1:3]

    # Query head h reads key/value head h // (Hq / Hkv).
    if kv_heads:
        k, v = (np.repeat(array, q_heads // kv_heads, axis=1) for array in (k, v))

    # Positions: p[b, i] of queries, j of keys.
    kv_len = np.full(batch, k_len) if kv_lengths is None else np.asarray(kv_lengths)
    live = np.full(batch, q_len) if q_lengths is None else np.asarray(q_lengths)
    if query_offset is not None:
        offset = np.broadcast_to(np.asarray(query_offset), (batch,))
    else:
        offset = kv_len - live if is_causal == "lower_right" else np.zeros(batch, int)
    i = np.arange(q_len)[:, None]
    j = np.arange(k_len)[None, :]
    p = i + offset[:, None, None, None]  # (B, 1, Tq, 1)

    scale = 1 / math.sqrt(head_dim) if scale is None and head_dim else (scale or 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = work(scale) * (q @ np.swapaxes(k, -1, -2))
        capped = work(softcap) * np.tanh(scaled / work(softcap)) if softcap > 0 else scaled
    biased = capped
    visible = (j < kv_len[:, None, None, None]) & (i < live[:, None, None, None])
    visible = np.broadcast_to(visible, scaled.shape)
    if is_causal:
        visible = visible & (j <= p)
    if window is not None:
        left, right = window
        if left is not None and left >= 0:
            visible = visible & (j >= p - left)
        if right is not None and right >= 0:
            visible = visible & (j <= p + right)
    if attn_mask is not None:
        mask = _broadcast_mask(np.asarray(attn_mask), lead, scaled.shape)
        if mask.dtype == bool:
            visible = visible & mask
        else:
            mask = mask.astype(work)
            visible = visible & (mask > -np.inf)  # a NaN hides its key
            biased = biased + mask
    if alibi_slopes is not None:
        biased = biased - np.asarray(alibi_slopes).astype(work)[:, None, None] * np.abs(p - j).astype(work)
    biased = np.where(visible, biased, work(-np.inf))

    # Softmax; a sink is one more logit, without a value.
    m = np.max(biased, axis=-1, initial=-np.inf)
    if sinks is not None:
        sink = np.asarray(sinks).astype(work)[:, None]
        m = np.maximum(m, sink)
    origin = np.where(m == -np.inf, work(0), m)
    with np.errstate(invalid="ignore", divide="ignore"):
        e = np.exp(biased - origin[..., None])
        e = np.where(visible, e, work(0))
        l = e.sum(axis=-1)
        if sinks is not None:
            l = l + np.exp(sink - origin)
        weights = np.where(l[..., None] == 0, work(0), e / l[..., None])
        lse = m + np.log(l)
    lse = np.where(m == -np.inf, work(-np.inf), lse)

    kept = np.ones_like(weights)
    if dropout_p:
        words = philox_words(seed, first_entry + np.arange(batch), q_heads, q_len, k_len)
        kept = np.where(words >= math.floor(dropout_p * 2**32), 1 / work(1 - dropout_p), work(0))
    out = _visible_product(np.where(kept > 0, weights * kept, work(0)), v, visible)

    def shaped(array):
        array = array.reshape(lead + array.shape[1:])
        return array[0] if rank == 2 else array

    return SimpleNamespace(
        out=shaped(out),
        lse=shaped(lse),
        weights=shaped(weights),
        scaled=shaped(scaled),
        capped=shaped(capped),
        biased=shaped(biased),
        kept=shaped(kept),
    )


def attention_backward(
    grad_out,
    query,
    key,
    value,
    out,
    lse,
    attn_mask=None,
    *,
    softcap=0.0,
    scale=None,
    sinks=None,
    sizes=False,
    work=np.float64,
    **options,
):
    """Gradients of attention, from what its forward returned: dq, dk, dv, dbias, dsinks (None without mask, sinks).

    dv = (z P)^T . grad_out, ds = P (z grad_out . v^T - delta), dbias = ds, dt = scale (1 - tanh^2) ds,
    dq = dt . k, dk = dt^T . q, dsinks = -sum exp(sinks - lse) delta; each summed over what its input is broadcast over.
    With `sizes` every term is taken absolute: what the rounding errors of the sums are relative to.
    """
    arrays = [np.asarray(array) for array in (query, key, value)]
    forward = attention(*arrays, attn_mask, softcap=softcap, scale=scale, sinks=sinks, work=work, **options)
    g, o, s_lse = (np.asarray(array).astype(work) for array in (grad_out, out, lse))
    q, k, v = (array.astype(work) for array in arrays)
    biased, kept = forward.biased, forward.kept
    if g.ndim == 2:
        q, k, v, g, o, s_lse, biased, kept = (array[None] for array in (q, k, v, g, o, s_lse, biased, kept))
    lead, heads = g.shape[:-3], g.shape[-3]
    group = heads // k.shape[-3] if k.shape[-3] else 1
    wide = [np.broadcast_to(array, lead + array.shape[-3:]) for array in (q, k, v)]
    wide[1:] = [np.repeat(array, group, axis=-3) for array in wide[1:]]

    if sizes:
        q, g, o, *wide = (np.abs(array) for array in (q, g, o, *wide))
    visible = biased != -np.inf
    live = visible.any(axis=-1)
    with np.errstate(invalid="ignore", over="ignore"):
        delta = np.where(live, (g * o).sum(axis=-1), work(0))
        p = np.where(visible, np.exp(biased - s_lse[..., None]), work(0))
        dp = g @ np.swapaxes(wide[2], -1, -2)
        ds = np.where(visible, p * (kept * dp - (-delta if sizes else delta)[..., None]), work(0))
        if scale is None:
            scale = 1 / math.sqrt(q.shape[-1]) if q.shape[-1] else 0.0
        dt = ds * work(abs(scale) if sizes else scale)
        if softcap > 0:
            scaled = forward.scaled if forward.scaled.ndim == dt.ndim else forward.scaled[None]
            dt = np.where(visible, dt * (1 - np.tanh(scaled / work(softcap)) ** 2), work(0))
        dropped = np.where(visible, p * kept, work(0))

    turned = [np.swapaxes(array, -1, -2) for array in (dt, dropped, visible)]
    dq = _visible_product(dt, wide[1], visible)
    dk = _visible_product(turned[0], wide[0], turned[2])
    dv = _visible_product(turned[1], g, turned[2])
    dk, dv = (array.reshape(lead + (k.shape[-3], group) + array.shape[-2:]).sum(axis=-3) for array in (dk, dv))
    gradients = [_summed_to(d, array.shape) for d, array in zip((dq, dk, dv), arrays)]
    dbias = dsinks = None
    if attn_mask is not None and np.asarray(attn_mask).dtype != bool:
        shape, full = np.asarray(attn_mask).shape, ds.reshape((math.prod(lead),) + ds.shape[-3:])
        try:
            np.broadcast_shapes(shape, full.shape)
            dbias = _summed_to(full, shape) if len(shape) <= 4 else None
        except ValueError:
            pass
        dbias = _summed_to(ds, shape) if dbias is None else dbias
    if sinks is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            share = np.exp(np.asarray(sinks).astype(work)[:, None] - s_lse)
            terms = np.where(live, share * delta, work(0))
        dsinks = -np.moveaxis(terms, -2, 0).reshape(heads, -1).sum(axis=1)
    return (*gradients, dbias, dsinks)


def _summed_to(array, shape):
    """The sum over the leading dims that `shape` lacks, and over those where it has 1."""
    array = array.sum(axis=tuple(range(array.ndim - len(shape)))) if array.ndim > len(shape) else array
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return array.sum(axis=axes, keepdims=True).reshape(shape)


def _broadcast_mask(mask, lead, shape):
    """To (B, Hq, Tq, Tk); a mask that does not fit it is broadcast to (..., Hq, Tq, Tk) dim by dim."""
    try:
        return np.broadcast_to(mask, shape)
    except ValueError:
        return np.broadcast_to(mask, lead + shape[1:]).reshape(shape)


def _visible_product(p, v, visible):
    """sum over visible j of p[..., i, j] * v[..., j, :]; what an invisible row of v holds never matters."""
    if np.isfinite(v).all():
        return p @ v
    out = np.zeros(p.shape[:-1] + v.shape[-1:], p.dtype)
    with np.errstate(invalid="ignore"):
        for row in np.ndindex(p.shape[:-1]):
            seen = visible[row]
            out[row] = (p[row][seen][:, None] * v[row[:-1]][seen]).sum(axis=0)
    return out


def philox_words(seed, entries, heads, q_len, k_len):
    """Random words (B, H, Tq, Tk) of Philox4x32-10.

    Key (low, high 32 bits of seed), counter (j >> 2, i, h, b), word j & 3.
    """
    low32 = np.uint64(0xFFFFFFFF)
    b, h, i, j = np.ix_(np.asarray(entries), np.arange(heads), np.arange(q_len), np.arange((k_len + 3) // 4))
    c0, c1, c2, c3 = (
        np.broadcast_to(c, np.broadcast_shapes(b.shape, h.shape, i.shape, j.shape)).astype(np.uint64)
        for c in (j, i, h, b)
    )
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (product1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            product1 & low32,
            (product0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            product0 & low32,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    words = np.stack([c0, c1, c2, c3], axis=-1)
    return words.reshape(*words.shape[:3], 4 * words.shape[3])[..., :k_len]


def attention_varlen(query, key, value, cu_seqlens_q, cu_seqlens_k, is_causal=False, query_offset=None, **options):
    """Attention within each entry of packed query (total_q, Hq, D), key (total_k, Hkv, D), value (total_k, Hkv, Dv).

    Query 0 of an entry stands at kv_length - q_length unless is_causal is "upper_left" or an offset is given.
    """
    out, lse = [], []
    for b in range(len(cu_seqlens_q) - 1):
        q, k, v = (
            np.swapaxes(np.asarray(array)[starts[b] : starts[b + 1]], 0, 1)[None]
            for array, starts in ((query, cu_seqlens_q), (key, cu_seqlens_k), (value, cu_seqlens_k))
        )
        if query_offset is not None:
            offset = int(np.broadcast_to(query_offset, (len(cu_seqlens_q) - 1,))[b])
        else:
            offset = 0 if is_causal == "upper_left" else k.shape[2] - q.shape[2]
        part = attention(q, k, v, is_causal=bool(is_causal), query_offset=offset, first_entry=b, **options)
        out.append(np.swapaxes(part.out[0], 0, 1))
        lse.append(part.lse[0])
    return SimpleNamespace(out=np.concatenate(out), lse=np.concatenate(lse, axis=1))


def merge_attention_states(outs, lses, work=np.float64):
    """Attention over the union of disjoint key sets.

    lse = ln(sum_n exp(lses[n])); out = sum_n exp(lses[n] - lse) * outs[n]
    """
    outs = [np.asarray(part).astype(work) for part in outs]
    lses = [np.asarray(part).astype(work) for part in lses]
    m = np.max(lses, axis=0)
    origin = np.where(m == -np.inf, work(0), m)
    with np.errstate(divide="ignore"):
        lse = m + np.log(sum(np.exp(part - origin) for part in lses))
    lse = np.where(m == -np.inf, work(-np.inf), lse)
    safe = np.where(m == -np.inf, work(0), lse)
    out = np.zeros_like(outs[0])
    for part, log in zip(outs, lses):
        alive = (log > -np.inf)[..., None]  # a part without weight may hold anything
        out = out + np.where(alive, np.exp(log - safe)[..., None] * np.where(alive, part, work(0)), work(0))
    return out, lse


def alibi_slopes(heads):
    """2^(-8(h+1)/n) for h < n, the largest power of two <= heads, and 2^(-4(2(h-n)+1)/n) after."""
    n = 1 << (heads.bit_length() - 1) if heads else 1
    return np.array([2.0 ** (-8 * (h + 1) / n if h < n else -4 * (2 * (h - n) + 1) / n) for h in range(heads)])


def matmul(a, b, work=np.float64):
    return np.asarray(a).astype(work) @ np.asarray(b).astype(work)


def linear(x, weight, bias=None, activation=None, residual=None, work=np.float64):
    """residual + activation(x . weight^T + bias)."""
    y = np.asarray(x).astype(work) @ np.asarray(weight).astype(work).T
    if bias is not None:
        y = y + np.asarray(bias).astype(work)
    functions = {"relu": relu, "gelu": gelu, "gelu_tanh": lambda z, work: gelu(z, "tanh", work), "silu": silu}
    if activation is not None:
        y = functions[activation](y, work=work)
    return y if residual is None else np.asarray(residual).astype(work) + y


def softmax(x, axis=-1, work=np.float64):
    """exp(x - max) / sum exp(x - max); a row of -inf alone gives zeros."""
    x = np.asarray(x).astype(work)
    if x.shape[axis] == 0:
        return x
    m = np.max(x, axis=axis, keepdims=True)
    with np.errstate(invalid="ignore"):
        e = np.exp(x - np.where(m == -np.inf, work(0), m))
        l = e.sum(axis=axis, keepdims=True)
        return np.where(l == 0, work(0), e / np.where(l == 0, work(1), l))


def layer_norm(x, weight=None, bias=None, eps=1e-5, work=np.float64):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dim; var is biased."""
    x = np.asarray(x).astype(work)
    centred = x - x.mean(axis=-1, keepdims=True)
    y = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + work(eps))
    return _affine(y, weight, bias, work)


def rms_norm(x, weight=None, eps=1e-6, work=np.float64):
    """x / sqrt(mean(x^2) + eps) * weight over the last dim."""
    x = np.asarray(x).astype(work)
    return _affine(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + work(eps)), weight, None, work)


def _affine(y, weight, bias, work):
    if weight is not None:
        y = y * np.asarray(weight).astype(work)
    return y if bias is None else y + np.asarray(bias).astype(work)


def relu(x, work=np.float64):
    return np.maximum(np.asarray(x).astype(work), work(0))


def gelu(x, approximate="none", work=np.float64):
    """x/2 * (1 + erf(x / sqrt(2))), or with tanh: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

    In float64 the sums are written without the cancellation of their tails: 1 + erf(z) = erfc(-z), and
    1 + tanh(z) = 2 / (1 + exp(-2z)).
    """
    x = np.asarray(x).astype(work)
    if approximate == "tanh":
        z = work(math.sqrt(2 / math.pi)) * (x + work(0.044715) * x * x * x)
        with np.errstate(over="ignore"):
            step = 2 / (1 + np.exp(-2 * z)) if work is np.float64 else work(1) + np.tanh(z)
    else:
        z = x * work(math.sqrt(0.5))
        step = _erfc(-z) if work is np.float64 else work(1) + _erf(z).astype(work)
    return x * work(0.5) * step


def silu(x, work=np.float64):
    x = np.asarray(x).astype(work)
    with np.errstate(over="ignore"):
        return x / (work(1) + np.exp(-x))


def swiglu(gate, up, work=np.float64):
    return silu(gate, work) * np.asarray(up).astype(work)


def geglu(gate, up, approximate="none", work=np.float64):
    return gelu(gate, approximate, work) * np.asarray(up).astype(work)


def embedding(ids, table, residual=None, work=np.float64):
    rows = np.asarray(table).astype(work)[np.asarray(ids)]
    return rows if residual is None else rows + np.asarray(residual).astype(work)


def sinusoidal_positions(length, dim):
    """sin(t / 10000^(2i/dim)) in column 2i, cos of the same in column 2i + 1; an odd dim ends with a sine."""
    column = np.arange(dim)
    angle = np.arange(length)[:, None] / 10000.0 ** (2 * (column // 2) / max(dim, 1))
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle))


def int8_rows(x):
    """Rows of float32 as a cache of int8 holds them: q (..., N) and scale (...)."""
    with np.errstate(invalid="ignore", over="ignore"):
        top = np.abs(x).max(-1)
        scale = (top / np.float32(127)).astype(np.float32)
        usable = np.isfinite(top) & (scale > 0)
        y = x / np.where(usable, scale, np.float32(1))[..., None]
    q = np.where(usable[..., None], np.clip(np.rint(y), -127, 127), 0).astype(np.int8)
    return q, np.where(np.isfinite(top), np.where(usable, scale, np.float32(0)), np.float32(np.nan))


def rotary_frequencies(dim, length, base=10000.0, scaling=None):
    """(inv[i], factor of the tables) of a Hugging Face rope_scaling dict."""
    scaling = {key: value for key, value in (scaling or {}).items() if value is not None}
    kind, f = scaling.get("rope_type", scaling.get("type", "default")), scaling.get("factor", 1.0)
    original = scaling.get("original_max_position_embeddings")
    stretch = dim / (dim - 2) if dim > 2 else 0
    if kind == "dynamic":
        base *= (f * max(length, original) / original - (f - 1)) ** stretch
    if kind == "ntk":
        base *= f**stretch
    i = np.arange(dim // 2)
    inverse = base ** (-2.0 * i / max(dim, 1))
    attention = 1.0
    if kind == "linear":
        inverse = inverse / f
    if kind == "llama3":
        low, high = scaling.get("low_freq_factor", 1.0), scaling.get("high_freq_factor", 4.0)
        wavelength = 2 * math.pi / inverse
        s = (original / wavelength - low) / (high - low)
        between = ((1 - s) / f + s) * inverse
        inverse = np.where(
            wavelength < original / high, inverse, np.where(wavelength > original / low, inverse / f, between)
        )
    if kind == "yarn":

        def turning(times):
            return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(base))

        def m(k):
            return 0.1 * k * math.log(f) + 1 if f > 1 else 1.0

        a, b = turning(scaling.get("beta_fast", 32)), turning(scaling.get("beta_slow", 1))
        if scaling.get("truncate", True):
            a, b = math.floor(a), math.ceil(b)
        a, b = max(a, 0), min(b, dim - 1)
        ramp = np.clip((i - a) / (b - a if a != b else 0.001), 0, 1)
        inverse = inverse / f * ramp + inverse * (1 - ramp)
        one, other = scaling.get("mscale"), scaling.get("mscale_all_dim")
        attention = m(one) / m(other) if one and other else m(1)
    if kind == "longrope":
        inverse = inverse / np.asarray(scaling["long_factor" if length > original else "short_factor"])
        attention = math.sqrt(1 + math.log(f) / math.log(original)) if f > 1 else 1.0
    return inverse, scaling.get("attention_factor", attention)


def rotary_tables(dim, length, base=10000.0, scaling=None):
    inverse, factor = rotary_frequencies(dim, length, base, scaling)
    angle = np.arange(length)[:, None] * inverse
    return factor * np.cos(angle), factor * np.sin(angle)


def rotary_embedding(x, cos, sin, position_ids=None, interleaved=False, work=np.float64):
    """Pairs (i, i + R/2), or (2i, 2i + 1), of the first R = 2 * columns of cos."""
    x, cos, sin = (np.asarray(array).astype(work) for array in (x, cos, sin))
    ids = np.arange(x.shape[-2]) if position_ids is None else np.asarray(position_ids)
    cos, sin = cos[ids], sin[ids]
    if x.ndim > 2 and ids.ndim > 1:
        cos, sin = (array[..., None, :, :] for array in (cos, sin))  # one for all heads
    pairs = cos.shape[-1]
    first, second = (
        (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)) if interleaved else (slice(0, pairs), slice(pairs, 2 * pairs))
    )
    out = x.copy()
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., second] * cos + x[..., first] * sin
    return out
