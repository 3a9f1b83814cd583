"""Bad input: every misuse is an exception with a message that names the argument, and touches no output."""

import numpy as np
import pytest
import swiftattn
from bad_calls import CALLS, CASES, F32, I32, MERGE, NAN, SDPA, VARLEN, A, zeros
from swiftattn import _ffi
from swiftattn._ffi import Tensor
from swiftattn._tensor import borrow

OUTPUTS = (
    *("out", "lse", "weights", "out_cos", "out_sin"),
    *"dq dk dv dbias dsinks dx dweight dgate dup dtable dquery dkey dvalue dw_query dw_key dv_score".split(),
)
PATTERN = 0x5A


def call(function, arguments):
    """Calls a C function and returns the output buffers it was given, filled with PATTERN before."""
    buffers, values = [], []
    for name, value in arguments.items():
        if name in OUTPUTS and isinstance(value, np.ndarray):
            value = np.full_like(value, 0)
            buffers.append(value.reshape(-1).view(np.uint8))
            buffers[-1].fill(PATTERN)
        if isinstance(value, np.ndarray):
            value = borrow(value, name)
        elif isinstance(value, list):
            value = (Tensor * len(value))(*(borrow(item, name) for item in value))
        values.append(value)
    error = None
    try:
        getattr(_ffi, function)(*values)
    except Exception as caught:
        error = caught
    return error, buffers


@pytest.mark.parametrize("function", CALLS)
def test_the_unchanged_call_works(function):
    error, buffers = call(function, CALLS[function])
    assert error is None and not any((buffer == PATTERN).all() for buffer in buffers)


@pytest.mark.parametrize(
    "function, changes, exception, word", CASES, ids=[f"{i} {c[0]} {list(c[1])[0]}" for i, c in enumerate(CASES)]
)
def test_bad_input(function, changes, exception, word):
    error, buffers = call(function, {**CALLS[function], **changes})
    assert type(error) is exception, f"{type(error).__name__}: {error}"
    message = str(error)
    assert message and "\n" not in message
    pytest.raises(exception, _raise, error).match(word)
    for buffer in buffers:
        assert (buffer == PATTERN).all(), "an output was touched"


def _raise(error):
    raise error


def test_there_are_at_least_sixty():
    assert len(CASES) >= 60


