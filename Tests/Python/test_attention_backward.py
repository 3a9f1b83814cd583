"""Gradients of attention: float64 against central differences, every dtype against the reference, edges, bits, memory."""

import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, assert_accurate, guarded, normal, plain, random_problem, run_python, strided
from swiftattn import _ffi
from swiftattn._tensor import borrow

attend = swiftattn.scaled_dot_product_attention
gradients = swiftattn.scaled_dot_product_attention_backward


def has_bias(options):
    return options.get("attn_mask") is not None and options["attn_mask"].dtype != bool


def backward(grad_out, q, k, v, **options):
    """dq, dk, dv, dbias, dsinks; the last two None where there is none."""
    out, lse = attend(q, k, v, return_lse=True, **options)
    bias, sink = has_bias(options), options.get("sinks") is not None
    got = list(gradients(grad_out, q, k, v, out, lse, bias_grad=bias, sink_grad=sink, **options))
    if not bias:
        got.insert(3, None)
    return got if sink else [*got, None]


def random_gradients(rng, dtype, **choices):
    q, k, v, options = random_problem(rng, dtype, **choices)
    return normal(rng, (*q.shape[:-1], v.shape[-1]), dtype), q, k, v, options


def check(grad_out, q, k, v, **options):
    out, lse = attend(q, k, v, return_lse=True, **options)
    got = backward(grad_out, q, k, v, **options)
    arguments = (grad_out, q, k, v, out, lse)
    exact = reference.attention_backward(*arguments, **options)
    simple = plain(reference.attention_backward, *arguments, like=q.dtype, **options)
    sizes = reference.attention_backward(*arguments, sizes=True, **options)
    inputs = (q, k, v, options.get("attn_mask"), options.get("sinks"))
    for name, gradient, like, a, b, size in zip(("dq", "dk", "dv", "dbias", "dsinks"), got, inputs, exact, simple, sizes):
        assert (gradient is None) == (a is None)
        if gradient is not None:
            assert gradient.dtype == like.dtype
            assert_accurate(gradient, a, b, name, np.max(size, initial=0))
    return got


def differences(loss, array, step=3e-4):
    """d loss / d array by central differences of the fourth order."""
    result = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        at = array[index]
        values = []
        for side in (1, -1, 2, -2):
            array[index] = at + side * step
            values.append(loss())
        array[index] = at
        result[index] = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step)
    return result


SMALL = {
    "plain": {},
    "causal": dict(is_causal=True),
    "lower right": dict(is_causal="lower_right", kv_lengths=[6], q_lengths=[3]),
    "window": dict(window=(2, 1), query_offset=1),
    "softcap": dict(softcap=1.2, scale=0.9),
    "alibi": dict(alibi_slopes=np.array([0.1, 0.4, 0.0, 0.2])),
    "dropout": dict(dropout_p=0.4, seed=2**40 + 3),
    "negative scale": dict(scale=-0.7),
    "scale 0": dict(scale=0.0),
    "all": dict(is_causal=True, window=(4, 0), query_offset=3, softcap=2.0, dropout_p=0.3, alibi_slopes=np.full(4, 0.3)),
}


@pytest.mark.once
@pytest.mark.parametrize("extra", ["", "bias and sinks"])
@pytest.mark.parametrize("name", SMALL)
def test_float64_against_central_differences(name, extra):
    rng = np.random.default_rng(0)
    q, k, v = (normal(rng, shape, "float64") for shape in ((1, 4, 5, 3), (1, 2, 7, 3), (1, 2, 7, 4)))
    grad_out = normal(rng, (1, 4, 5, 4), "float64")
    options = dict(SMALL[name])
    if extra:
        options.update(attn_mask=normal(rng, (4, 1, 7), "float64"), sinks=normal(rng, (4,), "float64"))

    def loss():
        return (reference.attention(q, k, v, **options).out * grad_out).sum()

    got = backward(grad_out, q, k, v, **options)
    for gradient, array in zip(got, (q, k, v, options.get("attn_mask"), options.get("sinks"))):
        if array is not None:
            wanted = differences(loss, array)
            assert np.abs(gradient - wanted).max() <= 1e-7 * max(np.abs(wanted).max(), 1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(40))
