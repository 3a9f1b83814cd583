"""Bad input: every misuse is an exception with a message that names the argument, and touches no output.

Each row of CASES changes one thing in a call that works. The calls go to the C functions through the binding's
declarations, so that also what the Python functions cannot get wrong (NULL, struct_size, a shape of out) is tried.
"""

import ctypes

import numpy as np
import pytest

import swiftattn
from swiftattn import _ffi
from swiftattn._ffi import AttentionOptions, LinearOptions, Tensor
from swiftattn._tensor import borrow

F32, F64, F16, I32, I64 = np.float32, np.float64, np.float16, np.int32, np.int64


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


def attention_options(**fields):
    options = AttentionOptions(struct_size=ctypes.sizeof(AttentionOptions))
    for name, value in fields.items():
        setattr(options, name, ctypes.pointer(borrow(value, name)) if isinstance(value, np.ndarray) else value)
    return options


def linear_options(**fields):
    return LinearOptions(**{"struct_size": ctypes.sizeof(LinearOptions), **fields})


# A working call of each function: argument name -> value. Names that begin with `out`, lse and weights are outputs.
CALLS = {
    "scaled_dot_product_attention": dict(
        query=zeros(2, 4, 3, 8), key=zeros(2, 2, 5, 8), value=zeros(2, 2, 5, 6), options=None,
        out=zeros(2, 4, 3, 6), lse=zeros(2, 4, 3), weights=zeros(2, 4, 3, 5),
    ),
    "attention_varlen": dict(
        query=zeros(7, 4, 8), key=zeros(9, 2, 8), value=zeros(9, 2, 6), cu_seqlens_q=np.array([0, 3, 7], I32),
        cu_seqlens_k=np.array([0, 4, 9], I32), options=None, out=zeros(7, 4, 6), lse=zeros(4, 7),
    ),
    "merge_attention_states": dict(
        outs=[zeros(2, 3, 4), zeros(2, 3, 4)], lses=[zeros(2, 3), zeros(2, 3)], count=2, out=zeros(2, 3, 4), lse=zeros(2, 3)
    ),
    "alibi_slopes": dict(out=zeros(4)),
    "matmul": dict(a=zeros(3, 4), b=zeros(4, 5), precision=0, out=zeros(3, 5)),
    "linear": dict(
        x=zeros(3, 4), weight=zeros(5, 4), bias=zeros(5), residual=zeros(3, 5), options=None, out=zeros(3, 5)
    ),
    "softmax": dict(x=zeros(3, 4), axis=-1, out=zeros(3, 4)),
    "layer_norm": dict(x=zeros(3, 4), weight=zeros(4), bias=zeros(4), eps=1e-5, out=zeros(3, 4)),
    "rms_norm": dict(x=zeros(3, 4), weight=zeros(4), eps=1e-5, out=zeros(3, 4)),
    "relu": dict(x=zeros(3, 4), out=zeros(3, 4)),
    "gelu": dict(x=zeros(3, 4), approximate=0, out=zeros(3, 4)),
    "silu": dict(x=zeros(3, 4), out=zeros(3, 4)),
    "swiglu": dict(gate=zeros(3, 4), up=zeros(3, 4), out=zeros(3, 4)),
    "geglu": dict(gate=zeros(3, 4), up=zeros(3, 4), approximate=0, out=zeros(3, 4)),
    "embedding": dict(ids=np.array([0, 2], I64), table=zeros(3, 4), residual=zeros(2, 4), out=zeros(2, 4)),
    "sinusoidal_positions": dict(out=zeros(5, 4)),
}


def raw(array, **fields):
    """A tensor with fields that no array has."""
    tensor = borrow(array, "raw")
    for name, value in fields.items():
        if name in ("code", "bits", "lanes"):
            setattr(tensor.dtype, name, value)
        elif name in ("shape", "strides"):
            for axis, item in value.items():
                getattr(tensor, name)[axis] = item
        else:
            setattr(tensor, name, value)
    return tensor


SDPA, VARLEN, MERGE = "scaled_dot_product_attention", "attention_varlen", "merge_attention_states"
NAN, INF = float("nan"), float("inf")
A = attention_options