def overlapping():
    """Calls whose output overlaps an input or another output."""
    memory = np.zeros(4096, F32)

    def at(start, *shape):
        return memory[start : start + int(np.prod(shape))].reshape(shape)

    attention = CALLS[SDPA]
    yield SDPA, {**attention, "query": at(0, 2, 4, 3, 8), "out": at(100, 2, 4, 3, 6)}
    yield SDPA, {**attention, "key": at(0, 2, 2, 5, 8), "out": at(159, 2, 4, 3, 6)}
    yield SDPA, {**attention, "value": at(100, 2, 2, 5, 6), "out": at(0, 2, 4, 3, 6)}
    yield SDPA, {**attention, "lse": at(0, 2, 4, 3), "out": at(23, 2, 4, 3, 6)}
    yield SDPA, {**attention, "weights": at(0, 2, 4, 3, 5), "lse": at(119, 2, 4, 3)}
    yield SDPA, {**attention, "options": A(attn_mask=at(0, 3, 5)), "out": at(14, 2, 4, 3, 6)}
    yield SDPA, {**attention, "options": A(sinks=at(0, 4)), "out": at(3, 2, 4, 3, 6)}
    yield VARLEN, {**CALLS[VARLEN], "query": at(0, 7, 4, 8), "out": at(223, 7, 4, 6)}
    yield MERGE, {**CALLS[MERGE], "outs": [at(0, 2, 3, 4), at(24, 2, 3, 4)], "out": at(1, 2, 3, 4)}
    yield "matmul", {**CALLS["matmul"], "a": at(0, 3, 4), "out": at(11, 3, 5)}
    yield "linear", {**CALLS["linear"], "x": at(0, 3, 4), "out": at(0, 3, 5)}
    yield "linear", {**CALLS["linear"], "residual": at(0, 3, 5), "out": at(1, 3, 5)}
    yield "softmax", {**CALLS["softmax"], "x": at(0, 3, 4), "out": at(4, 3, 4)}
    yield "layer_norm", {**CALLS["layer_norm"], "weight": at(0, 4), "out": at(3, 3, 4)}
    yield "rms_norm", {**CALLS["rms_norm"], "x": at(0, 3, 4), "out": at(1, 3, 4)}
    yield "silu", {**CALLS["silu"], "x": at(0, 3, 4), "out": at(1, 3, 4)}
    yield "sample", {**CALLS["sample"], "logits": at(0, 1, 1, 5), "out": at(4, 2).view(np.int64).reshape(1, 1)}
    yield "cross_entropy", {**CALLS["cross_entropy"], "logits": at(0, 2, 3, 5), "out": at(7, 1).reshape(())}
    yield "cross_entropy_backward", {**CALLS["cross_entropy_backward"], "logits": at(0, 2, 3, 5), "out": at(1, 2, 3, 5)}
    for name, first, second in (
        ("additive_attention", "query", "out"),
        ("additive_attention", "out", "weights"),
        ("additive_attention_backward", "grad_out", "dkey"),
        ("additive_attention_backward", "dw_key", "dw_query"),
        ("dropout", "x", "out"),
        ("linear_backward", "x", "dx"),
        ("linear_backward", "dbias", "dweight"),
        ("softmax_backward", "y", "dx"),
        ("layer_norm_backward", "x", "dx"),
        ("layer_norm_backward", "dweight", "dbias"),
        ("rms_norm_backward", "grad_out", "dweight"),
        ("gelu_backward", "grad_out", "dx"),
        ("swiglu_backward", "dgate", "dup"),
        ("embedding_backward", "grad_out", "dtable"),
    ):
        shapes = CALLS[name][first].shape, CALLS[name][second].shape
        yield name, {**CALLS[name], first: at(0, *shapes[0]), second: at(1, *shapes[1])}
    rotary = CALLS["rotary_embedding"]
    yield "rotary_tables", {**CALLS["rotary_tables"], "out_cos": at(0, 5, 2), "out_sin": at(9, 5, 2)}
    yield "rotary_embedding", {**rotary, "x": at(0, 2, 3, 6), "out": at(1, 2, 3, 6)}
    yield "rotary_embedding", {**rotary, "sin": at(0, 4, 2), "out": at(7, 2, 3, 6)}
    yield "embedding", {**CALLS["embedding"], "table": at(0, 3, 4), "out": at(8, 2, 4)}


@pytest.mark.parametrize("function, arguments", list(overlapping()))
def test_overlap_is_an_error(function, arguments):
    values = [
        (
            borrow(value, name)
            if isinstance(value, np.ndarray)
            else (Tensor * len(value))(*(borrow(item, name) for item in value))
            if isinstance(value, list)
            else value
        )
        for name, value in arguments.items()
    ]
    with pytest.raises(ValueError, match="overlap"):
        getattr(_ffi, function)(*values)


def test_interleaved_arrays_do_not_overlap():
    """Two heads' rows side by side share an address range, but no element."""
    rows = np.random.default_rng(0).standard_normal((5, 16)).astype(F32)
    query = rows[:, :8]
    expected = swiftattn.scaled_dot_product_attention(query.copy(), query.copy(), query.copy())
    try:
        swiftattn.scaled_dot_product_attention(query, query.copy(), query.copy(), out=rows[:, 8:])
    except ValueError as error:  # a library may judge by address ranges, but then it must say so
        assert "overlap" in str(error)
    else:
        np.testing.assert_array_equal(rows[:, 8:], expected)