def test_random_options(dtype, seed):
    check_random(np.random.default_rng([1, seed]), dtype, 40)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(6))
def test_random_options_of_several_tiles(dtype, seed):
    check_random(np.random.default_rng([2, seed]), dtype, 260)


def check_random(rng, dtype, longest):
    grad_out, q, k, v, options = random_gradients(rng, dtype, longest=longest)
    check(grad_out, q, k, v, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim, value_dim", [(1, 1), (2, 5), (16, 64), (64, 64), (65, 31), (128, 128), (80, 96), (333, 7)])
def test_head_dims(dtype, head_dim, value_dim):
    rng = np.random.default_rng(head_dim)
    q, k, v, g = (
        normal(rng, (1, 2, *shape), dtype) for shape in ((9, head_dim), (21, head_dim), (21, value_dim), (9, value_dim))
    )
    check(g, q, k, v, is_causal=True, query_offset=12)


@pytest.mark.parametrize("q_len", [1, 6, 63, 64, 65, 129])
@pytest.mark.parametrize("k_len", [1, 47, 48, 49, 95, 96, 97, 193])
def test_lengths_around_tiles(q_len, k_len):
    rng = np.random.default_rng(q_len * 1000 + k_len)
    q, k, v, g = (normal(rng, (1, 1, length, 16)) for length in (q_len, k_len, k_len, q_len))
    check(g, q, k, v)
    check(g, q, k, v, is_causal="lower_right")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("q_heads, kv_heads", [(4, 4), (6, 2), (8, 1), (71, 1)])
@pytest.mark.parametrize("q_len", [5, 70])
def test_grouped_heads(dtype, q_heads, kv_heads, q_len):
    rng = np.random.default_rng(q_heads)
    q, g = (normal(rng, (2, q_heads, q_len, 16), dtype) for _ in "qg")
    k, v = (normal(rng, (2, kv_heads, 12, 16), dtype) for _ in "kv")
    check(g, q, k, v)


@pytest.mark.parametrize(
    "q_shape, k_shape, v_shape, out_shape",
    [
        ((5, 8), (7, 8), (7, 4), (5, 4)),
        ((3, 5, 8), (3, 7, 8), (3, 7, 4), (3, 5, 4)),
        ((2, 2, 4, 5, 8), (2, 2, 2, 7, 8), (2, 2, 2, 7, 4), (2, 2, 4, 5, 4)),
        ((2, 3, 5, 8), (1, 3, 7, 8), (2, 3, 7, 4), (2, 3, 5, 4)),
        ((1, 3, 5, 8), (2, 3, 7, 8), (1, 3, 7, 4), (2, 3, 5, 4)),
        ((2, 6, 5, 8), (3, 7, 8), (3, 7, 4), (2, 6, 5, 4)),
        ((2, 1, 3, 5, 8), (4, 3, 7, 8), (1, 4, 3, 7, 4), (2, 4, 3, 5, 4)),
        ((0, 3, 5, 8), (1, 3, 7, 8), (3, 7, 4), (0, 3, 5, 4)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_broadcast_input_gets_the_sum(dtype, q_shape, k_shape, v_shape, out_shape):
    rng = np.random.default_rng(3)
    q, k, v, g = (normal(rng, shape, dtype) for shape in (q_shape, k_shape, v_shape, out_shape))
    check(g, q, k, v, is_causal=True)


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 70, 100), (1, 3, 70, 100), (2, 1, 70, 100), (3, 70, 100), (70, 100), (100,), (2, 1, 1, 100), (3, 1, 1), (2, 3, 1, 1)]
    + [(1,), (2, 1, 70, 1), (70, 1)],
)
@pytest.mark.parametrize("mask_dtype", ["float32", "float16"])
def test_bias_gradients_of_every_broadcast(shape, mask_dtype):
    rng = np.random.default_rng(4)
    q, g = (normal(rng, (2, 3, 70, 8), "float16") for _ in "qg")
    k, v = (normal(rng, (2, 3, 100, 8), "float16") for _ in "kv")
    check(g, q, k, v, attn_mask=normal(rng, shape, mask_dtype), is_causal=True, query_offset=20)


def test_bias_of_five_dims():
    rng = np.random.default_rng(5)
    q, k, v, g = (normal(rng, (2, 2, 3, length, 8)) for length in (6, 9, 9, 6))
    for shape in ((2, 2, 3, 6, 9), (2, 1, 3, 6, 9), (1, 2, 1, 6, 9), (4, 3, 6, 9), (4, 1, 1, 9), (3, 6, 9)):
        check(g, q, k, v, attn_mask=normal(rng, shape))


@pytest.mark.parametrize("head_dim, value_dim", [(0, 4), (4, 0), (0, 0)])
def test_no_dims(head_dim, value_dim):
    rng = np.random.default_rng(6)
    q, k, v, g = (normal(rng, (2, 3, *shape)) for shape in ((5, head_dim), (7, head_dim), (7, value_dim), (5, value_dim)))
    check(g, q, k, v, sinks=normal(rng, (3,)), attn_mask=normal(rng, (5, 7)))


@pytest.mark.parametrize("batch, heads, q_len, k_len", [(2, 3, 0, 7), (2, 3, 5, 0), (0, 3, 5, 7), (2, 0, 5, 7)])
def test_nothing_to_attend(batch, heads, q_len, k_len):
    q, g = (np.ones((batch, heads, q_len, 4), np.float32) for _ in "qg")
    k, v = (np.ones((batch, heads, k_len, 4), np.float32) for _ in "kv")
    got = backward(g, q, k, v, attn_mask=np.ones((1, 1), np.float32), sinks=np.ones(heads, np.float32))
    for gradient, shape in zip(got, (q.shape, k.shape, v.shape, (1, 1), (heads,))):
        assert gradient.shape == shape and not gradient.any()


HIDING = {
    "causal": (dict(is_causal=True, query_offset=20), slice(0, 40), slice(27, None)),
    "window": (dict(window=(3, 4), query_offset=10), slice(0, 40), np.r_[0:7, 21:40]),
    "kv_lengths": (dict(kv_lengths=[23, 23]), slice(0, 40), slice(23, None)),
    "bool mask": (dict(attn_mask=np.arange(40) % 3 != 0), slice(0, 40), slice(0, None, 3)),
    "float mask": (
        dict(attn_mask=np.where(np.arange(40) % 3 == 0, -np.inf, 0.5).astype(np.float32)),
        slice(0, 40),
        slice(0, None, 3),
    ),
}


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("how", HIDING)
def test_invisible_keys_never_matter(dtype, how, poison):
    options, _, hidden = HIDING[how]
    options = {n: o.astype(DTYPES[dtype]) if n == "attn_mask" and o.dtype != bool else o for n, o in options.items()}
    rng = np.random.default_rng(7)
    q, g = (normal(rng, (2, 4, 7, 16), dtype) for _ in "qg")
    k, v = (normal(rng, (2, 2, 40, 16), dtype) for _ in "kv")
    for extra in ({}, {"softcap": 5.0, "dropout_p": 0.3}, {"alibi_slopes": [0.1] * 4, "sinks": np.zeros(4, np.float32)}):
        expected = backward(g, q, k, v, **options, **extra)
        k2, v2 = k.copy(), v.copy()
        k2[:, :, hidden] = poison
        v2[:, :, hidden] = poison
        got = backward(g, q, k2, v2, **options, **extra)
        for a, b in zip(got, expected):
            if a is not None:
                np.testing.assert_array_equal(a, b)
        assert not got[1][:, :, hidden].any() and not got[2][:, :, hidden].any()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("which", ["query", "grad_out", "key", "value"])
def test_poison_reaches_what_sees_it(which, poison):
    """Causal, key and query 30: gradients of keys after 30 do not see the query, nor queries before 30 the key."""
    rng = np.random.default_rng(8)
    arrays = {name: normal(rng, (1, 2, 70, 16)) for name in ("grad_out", "query", "key", "value")}
    clean = backward(*arrays.values(), is_causal=True)
    arrays[which][:, :, 30, 3] = poison
    dq, dk, dv, *_ = backward(*arrays.values(), is_causal=True)
    keys, queries = slice(31, None), slice(0, 30)
    if which in ("query", "grad_out"):
        np.testing.assert_array_equal(dk[:, :, keys], clean[1][:, :, keys])
        np.testing.assert_array_equal(dv[:, :, keys], clean[2][:, :, keys])
        others = np.arange(70) != 30
        np.testing.assert_array_equal(dq[:, :, others], clean[0][:, :, others])
        assert np.isnan(dq[:, :, 30]).all() or (which, poison) == ("query", np.inf)
        assert not np.isfinite(dv[:, :, :31, 3]).any() or (which, poison) == ("query", np.inf)
    else:
        np.testing.assert_array_equal(dq[:, :, queries], clean[0][:, :, queries])
        assert not np.isfinite(dq[:, :, 30:]).any(axis=-1).all()


def test_rows_without_keys_give_nothing_whatever_they_hold():
    rng = np.random.default_rng(9)
    q, k, v, g = (normal(rng, (2, 4, 70, 16)) for _ in range(4))
    mask = np.ones((70, 70), bool)
    mask[50:] = False
    sinks = np.zeros(4, np.float32)
    for options, dead in (
        (dict(q_lengths=[50, 50]), slice(50, None)),
        (dict(attn_mask=mask), slice(50, None)),
        (dict(attn_mask=mask, sinks=sinks), slice(50, None)),
        (dict(is_causal=True, query_offset=-3), slice(0, 3)),
        (dict(is_causal=True, query_offset=-3, sinks=sinks), slice(0, 3)),
    ):
        expected = backward(g, q, k, v, **options)
        q2, g2 = q.copy(), g.copy()
        q2[:, :, dead] = np.nan
        g2[:, :, dead] = np.nan
        for a, b in zip(backward(g2, q2, k, v, **options), expected):
            if a is not None:
                assert np.isfinite(a).all()
                np.testing.assert_array_equal(a, b)
        assert not expected[0][:, :, dead].any()


@pytest.fixture
def threads():
    before = swiftattn.get_num_threads()
    yield swiftattn.set_num_threads
    swiftattn.set_num_threads(before)


def assert_same_bits(got, expected):
    for a, b in zip(got, expected):
        if a is not None:
            np.testing.assert_array_equal(np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(4))
def test_same_bits_on_any_number_of_threads(threads, dtype, seed):
    """One and several passes: with more threads than key/value heads the work is cut another way."""
    rng = np.random.default_rng([10, seed])
    grad_out, q, k, v, options = random_gradients(rng, dtype, longest=200)
    threads(1)
    expected = backward(grad_out, q, k, v, **options)
    for number in (2, 3, 64):
        threads(number)
        assert_same_bits(backward(grad_out, q, k, v, **options), expected)


def test_same_bits_of_a_large_problem_on_any_number_of_threads(threads):
    rng = np.random.default_rng(11)
    q, g = (normal(rng, (1, 6, 300, 64)) for _ in "qg")
    k, v = (normal(rng, (1, 3, 500, 64)) for _ in "kv")
    results = []
    for number in (1, 2, 3, 5):
        threads(number)
        results.append(backward(g, q, k, v, is_causal=True, query_offset=150, attn_mask=np.zeros((300, 1), np.float32)))
        assert_same_bits(results[-1], results[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_entry_alone_is_the_entry_in_its_batch(dtype):
    rng = np.random.default_rng(12)
    q, g = (normal(rng, (3, 4, 70, 24), dtype) for _ in "qg")
    k, v = (normal(rng, (3, 2, 100, 24), dtype) for _ in "kv")
    whole = backward(g, q, k, v, is_causal=True, query_offset=30)
    for b in range(3):
        alone = backward(g[b], q[b], k[b], v[b], is_causal=True, query_offset=30)
        assert_same_bits(alone, [part if part is None else part[b] for part in whole])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(6))
def test_any_layout(dtype, seed):
    rng = np.random.default_rng([13, seed])
    grad_out, q, k, v, options = random_gradients(rng, dtype)
    expected = backward(grad_out, q, k, v, **options)
    moved = {name: strided(rng, value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
    assert_same_bits(backward(*(strided(rng, x) for x in (grad_out, q, k, v)), **moved), expected)


def test_zero_strides_are_no_broadcast():
    rng = np.random.default_rng(14)
    k = np.broadcast_to(normal(rng, (1, 1, 9, 8)), (3, 2, 9, 8))
    q, g = normal(rng, (3, 4, 6, 8)), np.broadcast_to(np.float32(1), (3, 4, 6, 8))
    assert_same_bits(backward(g, q, k, k), backward(g.copy(), q, k.copy(), k.copy()))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(8))
def test_in_guarded_pages(side, dtype, seed):
    rng = np.random.default_rng([15, seed])
    grad_out, q, k, v, options = random_gradients(rng, dtype, longest=110)
    options.pop("attn_mask", None)
    options.pop("sinks", None)
    out, lse = attend(q, k, v, return_lse=True, **options)
    expected = gradients(grad_out, q, k, v, out, lse, **options)
    shut = [guarded(x, side) for x in (grad_out, q, k, v, out, lse)]
    assert_same_bits(gradients(*shut, **options), expected)
    outputs = [guarded(np.full_like(x, 7), side, writable=True) for x in expected]
    plain_options = [borrow(x, "x", True) for x in outputs]
    out, lse = attend(q, k, v, return_lse=True)
    shut = [guarded(x, side) for x in (grad_out, q, k, v, out, lse)]
    _ffi.scaled_dot_product_attention_backward(*(borrow(x, "x") for x in shut), None, *plain_options, None, None)
    assert_same_bits(outputs, gradients(grad_out, q, k, v, out, lse))


@pytest.mark.parametrize("wanted", range(8))
def test_gradients_that_are_not_wanted(wanted):
    rng = np.random.default_rng(16)
    q, k, v, g = (normal(rng, (2, 3, length, 20)) for length in (70, 100, 100, 70))
    out, lse = attend(q, k, v, return_lse=True)
    expected = gradients(g, q, k, v, out, lse)
    results = [np.full_like(x, 7) if wanted >> i & 1 else None for i, x in enumerate(expected)]
    given = [borrow(x, "x") for x in (g, q, k, v, out, lse)]
    _ffi.scaled_dot_product_attention_backward(*given, None, *(x if x is None else borrow(x, "x") for x in results), None, None)
    assert_same_bits(results, expected)


def test_a_gradient_asked_for_without_its_input():
    q = np.ones((2, 3, 4), np.float32)
    out, lse = attend(q, q, q, return_lse=True)
    for options, word in (
        (dict(bias_grad=True), "bias_grad"),
        (dict(bias_grad=True, attn_mask=np.ones((3, 3), bool)), "dbias"),
        (dict(sink_grad=True), "sink_grad"),
    ):
        with pytest.raises(ValueError, match=word):
            gradients(q, q, q, q, out, lse, **options)


@pytest.mark.parametrize("i, j", [(6, 0), (6, 1), (7, 2), (8, 3), (7, 4), (8, 5), (7, 6), (8, 6), (8, 7)])
def test_an_output_may_not_be_another_argument(i, j):
    names = ["grad_out", "query", "key", "value", "out", "lse", "dq", "dk", "dv"]
    arrays = [np.ones((2, 3, 3), np.float32) for _ in names]
    arrays[5] = arrays[i][..., 0] if j == 5 else np.ones((2, 3), np.float32)
    if j != 5:
        arrays[i] = arrays[j]
    tensors = [borrow(array, name) for array, name in zip(arrays, names)]
    with pytest.raises(ValueError, match=f"{names[min(i, j) if j > 5 else i]}: overlaps {names[max(i, j) if j > 5 else j]}"):
        _ffi.scaled_dot_product_attention_backward(*tensors[:6], None, *tensors[6:], None, None)
    assert all((array == 1).all() for array in arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True, "upper_left"])
def test_varlen_is_each_entry_by_itself(dtype, causal):
    rng = np.random.default_rng(17)
    starts_q, starts_k = [0, 5, 5, 90, 120], [0, 9, 20, 140, 150]
    q, g = (normal(rng, (120, 4, 24), dtype) for _ in "qg")
    k, v = (normal(rng, (150, 2, 24), dtype) for _ in "kv")
    sinks = normal(rng, (4,), "float64" if dtype == "float64" else "float32")
    options = dict(sinks=sinks, window=(40, None))
    out, lse = swiftattn.attention_varlen(q, k, v, starts_q, starts_k, is_causal=causal, return_lse=True, **options)
    dq, dk, dv, dsinks = swiftattn.attention_varlen_backward(
        g, q, k, v, out, lse, starts_q, starts_k, is_causal=causal, sink_grad=True, **options
    )
    sums = np.zeros(4)
    for b in range(4):
        rows, keys = slice(*starts_q[b : b + 2]), slice(*starts_k[b : b + 2])
        entry = [array[part].swapaxes(0, 1) for array, part in ((g, rows), (q, rows), (k, keys), (v, keys), (out, rows))]
        offset = 0 if causal == "upper_left" else entry[2].shape[1] - entry[1].shape[1]
        alone = gradients(
            *entry, lse[:, rows], is_causal=bool(causal), query_offset=offset, sink_grad=True, **options
        )
        assert_same_bits([dq[rows], dk[keys], dv[keys]], [part.swapaxes(0, 1) for part in alone[:3]])
        sums += alone[3]
    np.testing.assert_allclose(dsinks, sums, rtol=1e-5, atol=1e-6)


def test_varlen_dropout_counts_entries():
    rng = np.random.default_rng(18)
    q, k, v, g = (normal(rng, (40, 2, 16)) for _ in range(4))
    starts = [0, 15, 40]
    options = dict(dropout_p=0.5, seed=3)
    out, lse = swiftattn.attention_varlen(q, k, v, starts, starts, return_lse=True, **options)
    got = swiftattn.attention_varlen_backward(g, q, k, v, out, lse, starts, starts, **options)
    for b in range(2):
        rows = slice(*starts[b : b + 2])
        entry = [array[rows].swapaxes(0, 1) for array in (g, q, k, v, out)]
        wanted = reference.attention_backward(*entry, lse[:, rows], first_entry=b, **options)
        for a, w in zip(got, wanted):
            np.testing.assert_allclose(a[rows].swapaxes(0, 1), w, atol=3e-6)


@pytest.mark.once
def test_scratch_does_not_grow_with_the_square_of_the_sequence():
    """16384 queries and keys of 64 floats, one thread: less than 32 MiB beyond arguments, where the scores are 1 GiB."""
    code = """
import resource
import numpy as np, swiftattn
from swiftattn import _ffi
from swiftattn._tensor import borrow
swiftattn.set_num_threads(1)
q, k, v, g = np.random.default_rng(0).standard_normal((4, 1, 1, 16384, 64), np.float32)
out, lse = swiftattn.scaled_dot_product_attention(q, k, v, window=(100, 100), return_lse=True)
d = np.ones((3, 1, 1, 16384, 64), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
given = [borrow(x, "x") for x in (g, q, k, v, out, lse)]
_ffi.scaled_dot_product_attention_backward(*given, None, *(borrow(x, "x") for x in d), None, None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    assert int(run_python(code)) < 32 * 1024
