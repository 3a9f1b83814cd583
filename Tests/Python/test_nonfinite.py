"""NaN and Inf: what is not visible never matters, what is visible spoils its own row and no other."""

import numpy as np
import pytest
import swiftattn
from support import DTYPES, normal

NASTY = [np.nan, np.inf, -np.inf]


def problem(dtype, q_len=7, k_len=40, head_dim=16):
    rng = np.random.default_rng(0)
    return [normal(rng, (2, 4, q_len, head_dim), dtype)] + [normal(rng, (2, 2, k_len, head_dim), dtype) for _ in "kv"]


def attend(query, key, value, **options):
    return swiftattn.scaled_dot_product_attention(query, key, value, return_lse=True, return_weights=True, **options)


HIDING = {
    "causal": (dict(is_causal="lower_right", query_offset=20), slice(27, None)),
    "window": (dict(window=(3, 4), query_offset=10), np.r_[0:7, 21:40]),
    "kv_lengths": (dict(kv_lengths=[23, 23]), slice(23, None)),
    "bool mask": (dict(attn_mask=np.arange(40) % 3 != 0), slice(0, None, 3)),
    "float mask": (
        dict(attn_mask=np.where(np.arange(40) % 3 == 0, -np.inf, 0.5).astype(np.float32)),
        slice(0, None, 3),
    ),
    "NaN mask": (dict(attn_mask=np.where(np.arange(40) % 3 == 0, np.nan, 0.5).astype(np.float32)), slice(0, None, 3)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("poison", NASTY)
@pytest.mark.parametrize("how", HIDING)
def test_invisible_keys_never_matter(dtype, poison, how):
    options, hidden = HIDING[how]
    options = {
        name: value.astype(DTYPES[dtype]) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value
        for name, value in options.items()
    }
    q, k, v = problem(dtype)
    expected = attend(q, k, v, **options)
    for poisoned_k, poisoned_v in ((True, False), (False, True), (True, True)):
        k2, v2 = k.copy(), v.copy()
        if poisoned_k:
            k2[:, :, hidden] = poison
        if poisoned_v:
            v2[:, :, hidden] = poison
        for extra in ({}, {"softcap": 5.0}, {"alibi_slopes": [0.1] * 4, "sinks": [0.0] * 4}):
            clean = attend(q, k, v, **options, **extra) if extra else expected
            for a, b in zip(attend(q, k2, v2, **options, **extra), clean):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("poison", NASTY)
def test_keys_partly_visible(dtype, poison):
    """Key 30 is visible to the last query only: the other rows keep their bits."""
    q, k, v = problem(dtype)
    options = dict(is_causal=True, query_offset=24)
    expected = attend(q, k, v, **options)
    for array in (0, 1):
        poisoned = [k.copy(), v.copy()]
        poisoned[array][:, :, 30] = poison
        got = attend(q, *poisoned, **options)
        for a, b in zip(got, expected):
            np.testing.assert_array_equal(a[:, :, :6], b[:, :, :6])
        if np.isnan(poison):
            assert np.isnan(got[0][:, :, 6].astype(np.float64)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_queries_past_their_length_never_matter(dtype):
    q, k, v = problem(dtype)
    expected = attend(q, k, v, q_lengths=[4, 0])
    q = q.copy()
    q[0, :, 4:] = np.nan
    q[1] = np.nan
    for a, b in zip(attend(q, k, v, q_lengths=[4, 0]), expected):
        np.testing.assert_array_equal(a, b)
    assert not expected[0][1].any() and (expected[1][1] == -np.inf).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_a_query_spoils_its_row_alone(dtype):
    q, k, v = problem(dtype)
    expected = attend(q, k, v)
    q = q.copy()
    q[1, 2, 3, 5] = np.nan
    got = attend(q, k, v)
    spoiled = np.zeros((2, 4, 7), bool)
    spoiled[1, 2, 3] = True
    for a, b in zip(got, expected):
        a, b = a.astype(np.float64), b.astype(np.float64)
        assert np.isnan(a[spoiled]).all()
        np.testing.assert_array_equal(a[~spoiled], b[~spoiled])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("element", [0, 7, 15])
def test_nan_in_a_visible_key_spoils_its_rows(dtype, element):
    q, k, v = problem(dtype)
    expected = attend(q, k, v)[0]
    k = k.copy()
    k[0, 1, 17, element] = np.nan
    out = attend(q, k, v)[0]
    assert np.isnan(out[0, 2:].astype(np.float64)).all()
    np.testing.assert_array_equal(out[0, :2], expected[0, :2])
    np.testing.assert_array_equal(out[1], expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_a_visible_value_spoils_its_column(dtype):
    q, k, v = problem(dtype)
    expected = attend(q, k, v)[0].astype(np.float64)
    v = v.copy()
    v[0, 1, 17, 3] = np.nan
    out = attend(q, k, v)[0].astype(np.float64)
    assert np.isnan(out[0, 2:, :, 3]).all()
    clean = np.ones(out.shape, bool)
    clean[0, 2:] = False
    np.testing.assert_array_equal(out[clean], expected[clean])


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_score(dtype):
    """+inf gives that key's value or NaN in its row; -inf is a key without weight. Other rows keep their bits."""
    q, k, v = problem(dtype)
    q[:, :, :, 0] = 1
    q[:, :, 2, 0] = -1
    expected = attend(q, k, v, is_causal=True, query_offset=20)[0].astype(np.float64)
    k = k.copy()
    k[:, :, 24, 0] = np.inf
    out = attend(q, k, v, is_causal=True, query_offset=20)[0].astype(np.float64)
    np.testing.assert_array_equal(out[:, :, :4], expected[:, :, :4])
    rows = out[:, :, 4:]
    value = np.broadcast_to(np.repeat(v, 2, axis=1)[:, :, 24:25].astype(np.float64), rows.shape)
    assert (np.isnan(rows) | (rows == value)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_minus_infinite_score_is_a_key_without_weight(dtype):
    q, k, v = problem(dtype)
    q[...] = np.abs(q) + DTYPES[dtype].type(0.1)
    visible = np.ones(40, bool)
    visible[24] = False
    expected = attend(q, k, v, attn_mask=visible)[0].astype(np.float64)
    k = k.copy()
    k[:, :, 24] = -np.inf
    out = attend(q, k, v)[0].astype(np.float64)
    np.testing.assert_allclose(out, expected, rtol=2e-2 if dtype == "bfloat16" else 2e-3, atol=1e-3)


def test_float_mask_of_plus_infinity():
    q, k, v = problem("float32")
    mask = np.zeros((7, 40), np.float32)
    expected = attend(q, k, v, attn_mask=mask)[0]
    mask[2, 9] = np.inf
    out = attend(q, k, v, attn_mask=mask)[0]
    value = np.repeat(v, 2, axis=1)[:, :, 9]
    assert (np.isnan(out[:, :, 2]) | (out[:, :, 2] == value)).all()
    rows = np.arange(7) != 2
    np.testing.assert_array_equal(out[:, :, rows], expected[:, :, rows])


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "rms_norm"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_spoils_its_row_of_rows(name, dtype):
    rng = np.random.default_rng(1)
    x = normal(rng, (5, 33), dtype)
    expected = getattr(swiftattn, name)(x)
    x = x.copy()
    x[2, 11] = np.nan
    got = getattr(swiftattn, name)(x).astype(np.float64)
    assert np.isnan(got[2]).all()
    rows = np.arange(5) != 2
    np.testing.assert_array_equal(got[rows], expected[rows].astype(np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_infinities(dtype):
    row = DTYPES[dtype].type
    x = np.array([[-np.inf, 0, -np.inf], [-np.inf] * 3, [0, 0, -np.inf]], row)
    np.testing.assert_array_equal(swiftattn.softmax(x), np.array([[0, 1, 0], [0, 0, 0], [0.5, 0.5, 0]], row))


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_of_nonfinite(dtype):
    row = DTYPES[dtype].type
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], row)
    np.testing.assert_array_equal(swiftattn.relu(x).astype(np.float64), [np.nan, np.inf, 0, 0, 0])
    for got in (swiftattn.gelu(x), swiftattn.gelu(x, "tanh"), swiftattn.silu(x)):
        got = got.astype(np.float64)
        assert np.isnan(got[0]) and got[1] == np.inf and (got[3:] == 0).all()
        assert np.isnan(got[2]) or got[2] == 0  # -inf * 0, as in PyTorch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("poison", NASTY)
def test_matmul_keeps_poison_in_its_row_and_column(dtype, poison):
    rng = np.random.default_rng(2)
    a, b = normal(rng, (20, 30), dtype), normal(rng, (30, 25), dtype)
    expected = swiftattn.matmul(a, b).astype(np.float64)
    a, b = a.copy(), b.copy()
    a[3, 4] = poison
    b[5, 6] = poison
    got = swiftattn.matmul(a, b).astype(np.float64)
    rows, columns = np.arange(20) != 3, np.arange(25) != 6
    np.testing.assert_array_equal(got[np.ix_(rows, columns)], expected[np.ix_(rows, columns)])
    assert not np.isfinite(got[3]).any() and not np.isfinite(got[:, 6]).any()
