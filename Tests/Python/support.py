"""What the tests share: random problems, the error rule, guarded memory, fresh interpreters."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import reference

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float64": np.dtype(np.float64),
}
FLOAT32_EPS = float(np.finfo(np.float32).eps)


def normal(rng, shape, dtype="float32"):
    """Standard normal numbers that the dtype holds exactly."""
    return rng.standard_normal(shape).astype(DTYPES[dtype])


def plain(function, *arguments, like, **options):
    """What a plain NumPy implementation gives in the precision that a dtype is computed in, rounded once."""
    work = np.float64 if like == np.float64 else np.float32
    with np.errstate(over="ignore"):
        return function(*arguments, work=work, **options)


def assert_accurate(got, exact, simple, what="out", terms=0.0):
    """Error against float64 no larger than twice what plain NumPy loses in the same precision.

    `exact` is the float64 reference and `simple` the plain implementation's unrounded result, or a list of them: the
    worst one counts. The floor, of the largest result, lets through a rounding of the output, and a few more where
    plain NumPy happens to be exact: its exp is rounded correctly, and short sums often are too. `terms` is the size of
    what was summed, where sums cancel.
    """
    got, exact = np.asarray(got), np.asarray(exact)
    assert got.shape == exact.shape, f"{what}: shape {got.shape} instead of {exact.shape}"
    with np.errstate(over="ignore"):
        plains = [
            np.asarray(x).astype(got.dtype).astype(np.float64)
            for x in (simple if isinstance(simple, list) else [simple])
        ]
        wanted = exact.astype(got.dtype).astype(np.float64)
    wide = got.astype(np.float64)
    finite = np.isfinite(wanted)
    edge = np.any([np.isfinite(x) != finite for x in plains], axis=0)  # of the dtype's range: either way is right
    np.testing.assert_array_equal(np.where(finite | edge, 0, wide), np.where(finite | edge, 0, wanted), err_msg=what)
    keep = finite & ~edge
    if not keep.any():
        return
    wide, exact = wide[keep], exact.astype(np.float64)[keep]
    assert np.isfinite(wide).all(), f"{what}: NaN or Inf where the reference is finite"
    info = ml_dtypes.finfo(got.dtype)
    size = max(np.abs(exact).max(), terms) + float(info.tiny) * 1e3  # denormals may be coarse
    if got.dtype == np.float64:
        floor = 64 * float(info.eps) * size
    else:
        floor = (8 * FLOAT32_EPS + (float(info.eps) / 2 if got.dtype.itemsize == 2 else 0)) * size
    error = np.abs(wide - exact).max()
    bound = 2 * max(np.abs(x[keep] - exact).max() for x in plains) + floor
    assert error <= bound, f"{what}: error {error:.3g} against float64 is beyond {bound:.3g} ({got.dtype})"


def check_attention(result, query, key, value, **options):
    """Holds (out, lse, weights) of scaled_dot_product_attention against the reference.

    Where two large scores nearly tie, what plain NumPy loses is a matter of luck. So it gets four draws: sums over
    the head dim in four orders.
    """
    exact = reference.attention(query, key, value, **options)
    rng = np.random.default_rng(0)
    orders = [np.arange(query.shape[-1]), *(rng.permutation(query.shape[-1]) for _ in range(3))]
    simple = [
        plain(reference.attention, query[..., order], key[..., order], value, like=query.dtype, **options)
        for order in orders
    ]
    out, lse, weights = result
    assert out.dtype == query.dtype
    assert lse.dtype == (np.float64 if query.dtype == np.float64 else np.float32)
    assert_accurate(out, exact.out, [draw.out for draw in simple], "out")
    assert_accurate(lse, exact.lse, [draw.lse for draw in simple], "lse")
    assert_accurate(weights, exact.weights, [draw.weights for draw in simple], "weights")


def random_problem(rng, dtype="float32", dropout=True, longest=40):
    """Random shapes and a random choice of options: (query, key, value, options)."""
    batch, kv_heads, group = rng.integers(1, 4), rng.integers(1, 3), rng.choice([1, 1, 2, 3])
    heads = kv_heads * group
    q_len, k_len = rng.integers(1, longest, 2)
    head_dim, value_dim = rng.choice([1, 3, 8, 16, 17, 32, 64, 80], 2)
    query = normal(rng, (batch, heads, q_len, head_dim), dtype)
    key = normal(rng, (batch, kv_heads, k_len, head_dim), dtype)
    value = normal(rng, (batch, kv_heads, k_len, value_dim), dtype)
    options = {}

    def now_and_then(name, make):
        if rng.random() < 0.3:
            options[name] = make()

    def mask():
        shape = [batch, heads, q_len, k_len][rng.integers(0, 4) :]
        shape = [size if rng.random() < 0.7 else 1 for size in shape]
        if rng.random() < 0.5:
            return rng.random(shape) < 0.7
        bias = normal(rng, shape, dtype if rng.random() < 0.5 else "float32" if dtype != "float64" else "float64")
        bias[rng.random(shape) < 0.2] = -np.inf
        return bias

    slopes = np.float64 if dtype == "float64" else np.float32
    now_and_then("attn_mask", mask)
    now_and_then("is_causal", lambda: [True, "upper_left", "lower_right"][rng.integers(3)])
    now_and_then("scale", lambda: float(rng.choice([0.0, -0.3, 0.5, 1.0])))
    now_and_then("window", lambda: tuple(int(side) if side >= 0 else None for side in rng.integers(-1, 12, 2)))
    now_and_then("softcap", lambda: float(rng.choice([0.5, 5.0, 30.0])))
    now_and_then("alibi_slopes", lambda: rng.random(heads).astype(slopes))
    now_and_then("sinks", lambda: rng.standard_normal(heads).astype(slopes))
    now_and_then("q_lengths", lambda: rng.integers(0, q_len + 1, batch))
    now_and_then("kv_lengths", lambda: rng.integers(0, k_len + 1, batch).astype(np.int32))
    if rng.random() < 0.5:
        now_and_then("query_offset", lambda: int(rng.integers(-10, 20)))
    else:
        now_and_then("query_offset", lambda: rng.integers(-10, 20, batch))
    if dropout and rng.random() < 0.3:
        options.update(dropout_p=0.4, seed=int(rng.integers(0, 2**63)) * 2 + 1)
    return query, key, value, options


def strided(rng, array):
    """An array of the same numbers in a random layout: permuted, reversed, with gaps."""
    order = rng.permutation(array.ndim)
    steps = [int(rng.choice([-2, -1, 1, 2])) for _ in order]
    base = np.zeros([array.shape[axis] * abs(step) for axis, step in zip(order, steps)], array.dtype)
    view = base[tuple(slice(None, None, step) for step in steps)].transpose(np.argsort(order))
    view[...] = array
    return view


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_PAGE = mmap.PAGESIZE


def guarded(array, side, writable=False):
    """A copy of the array flush against a page on `side` ("left" or "right") that no one may touch.

    The page on the other side is closed too. Inputs (not writable) lie in read-only pages.
    """
    room = -(-max(array.nbytes, 1) // _PAGE) * _PAGE
    memory = mmap.mmap(-1, room + 2 * _PAGE)
    start = _PAGE if side == "left" else _PAGE + room - array.nbytes
    copy = np.frombuffer(memory, np.uint8, array.nbytes, start).view(array.dtype).reshape(array.shape)
    copy[...] = array
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for offset, length, protection in (
        (0, _PAGE, 0),
        (_PAGE + room, _PAGE, 0),
        (_PAGE, room, mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)),
    ):
        assert _libc.mprotect(address + offset, length, protection) == 0
    return copy


def run_python(code, **environment):
    """Runs code in a fresh interpreter with the same module path and returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout.strip()