CASES = [
    # function, changed arguments, exception, word that the message must hold
    (SDPA, dict(query=None), ValueError, "query"),
    (SDPA, dict(key=None), ValueError, "key"),
    (SDPA, dict(value=None), ValueError, "value"),
    (SDPA, dict(out=None), ValueError, "out"),
    (SDPA, dict(query=raw(zeros(2, 4, 3, 8), data=None)), ValueError, "query"),
    (SDPA, dict(out=raw(zeros(2, 4, 3, 6), data=None)), ValueError, "out"),
    (SDPA, dict(query=zeros(8)), ValueError, "query"),
    (SDPA, dict(query=raw(zeros(2, 4, 3, 8), ndim=-1)), ValueError, "query"),
    (SDPA, dict(query=raw(zeros(2, 4, 3, 8), ndim=9)), ValueError, "query"),
    (SDPA, dict(key=raw(zeros(2, 2, 5, 8), shape={2: -5})), ValueError, "key"),
    (SDPA, dict(key=zeros(2, 2, 5, 7)), ValueError, "key: head_dim is 7, query has 8"),
    (SDPA, dict(value=zeros(2, 2, 4, 6)), ValueError, "value"),
    (SDPA, dict(value=zeros(2, 4, 5, 6)), ValueError, "value"),
    (SDPA, dict(key=zeros(2, 3, 5, 8), value=zeros(2, 3, 5, 6)), ValueError, "head"),
    (SDPA, dict(key=zeros(2, 0, 5, 8), value=zeros(2, 0, 5, 6)), ValueError, "head"),
    (SDPA, dict(key=zeros(3, 2, 5, 8)), ValueError, "key"),
    (SDPA, dict(out=zeros(2, 4, 3, 8)), ValueError, "out"),
    (SDPA, dict(out=zeros(4, 3, 6)), ValueError, "out"),
    (SDPA, dict(lse=zeros(2, 4, 5)), ValueError, "lse"),
    (SDPA, dict(weights=zeros(2, 4, 3, 6)), ValueError, "weights"),
    (SDPA, dict(query=zeros(2, 4, 3, 8, dtype=I32)), TypeError, "query"),
    (SDPA, dict(key=zeros(2, 2, 5, 8, dtype=F64)), TypeError, "key"),
    (SDPA, dict(value=zeros(2, 2, 5, 6, dtype=F16)), TypeError, "value"),
    (SDPA, dict(out=zeros(2, 4, 3, 6, dtype=F64)), TypeError, "out"),
    (SDPA, dict(lse=zeros(2, 4, 3, dtype=F64)), TypeError, "lse"),
    (SDPA, dict(weights=zeros(2, 4, 3, 5, dtype=F16)), TypeError, "weights"),
    (SDPA, dict(query=raw(zeros(2, 4, 3, 8), code=77)), TypeError, "query"),
    (SDPA, dict(query=raw(zeros(2, 4, 3, 8), bits=24)), TypeError, "query"),
    (SDPA, dict(query=raw(zeros(2, 4, 3, 8), lanes=4)), TypeError, "query"),
    (SDPA, dict(query=raw(zeros(2, 4, 3, 8), byte_offset=2)), ValueError, "query"),
    (SDPA, dict(out=raw(zeros(2, 4, 3, 6), strides={2: 0})), ValueError, "out"),
    (SDPA, dict(query=raw(zeros(2, 4, 3, 8), shape={0: 2**62}, strides={0: 2**62})), ValueError, "query"),
    (SDPA, dict(options=A(struct_size=0)), ValueError, "struct_size"),
    (SDPA, dict(options=A(struct_size=3)), ValueError, "struct_size"),
    (SDPA, dict(options=A(struct_size=2**31)), ValueError, "struct_size"),
    (SDPA, dict(options=A(reserved=1)), ValueError, "reserved"),
    (SDPA, dict(options=A(flags=2**31)), ValueError, "flags"),
    (SDPA, dict(options=A(flags=1, scale=NAN)), ValueError, "scale"),
    (SDPA, dict(options=A(flags=1, scale=INF)), ValueError, "scale"),
    (SDPA, dict(options=A(softcap=-1.0)), ValueError, "softcap"),
    (SDPA, dict(options=A(softcap=NAN)), ValueError, "softcap"),
    (SDPA, dict(options=A(softcap=INF)), ValueError, "softcap"),
    (SDPA, dict(options=A(causal=3)), ValueError, "causal"),
    (SDPA, dict(options=A(causal=-1)), ValueError, "causal"),
    (SDPA, dict(options=A(precision=3)), ValueError, "precision"),
    (SDPA, dict(options=A(weights_stage=4)), ValueError, "weights_stage"),
    (SDPA, dict(options=A(flags=4, window_left=-2)), ValueError, "window_left"),
    (SDPA, dict(options=A(flags=8, window_right=-2)), ValueError, "window_right"),
    (SDPA, dict(options=A(dropout_p=1.0)), ValueError, "dropout_p"),
    (SDPA, dict(options=A(dropout_p=-0.1)), ValueError, "dropout_p"),
    (SDPA, dict(options=A(dropout_p=NAN)), ValueError, "dropout_p"),
    (SDPA, dict(options=A(query_offsets=zeros(3, dtype=I32))), ValueError, "query_offsets"),
    (SDPA, dict(options=A(query_offsets=zeros(2))), TypeError, "query_offsets"),
    (SDPA, dict(options=A(flags=2, query_offsets=zeros(2, dtype=I32))), ValueError, "query_offset"),
    (SDPA, dict(options=A(attn_mask=zeros(3, 4))), ValueError, "attn_mask"),
    (SDPA, dict(options=A(attn_mask=zeros(1, 1, 1, 1, 1, 3, 5))), ValueError, "attn_mask"),
    (SDPA, dict(options=A(attn_mask=zeros(3, 5, dtype=F64))), TypeError, "attn_mask"),
    (SDPA, dict(options=A(attn_mask=zeros(3, 5, dtype=I32))), TypeError, "attn_mask"),
    (SDPA, dict(options=A(alibi_slopes=zeros(2))), ValueError, "alibi_slopes"),
    (SDPA, dict(options=A(alibi_slopes=zeros(4, dtype=F64))), TypeError, "alibi_slopes"),
    (SDPA, dict(options=A(sinks=zeros(4, 1))), ValueError, "sinks"),
    (SDPA, dict(options=A(sinks=zeros(4, dtype=F16))), TypeError, "sinks"),
    (SDPA, dict(options=A(q_lengths=np.array([3, 4], I32))), ValueError, "q_lengths"),
    (SDPA, dict(options=A(kv_lengths=np.array([-1, 4], I64))), ValueError, "kv_lengths"),
    (SDPA, dict(options=A(kv_lengths=np.array([6, 4], I64))), ValueError, "kv_lengths"),
    (SDPA, dict(options=A(kv_lengths=zeros(1, dtype=I32))), ValueError, "kv_lengths"),
    (SDPA, dict(options=A(kv_lengths=zeros(2))), TypeError, "kv_lengths"),
    (VARLEN, dict(query=zeros(1, 7, 4, 8)), ValueError, "query"),
    (VARLEN, dict(key=zeros(9, 3, 8), value=zeros(9, 3, 6)), ValueError, "head"),
    (VARLEN, dict(value=zeros(8, 2, 6)), ValueError, "value"),
    (VARLEN, dict(cu_seqlens_q=None), ValueError, "cu_seqlens_q"),
    (VARLEN, dict(cu_seqlens_q=np.array([1, 3, 7], I32)), ValueError, "cu_seqlens_q"),
    (VARLEN, dict(cu_seqlens_q=np.array([0, 3, 6], I32)), ValueError, "cu_seqlens_q"),
    (VARLEN, dict(cu_seqlens_q=np.array([0, 8, 7], I32)), ValueError, "cu_seqlens_q"),
    (VARLEN, dict(cu_seqlens_k=np.array([0, 10, 9], I64)), ValueError, "cu_seqlens_k"),
    (VARLEN, dict(cu_seqlens_k=np.array([0, 9], I32)), ValueError, "cu_seqlens_k"),
    (VARLEN, dict(cu_seqlens_k=np.zeros(0, I32)), ValueError, "cu_seqlens_k"),
    (VARLEN, dict(cu_seqlens_k=zeros(3)), TypeError, "cu_seqlens_k"),
    (VARLEN, dict(lse=zeros(7, 4)), ValueError, "lse"),
    (VARLEN, dict(options=A(attn_mask=zeros(1))), ValueError, "attn_mask"),
    (VARLEN, dict(options=A(kv_lengths=zeros(2, dtype=I32))), ValueError, "kv_lengths"),
    (VARLEN, dict(options=A(query_offsets=zeros(3, dtype=I32))), ValueError, "query_offsets"),
    (MERGE, dict(count=0), ValueError, "count"),
    (MERGE, dict(count=-1), ValueError, "count"),
    (MERGE, dict(outs=None), ValueError, "outs"),
    (MERGE, dict(lses=None), ValueError, "lses"),
    (MERGE, dict(outs=[zeros(2, 3, 4), zeros(2, 3, 5)]), ValueError, r"outs\[1\]"),
    (MERGE, dict(outs=[zeros(2, 3, 4), zeros(2, 3, 4, dtype=F16)]), TypeError, r"outs\[1\]"),
    (MERGE, dict(lses=[zeros(2, 4), zeros(2, 3)]), ValueError, r"lses\[0\]"),
    (MERGE, dict(lses=[zeros(2, 3), zeros(2, 3, dtype=F64)]), TypeError, r"lses\[1\]"),
    (MERGE, dict(out=zeros(2, 3, 5)), ValueError, "out"),
    ("alibi_slopes", dict(out=zeros(2, 2)), ValueError, "out"),
    ("alibi_slopes", dict(out=zeros(4, dtype=F16)), TypeError, "out"),
    ("matmul", dict(b=zeros(5, 4)), ValueError, "b"),
    ("matmul", dict(a=zeros()), ValueError, "a"),
    ("matmul", dict(a=zeros(2, 3, 4), b=zeros(3, 4, 5), out=zeros(3, 3, 5)), ValueError, "b"),
    ("matmul", dict(b=zeros(4, 5, dtype=F64)), TypeError, "b"),
    ("matmul", dict(out=zeros(3, 4)), ValueError, "out"),
    ("matmul", dict(precision=9), ValueError, "precision"),
    ("linear", dict(weight=zeros(4, 5)), ValueError, "weight"),
    ("linear", dict(weight=zeros(5)), ValueError, "weight"),
    ("linear", dict(bias=zeros(4)), ValueError, "bias"),
    ("linear", dict(bias=zeros(5, dtype=F64)), TypeError, "bias"),
    ("linear", dict(residual=zeros(2, 5)), ValueError, "residual"),
    ("linear", dict(options=linear_options(struct_size=1)), ValueError, "struct_size"),
    ("linear", dict(options=linear_options(activation=5)), ValueError, "activation"),
    ("linear", dict(options=linear_options(precision=-1)), ValueError, "precision"),
    ("softmax", dict(axis=2), ValueError, "axis"),
    ("softmax", dict(axis=-3), ValueError, "axis"),
    ("softmax", dict(x=zeros(3, 4, dtype=I64)), TypeError, "x"),
    ("softmax", dict(out=zeros(4, 3)), ValueError, "out"),
    ("layer_norm", dict(weight=zeros(3)), ValueError, "weight"),
    ("layer_norm", dict(bias=zeros(1, 4)), ValueError, "bias"),
    ("layer_norm", dict(weight=zeros(4, dtype=F16)), TypeError, "weight"),
    ("layer_norm", dict(eps=-1.0), ValueError, "eps"),
    ("layer_norm", dict(eps=NAN), ValueError, "eps"),
    ("rms_norm", dict(eps=INF), ValueError, "eps"),
    ("rms_norm", dict(x=zeros()), ValueError, "x"),
    ("relu", dict(out=zeros(12)), ValueError, "out"),
    ("gelu", dict(approximate=2), ValueError, "approximate"),
    ("silu", dict(x=None), ValueError, "x"),
    ("swiglu", dict(up=zeros(3, 5)), ValueError, "up"),
    ("geglu", dict(up=zeros(3, 4, dtype=F64)), TypeError, "up"),
    ("embedding", dict(ids=np.array([0, 3])), ValueError, "ids"),
    ("embedding", dict(ids=np.array([-1, 0])), ValueError, "ids"),
    ("embedding", dict(ids=zeros(2)), TypeError, "ids"),
    ("embedding", dict(table=zeros(4)), ValueError, "table"),
    ("embedding", dict(residual=zeros(3, 4)), ValueError, "residual"),
    ("sinusoidal_positions", dict(out=zeros(5)), ValueError, "out"),
    ("sinusoidal_positions", dict(out=zeros(5, 4, dtype=I32)), TypeError, "out"),
]

