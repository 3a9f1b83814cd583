"""Additive attention against float64 NumPy: shapes, masks, dtypes, far scores, hidden keys."""

import numpy as np
import pytest
import swiftattn
from support import DTYPES, assert_accurate, normal, plain, strided


def additive_attention(query, key, value, w_query, w_key, v_score, attn_mask=None, work=np.float64):
    """(out, weights)."""
    q, k, v, wq, wk, vs = (np.asarray(array).astype(work) for array in (query, key, value, w_query, w_key, v_score))
    hidden = np.tanh((q @ wq.T)[..., :, None, :] + (k @ wk.T)[..., None, :, :])
    s = hidden @ vs
    if attn_mask is not None:
        mask = np.asarray(attn_mask)
        if mask.dtype == bool:
            s = np.where(mask, s, -np.inf)
        else:
            mask = mask.astype(work)
            s = np.where(mask > -np.inf, s + mask, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(top > -np.inf, top, 0))
    total = p.sum(-1, keepdims=True)
    p = p / np.where(total > 0, total, 1)
    return p @ np.broadcast_to(v, (*p.shape[:-2], *v.shape[-2:])), p


def inputs(rng, dtype, leading=(2,), q_len=5, k_len=7, widths=(6, 4, 3), hidden=9, scale=1.0):
    q, k, v = (normal(rng, (*leading, n, w), dtype) for n, w in zip((q_len, k_len, k_len), widths))
    wq, wk = (normal(rng, (hidden, w), dtype) * DTYPES[dtype].type(scale) for w in widths[:2])
    return q, k, v, wq, wk, normal(rng, (hidden,), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "case",
    [
        dict(),
        dict(leading=(), q_len=1, k_len=1, hidden=1, widths=(1, 1, 1)),
        dict(leading=(2, 3), q_len=33, k_len=70, hidden=64, widths=(16, 17, 18)),
        dict(hidden=0),
        dict(q_len=2, k_len=300, hidden=130, scale=0.1),
        dict(hidden=40, scale=8.0),  # sums far beyond where tanh is 1
    ],
    ids=str,
)
@pytest.mark.parametrize("mask", [None, "bool", "float", "float32"])
def test_additive_attention(dtype, case, mask):
    rng = np.random.default_rng(0)
    arrays = inputs(rng, dtype, **case)
    shape = (*arrays[0].shape[:-1], arrays[1].shape[-2])
    attn_mask = None
    if mask == "bool":
        attn_mask = rng.random(shape) < 0.7
        attn_mask[..., 0, :] = False
    elif mask:
        attn_mask = normal(rng, shape, dtype if mask == "float" else "float32")
        attn_mask[rng.random(shape) < 0.2] = -np.inf
    out, weights = swiftattn.additive_attention(*arrays, attn_mask, return_weights=True)
    assert out.dtype == DTYPES[dtype] and weights.dtype == (np.float64 if dtype == "float64" else np.float32)
    exact = additive_attention(*arrays, attn_mask)
    simple = plain(additive_attention, *arrays, attn_mask, like=arrays[0].dtype)
    for got, wanted, plainly, what in zip((out, weights), exact, simple, ("out", "weights")):
        assert_accurate(got, wanted, plainly, what)


def test_rows_without_keys_and_hidden_keys():
    rng = np.random.default_rng(1)
    arrays = list(inputs(rng, "float32"))
    mask = rng.random((2, 5, 7)) < 0.6
    mask[0, 2] = False
    mask[:, :, 4] = False
    expected = swiftattn.additive_attention(*arrays, mask, return_weights=True)
    assert not expected[0][0, 2].any() and not expected[1][0, 2].any()
    g = normal(rng, expected[0].shape)
    gradients = swiftattn.additive_attention_backward(g, *arrays, mask)
    for poison in (np.nan, np.inf):
        arrays[1][:, 4] = arrays[2][:, 4] = poison
        got = swiftattn.additive_attention(*arrays, mask, return_weights=True)
        for a, b in zip(got, expected):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(swiftattn.additive_attention_backward(g, *arrays, mask), gradients):
            np.testing.assert_array_equal(a, b)
    none = swiftattn.additive_attention(*arrays, np.zeros((5, 7), bool), return_weights=True)
    assert not none[0].any() and not none[1].any()
    for gradient in swiftattn.additive_attention_backward(g, *arrays, np.zeros((5, 7), bool)):
        assert not gradient.any()