@pytest.mark.parametrize(
    "function",
    [
        "softmax",
        "layer_norm",
        "rms_norm",
        "relu",
        "gelu",
        "silu",
        "swiglu",
        "geglu",
        "linear",
        "embedding",
        "rotary_embedding",
        MERGE,
    ],
)
def test_what_works_in_place(function):
    rng = np.random.default_rng(1)

    def fresh():
        arguments = {
            name: (
                rng.standard_normal(value.shape).astype(F32)
                if isinstance(value, np.ndarray) and value.dtype == F32
                else (
                    [rng.standard_normal(item.shape).astype(F32) for item in value]
                    if isinstance(value, list)
                    else value
                )
            )
            for name, value in CALLS[function].items()
        }
        return arguments

    def run(arguments):
        getattr(_ffi, function)(
            *(
                (
                    borrow(value, name)
                    if isinstance(value, np.ndarray)
                    else (
                        (Tensor * len(value))(*(borrow(item, name) for item in value))
                        if isinstance(value, list)
                        else value
                    )
                )
                for name, value in arguments.items()
            )
        )

    arguments = fresh()
    run(arguments)
    expected = [arguments[name].copy() for name in OUTPUTS if name in arguments]
    if function == MERGE:
        shared = {"out": arguments["outs"][1], "lse": arguments["lses"][1]}
    else:
        source = {"linear": "residual", "embedding": "residual", "swiglu": "up", "geglu": "gate"}.get(function, "x")
        shared = {"out": arguments[source]}
    arguments.update(shared)
    run(arguments)
    for name, wanted in zip((name for name in OUTPUTS if name in arguments), expected):
        np.testing.assert_array_equal(arguments[name], wanted)


def test_last_error_stays_until_the_next_failure():
    with pytest.raises(ValueError) as caught:
        swiftattn.softmax(zeros(2, 3), axis=7)
    swiftattn.softmax(zeros(2, 3))
    assert _ffi.last_error().decode() == str(caught.value)


def repeated(value, *shape):
    """An array of any size in the memory of one element."""
    return np.broadcast_to(value, shape)