OUTPUTS = ("out", "lse", "weights")
PATTERN = 0x5A


def call(function, arguments):
    """Calls a C function and returns the output buffers it was given, filled with PATTERN before."""
    buffers, values = [], []
    for name, value in arguments.items():
        if name in OUTPUTS and isinstance(value, np.ndarray):
            value = np.full_like(value, 0)
            value.view(np.uint8).fill(PATTERN)
            buffers.append(value)
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
    assert error is None and not any((buffer.view(np.uint8) == PATTERN).all() for buffer in buffers)


@pytest.mark.parametrize("function, changes, exception, word", CASES, ids=[f"{i} {c[0]} {list(c[1])[0]}" for i, c in enumerate(CASES)])
def test_bad_input(function, changes, exception, word):
    error, buffers = call(function, {**CALLS[function], **changes})
    assert type(error) is exception, f"{type(error).__name__}: {error}"
    message = str(error)
    assert message and "\n" not in message
    pytest.raises(exception, _raise, error).match(word)
    for buffer in buffers:
        assert (buffer.view(np.uint8) == PATTERN).all(), "an output was touched"


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
    yield "embedding", {**CALLS["embedding"], "table": at(0, 3, 4), "out": at(8, 2, 4)}


@pytest.mark.parametrize("function, arguments", overlapping())
def test_overlap_is_an_error(function, arguments):
    values = [
        borrow(value, name) if isinstance(value, np.ndarray)
        else (Tensor * len(value))(*(borrow(item, name) for item in value)) if isinstance(value, list) else value
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


@pytest.mark.parametrize("function", ["softmax", "layer_norm", "rms_norm", "relu", "gelu", "silu", "swiglu", "geglu", "linear", "embedding", MERGE])
def test_what_works_in_place(function):
    rng = np.random.default_rng(1)

    def fresh():
        arguments = {
            name: rng.standard_normal(value.shape).astype(F32) if isinstance(value, np.ndarray) and value.dtype == F32
            else [rng.standard_normal(item.shape).astype(F32) for item in value] if isinstance(value, list) else value
            for name, value in CALLS[function].items()
        }
        return arguments

    def run(arguments):
        getattr(_ffi, function)(*(
            borrow(value, name) if isinstance(value, np.ndarray)
            else (Tensor * len(value))(*(borrow(item, name) for item in value)) if isinstance(value, list) else value
            for name, value in arguments.items()
        ))

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


def test_impossible_memory_is_a_memory_error():
    x = np.broadcast_to(np.float32(0), (2**20, 2**30))
    with pytest.raises(MemoryError):
        swiftattn.silu(x)


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
    (lambda: swiftattn.scaled_dot_product_attention(Q, Q, Q, kv_lengths=np.array([2**63], np.uint64)), ValueError, "kv_lengths"),
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
    (lambda: swiftattn.scaled_dot_product_attention(Q.reshape((1,) * 6 + (2, 3, 8)), Q, Q), ValueError, "query"),
    (lambda: swiftattn.scaled_dot_product_attention(zeros(2, 3, 4), Q, Q), ValueError, "key: head_dim is 8, query has 4"),
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
