"""attention_varlen against the reference, and against dense attention entry by entry."""

import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, assert_accurate, normal, plain


def packed(rng, q_lens, k_lens, dtype="float32", q_heads=4, kv_heads=2, head_dim=16, value_dim=24):
    starts_q, starts_k = (np.concatenate([[0], np.cumsum(lens)]).astype(np.int32) for lens in (q_lens, k_lens))
    return (
        normal(rng, (starts_q[-1], q_heads, head_dim), dtype),
        normal(rng, (starts_k[-1], kv_heads, head_dim), dtype),
        normal(rng, (starts_k[-1], kv_heads, value_dim), dtype),
        starts_q,
        starts_k,
    )


def check(arguments, **options):
    out, lse = swiftattn.attention_varlen(*arguments, return_lse=True, **options)
    exact = reference.attention_varlen(*arguments, **options)
    simple_out, simple_lse = (
        plain(
            lambda work, name=name: getattr(reference.attention_varlen(*arguments, work=work, **options), name),
            like=arguments[0].dtype,
        )
        for name in ("out", "lse")
    )
    assert out.dtype == arguments[0].dtype
    assert_accurate(out, exact.out, simple_out, "out")
    assert_accurate(lse, exact.lse, simple_lse, "lse")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True, "upper_left", "lower_right"])
def test_entries_of_many_lengths(dtype, causal):
    rng = np.random.default_rng(0)
    check(packed(rng, [5, 0, 1, 33, 7], [9, 4, 0, 33, 70], dtype), is_causal=causal)


def test_query_stands_at_the_end_of_its_keys():
    """The alignment is FlashAttention's even without causal: the window counts from kv_length - q_length."""
    q = np.ones((2, 1, 4), np.float32)
    k = np.ones((4, 1, 4), np.float32)
    v = np.eye(4, dtype=np.float32)[:, None]

    def seen(**options):
        return (swiftattn.attention_varlen(q, k, v, [0, 2], [0, 4], **options)[:, 0] > 0).astype(int).tolist()

    assert seen(is_causal=True) == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen(is_causal="lower_right") == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen(is_causal="upper_left") == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert seen(window=(1, 0)) == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert seen(window=(1, 0), is_causal="upper_left") == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert seen(window=(1, 0), query_offset=0) == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert seen(is_causal=True, query_offset=[-1]) == [[0, 0, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(15))
def test_random_options(dtype, seed):
    rng = np.random.default_rng([1, seed])
    batch, kv_heads, group = rng.integers(1, 6), rng.integers(1, 3), rng.integers(1, 4)
    arguments = packed(
        rng,
        rng.integers(0, 20, batch),
        rng.integers(0, 40, batch),
        dtype,
        kv_heads * group,
        kv_heads,
        int(rng.choice([3, 16, 64])),
        int(rng.choice([1, 16, 40])),
    )
    slopes = np.float64 if dtype == "float64" else np.float32
    choices = dict(
        is_causal=[True, "upper_left", "lower_right"][rng.integers(3)],
        scale=0.3,
        softcap=4.0,
        window=(int(rng.integers(0, 9)), int(rng.integers(-1, 9))),
        alibi_slopes=rng.random(kv_heads * group).astype(slopes),
        sinks=rng.standard_normal(kv_heads * group).astype(slopes),
        query_offset=rng.integers(-5, 20, batch) if rng.random() < 0.5 else 3,
        dropout_p=0.3,
    )
    options = {name: value for name, value in choices.items() if rng.random() < 0.4}
    if "dropout_p" in options:
        options["seed"] = 42
    check(arguments, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_do_not_touch_one_another(dtype):
    """Bit for bit: an entry is the same alone, and NaN in another entry does not reach it."""
    rng = np.random.default_rng(2)
    q, k, v, starts_q, starts_k = packed(rng, [40, 3, 1, 17], [60, 5, 90, 17], dtype)
    out, lse = swiftattn.attention_varlen(q, k, v, starts_q, starts_k, is_causal=True, return_lse=True)
    for b in range(4):
        rows, keys = slice(*starts_q[b : b + 2]), slice(*starts_k[b : b + 2])
        alone = swiftattn.attention_varlen(
            q[rows],
            k[keys],
            v[keys],
            [0, rows.stop - rows.start],
            [0, keys.stop - keys.start],
            is_causal=True,
            return_lse=True,
        )
        np.testing.assert_array_equal(out[rows], alone[0])
        np.testing.assert_array_equal(lse[:, rows], alone[1])
        dense = swiftattn.scaled_dot_product_attention(
            *(x.swapaxes(0, 1) for x in (q[rows], k[keys], v[keys])), is_causal="lower_right"
        )
        np.testing.assert_array_equal(out[rows], dense.swapaxes(0, 1))
    poisoned = [x.copy() for x in (q, k, v)]
    for x, starts in zip(poisoned, (starts_q, starts_k, starts_k)):
        x[starts[1] : starts[2]] = np.nan
    poisoned_out = swiftattn.attention_varlen(*poisoned, starts_q, starts_k, is_causal=True)
    keep = np.r_[0 : starts_q[1], starts_q[2] : starts_q[4]]
    np.testing.assert_array_equal(poisoned_out[keep], out[keep])
    assert np.isnan(poisoned_out[starts_q[1] : starts_q[2]].astype(np.float32)).all()


@pytest.mark.parametrize("kind", [list, np.int32, np.int64, np.uint8])
def test_offsets_of_every_kind(kind):
    rng = np.random.default_rng(3)
    q, k, v, starts_q, starts_k = packed(rng, [2, 3], [4, 5])
    given = (starts.tolist() if kind is list else starts.astype(kind) for starts in (starts_q, starts_k))
    np.testing.assert_array_equal(
        swiftattn.attention_varlen(q, k, v, *given), swiftattn.attention_varlen(q, k, v, starts_q, starts_k)
    )


def test_nothing_at_all():
    rng = np.random.default_rng(4)
    q, k, v, _, _ = packed(rng, [], [])
    out, lse = swiftattn.attention_varlen(q, k, v, [0], [0], return_lse=True)
    assert out.shape == (0, 4, 24) and lse.shape == (4, 0)
    out, lse = swiftattn.attention_varlen(q, k, v, [0, 0, 0], [0, 0, 0], return_lse=True)
    assert out.shape == (0, 4, 24) and lse.shape == (4, 0)


def test_strided_inputs_and_out():
    rng = np.random.default_rng(5)
    q, k, v, starts_q, starts_k = packed(rng, [6, 7], [8, 9])
    expected = swiftattn.attention_varlen(q, k, v, starts_q, starts_k)
    q2, k2, v2 = (np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1) for x in (q, k, v))
    out = np.zeros((4, 24, 13), np.float32).transpose(2, 0, 1)[:, ::-1]
    assert swiftattn.attention_varlen(q2, k2, v2, starts_q, starts_k, out=out) is out
    np.testing.assert_array_equal(out, expected)