NOTHING = np.zeros((0, 1, 8), F32)
IMPOSSIBLE = {
    "result": lambda: swiftattn.silu(repeated(F32(0), 2**20, 2**30)),
    "head dim": lambda: swiftattn.scaled_dot_product_attention(
        *[repeated(F32(1), 1, 1, 1, 2**40)] * 2, repeated(F32(1), 1, 1, 1, 8)
    ),
    "entries": lambda: swiftattn.attention_varlen(*[NOTHING] * 3, *[repeated(I32(0), 2**44)] * 2),
    "lengths": lambda: swiftattn.scaled_dot_product_attention(
        *[repeated(F32(1), 2**44, 1, 0, 8)] * 3, kv_lengths=repeated(I32(0), 2**44)
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_sizes_are_a_memory_error(what):
    with pytest.raises(MemoryError):
        IMPOSSIBLE[what]()


Q = zeros(2, 3, 8)
PYTHON_CASES = [
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, is_causal="lower"), ValueError, "is_causal"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, is_causal=Q), TypeError, "is_causal"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, precision="low"), ValueError, "precision"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, return_weights="raw"), ValueError, "return_weights"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, scale="big"), TypeError, "scale"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, scale=10**400), ValueError, "scale"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, window=3), TypeError, "window"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, window=(1.5, 2)), TypeError, "window"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, window=(-2, 2)), ValueError, "window_left"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, query_offset=1.5), TypeError, "query_offset"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, query_offset=2**63), ValueError, "query_offset"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, seed=-1, dropout_p=0.5), ValueError, "seed"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, seed=2**64, dropout_p=0.5), ValueError, "seed"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, kv_lengths=[0.5]), TypeError, "kv_lengths"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, kv_lengths=["a"]), TypeError, "kv_lengths"),
    (
        lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, kv_lengths=np.array([2**63], np.uint64)),
        ValueError,
        "kv_lengths",
    ),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, sinks=["a", "b"]), TypeError, "sinks"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, out=[0.0]), TypeError, "out"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, out=np.broadcast_to(Q[:1], Q.shape)), ValueError, "out"),
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, out=Q), ValueError, "overlap"),
    (lambda: swiftattn.scaled_dot_product_attention(None, Q, Q), TypeError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention("abc", Q, Q), TypeError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention([[1.0], [2.0, 3.0]], Q, Q), ValueError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention(Q.astype(complex), Q, Q), TypeError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention(Q.astype(">f4"), Q, Q), TypeError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention(Q.astype(object), Q, Q), TypeError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention(np.zeros((2, 3, 8), "V0"), Q, Q), TypeError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention(np.zeros((2, 3, 8), "U3"), Q, Q), TypeError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention(Q.reshape((1,) * 6 + (2, 3, 8)), Q, Q), ValueError, "query"),
    (
        lambda: swiftattn.scaled_dot_product_attention(zeros(2, 3, 4), Q, Q),
        ValueError,
        "key: head_dim is 8, query has 4",
    ),
    (lambda: swiftattn.scaled_dot_product_attention(zeros(8), Q, Q), ValueError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention(zeros(), zeros(), zeros()), ValueError, "query"),
    (lambda: swiftattn.attention_varlen(zeros(2), zeros(2), zeros(2), [0, 2], [0, 2]), ValueError, "query"),
    (lambda: swiftattn.attention_varlen(Q, Q, Q, [0, "a"], [0, 2]), TypeError, "cu_seqlens_q"),
    (lambda: swiftattn.attention_varlen(Q, Q, Q, [], [0, 2]), ValueError, "cu_seqlens_q"),
    (lambda: swiftattn.merge_attention_states([], []), ValueError, "outs"),
    (lambda: swiftattn.merge_attention_states([Q], []), ValueError, "lses"),
    (lambda: swiftattn.merge_attention_states(None, [Q]), TypeError, "outs"),
    (lambda: swiftattn.linear(Q, zeros(4, 8), activation="tanh"), ValueError, "activation"),
    (lambda: swiftattn.linear(zeros(), zeros(4, 8)), ValueError, "x"),
    (lambda: swiftattn.matmul(zeros(2, 3), zeros()), ValueError, "b"),
    (lambda: swiftattn.gelu(Q, approximate="erf"), ValueError, "approximate"),
    (lambda: swiftattn.softmax(Q, axis=1.0), TypeError, "axis"),
    (lambda: swiftattn.softmax(Q, axis=2**70), ValueError, "axis"),
    (lambda: swiftattn.softmax([1, 2, 3]), TypeError, "x"),
    (lambda: swiftattn.softmax(zeros()), ValueError, "axis|x"),
    (lambda: swiftattn.layer_norm(Q, eps="a"), TypeError, "eps"),
    (lambda: swiftattn.sinusoidal_positions(-1, 4), ValueError, "length"),
    (lambda: swiftattn.sinusoidal_positions(4, 1.5), TypeError, "dim"),
    (lambda: swiftattn.alibi_slopes(-1), ValueError, "heads"),
    (lambda: swiftattn.set_num_threads(-1), ValueError, "threads"),
    (lambda: swiftattn.set_num_threads(1025), ValueError, "threads"),
    (lambda: swiftattn.set_num_threads(2**40), ValueError, "threads"),
    (lambda: swiftattn.set_num_threads("2"), TypeError, "threads"),
]


@pytest.mark.parametrize("number", range(len(PYTHON_CASES)))
def test_bad_input_to_the_python_functions(number):
    function, exception, word = PYTHON_CASES[number]
    with pytest.raises(exception, match=word) as caught:
        function()
    assert caught.type is exception


def test_a_failure_leaves_out_untouched():
    out = np.full((2, 3, 8), 7, F32)
    for options in (dict(scale=NAN), dict(kv_lengths=[4]), dict(attn_mask=zeros(4, 4)), dict(dropout_p=1.0)):
        with pytest.raises(ValueError):
            swiftattn.scaled_dot_product_attention(Q, Q, Q, out=out, **options)
    assert (out == 7).all()