def test_nan_in_a_query_stays_in_its_row():
    rng = np.random.default_rng(2)
    arrays = list(inputs(rng, "float32"))
    expected = swiftattn.additive_attention(*arrays)
    arrays[0][1, 3, 2] = np.nan
    got = swiftattn.additive_attention(*arrays)
    assert np.isnan(got[1, 3]).all()
    got[1, 3] = expected[1, 3]
    np.testing.assert_array_equal(got, expected)


def test_large_sums_that_cancel():
    """query + key near 0 where each alone would overflow the exponential."""
    one = np.ones((1, 1), np.float32)
    for size in (5.0, 30.0, 3000.0):
        query, key = np.float32([[size]]), np.float32([[0.5 - size], [-size], [-2 * size]])
        value = np.eye(3, dtype=np.float32)
        got = swiftattn.additive_attention(query, key, value, one, one, np.float32([3]))
        np.testing.assert_allclose(got, additive_attention(query, key, value, one, one, [3])[0], atol=1e-6)
        check = swiftattn.additive_attention_backward(
            np.float32([[1, 0, 0]]), query, key, value, one, one, np.float32([3])
        )
        wide = [array.astype(np.float64) for array in (query, key, value, one, one)]
        exact = swiftattn.additive_attention_backward(np.array([[1.0, 0, 0]]), *wide, np.array([3.0]))
        for a, b in zip(check, exact):
            np.testing.assert_allclose(a, b, atol=1e-6 * max(np.abs(b).max(), 1))


def test_broadcasting_and_layouts():
    rng = np.random.default_rng(3)
    q, k, v, *rest = inputs(rng, "float32", leading=(3, 2))
    k, v = k[:1], v[1, :1]
    mask = rng.random((2, 1, 7)) < 0.8
    expected = additive_attention(q, np.broadcast_to(k, (3, 2, 7, 4)), np.broadcast_to(v, (3, 2, 7, 3)), *rest, mask)
    got = swiftattn.additive_attention(q, k, v, *rest, mask, return_weights=True)
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for _ in range(4):
        views = [strided(rng, array) for array in (q, k, v, *rest, mask)]
        again = swiftattn.additive_attention(*views, return_weights=True)
        for a, b in zip(again, got):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "case", [dict(q_len=0), dict(k_len=0), dict(leading=(0,)), dict(widths=(6, 4, 0)), dict(widths=(0, 4, 3))]
)
def test_empty_arrays(case):
    rng = np.random.default_rng(4)
    arrays = inputs(rng, "float32", **case)
    out, weights = swiftattn.additive_attention(*arrays, return_weights=True)
    exact = additive_attention(*arrays)
    np.testing.assert_allclose(out, exact[0], atol=1e-6)
    np.testing.assert_allclose(weights, exact[1], atol=1e-6)
    for got, array in zip(swiftattn.additive_attention_backward(out, *arrays), arrays):
        assert got.shape == array.shape


def test_bits_of_a_row_depend_on_nothing_else():
    rng = np.random.default_rng(5)
    arrays = inputs(rng, "float32", q_len=50, k_len=90, hidden=70)
    before = swiftattn.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            swiftattn.set_num_threads(threads)
            results.append(swiftattn.additive_attention(*arrays))
    finally:
        swiftattn.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    q, k, v, *rest = arrays
    alone = swiftattn.additive_attention(q[1, 17:18], k[1], v[1], *rest)
    np.testing.assert_array_equal(alone[0], results[0][1, 17])
