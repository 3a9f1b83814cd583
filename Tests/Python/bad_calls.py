"""The table of bad calls: a working call of every C function, and what is wrong with it when one thing changes.

The calls go to the C functions through the binding's declarations, so that also what the Python functions cannot get
wrong (NULL, struct_size, a shape of out) is tried.
"""

import ctypes

import numpy as np
from swiftattn._ffi import AttentionOptions, CrossEntropyOptions, LinearOptions, RotaryOptions, SamplingOptions
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


def sampling_options(**fields):
    options = SamplingOptions(struct_size=ctypes.sizeof(SamplingOptions))
    for name, value in fields.items():
        setattr(options, name, ctypes.pointer(borrow(value, name)) if isinstance(value, np.ndarray) else value)
    return options


def cross_entropy_options(**fields):
    return CrossEntropyOptions(**{"struct_size": ctypes.sizeof(CrossEntropyOptions), **fields})


def rotary_options(**fields):
    return RotaryOptions(**{"struct_size": ctypes.sizeof(RotaryOptions), **fields})


# A working call of each function: argument name -> value. Names that begin with `out`, lse and weights are outputs.
CALLS = {
    "scaled_dot_product_attention": dict(
        query=zeros(2, 4, 3, 8),
        key=zeros(2, 2, 5, 8),
        value=zeros(2, 2, 5, 6),
        options=None,
        out=zeros(2, 4, 3, 6),
        lse=zeros(2, 4, 3),
        weights=zeros(2, 4, 3, 5),
    ),
    "attention_varlen": dict(
        query=zeros(7, 4, 8),
        key=zeros(9, 2, 8),
        value=zeros(9, 2, 6),
        cu_seqlens_q=np.array([0, 3, 7], I32),
        cu_seqlens_k=np.array([0, 4, 9], I32),
        options=None,
        out=zeros(7, 4, 6),
        lse=zeros(4, 7),
    ),
    "attention_paged": dict(
        query=zeros(2, 4, 3, 8),
        key_cache=zeros(6, 4, 2, 8),
        value_cache=zeros(6, 4, 2, 5),
        block_table=np.array([[0, 1, 2], [3, 4, 5]], I32),
        kv_lengths=np.array([9, 4], I32),
        options=None,
        out=zeros(2, 4, 3, 5),
        lse=zeros(2, 4, 3),
        weights=zeros(2, 4, 3, 12),
    ),
    "merge_attention_states": dict(
        outs=[zeros(2, 3, 4), zeros(2, 3, 4)],
        lses=[zeros(2, 3), zeros(2, 3)],
        count=2,
        out=zeros(2, 3, 4),
        lse=zeros(2, 3),
    ),
    "alibi_slopes": dict(out=zeros(4)),
    "scaled_dot_product_attention_backward": dict(
        grad_out=zeros(2, 4, 3, 6),
        query=zeros(2, 4, 3, 8),
        key=zeros(2, 2, 5, 8),
        value=zeros(2, 2, 5, 6),
        given_out=zeros(2, 4, 3, 6),
        given_lse=zeros(2, 4, 3),
        options=attention_options(attn_mask=zeros(3, 5), sinks=zeros(4)),
        dq=zeros(2, 4, 3, 8),
        dk=zeros(2, 2, 5, 8),
        dv=zeros(2, 2, 5, 6),
        dbias=zeros(3, 5),
        dsinks=zeros(4),
    ),
    "attention_varlen_backward": dict(
        grad_out=zeros(7, 4, 6),
        query=zeros(7, 4, 8),
        key=zeros(9, 2, 8),
        value=zeros(9, 2, 6),
        given_out=zeros(7, 4, 6),
        given_lse=zeros(4, 7),
        cu_seqlens_q=np.array([0, 3, 7], I32),
        cu_seqlens_k=np.array([0, 4, 9], I32),
        options=attention_options(sinks=zeros(4)),
        dq=zeros(7, 4, 8),
        dk=zeros(9, 2, 8),
        dv=zeros(9, 2, 6),
        dsinks=zeros(4),
    ),
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
    "sample": dict(logits=zeros(2, 3, 5), options=None, out=zeros(2, 3, dtype=I64)),
    "sampling_distribution": dict(logits=zeros(2, 3, 5), options=None, out=zeros(2, 3, 5)),
    "cross_entropy": dict(logits=zeros(2, 3, 5), targets=np.array([[0, 4, -100]] * 2), options=None, out=zeros()),
    "cross_entropy_backward": dict(
        grad_loss=1.0,
        logits=zeros(2, 3, 5),
        targets=np.array([[0, 4, -100]] * 2),
        options=None,
        loss=None,
        out=zeros(2, 3, 5),
    ),
    "rotary_tables": dict(options=None, out_cos=zeros(5, 2), out_sin=zeros(5, 2)),
    "rotary_embedding": dict(
        x=zeros(2, 3, 6),
        cos=zeros(4, 2),
        sin=zeros(4, 2),
        position_ids=np.array([0, 3, 1]),
        pairing=0,
        out=zeros(2, 3, 6),
    ),
    "rotary_embedding_backward": dict(
        x=zeros(2, 3, 6), cos=zeros(4, 2), sin=zeros(4, 2), position_ids=None, pairing=1, out=zeros(2, 3, 6)
    ),
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
PAGED = "attention_paged"
SDPA_BACKWARD, VARLEN_BACKWARD = "scaled_dot_product_attention_backward", "attention_varlen_backward"
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
    (PAGED, dict(query=zeros(4, 3, 8)), ValueError, "query: rank is 3, expected 4"),
    (PAGED, dict(query=zeros(2, 4, 3, 7)), ValueError, "key_cache: head_dim is 8, query has 7"),
    (PAGED, dict(query=zeros(2, 3, 3, 8)), ValueError, "key_cache: heads are 2, expected a divisor of the query's 3"),
    (PAGED, dict(query=zeros(2, 4, 3, 8, dtype=F64)), TypeError, "key_cache: dtype is float32, query has float64"),
    (PAGED, dict(key_cache=zeros(6, 4, 2, 8, dtype=np.int8)), TypeError, "key_cache: dtype is int8"),
    (PAGED, dict(key_cache=None), ValueError, "key_cache"),
    (PAGED, dict(value_cache=zeros(6, 4, 1, 5)), ValueError, "value_cache"),
    (PAGED, dict(value_cache=zeros(6, 4, 2, 5, dtype=F16)), TypeError, "value_cache: dtype is float16, key_cache has"),
    (PAGED, dict(block_table=zeros(2, 3)), TypeError, "block_table: dtype is float32"),
    (PAGED, dict(block_table=zeros(3, 3, dtype=I32)), ValueError, r"block_table: shape is \(3, 3\), expected \(2, 3\)"),
    (PAGED, dict(block_table=zeros(2, dtype=I32)), ValueError, "block_table: rank is 1"),
    (PAGED, dict(block_table=np.array([[0, 1, 2], [6, 4, 5]], I32)), ValueError, r"entry \(1, 0\) is 6"),
    (PAGED, dict(block_table=np.array([[0, 1, -1], [3, 4, 5]], I32)), ValueError, r"entry \(0, 2\) is -1"),
    (PAGED, dict(kv_lengths=None), ValueError, "kv_lengths"),
    (PAGED, dict(kv_lengths=np.array([13, 4], I32)), ValueError, "kv_lengths: entry 0 is 13, expected 0 to 12"),
    (PAGED, dict(kv_lengths=np.array([9, -1], I32)), ValueError, "kv_lengths: entry 1 is -1"),
    (PAGED, dict(kv_lengths=np.array([9], I32)), ValueError, "kv_lengths"),
    (PAGED, dict(kv_lengths=zeros(2)), TypeError, "kv_lengths"),
    (PAGED, dict(options=A(kv_lengths=np.array([1, 1], I32))), ValueError, "options.kv_lengths: expected NULL"),
    (PAGED, dict(options=A(attn_mask=zeros(3, 9))), ValueError, "attn_mask"),
    (PAGED, dict(out=zeros(2, 4, 3, 8)), ValueError, "out"),
    (PAGED, dict(out=zeros(2, 4, 3, 5, dtype=F16)), TypeError, "out"),
    (PAGED, dict(lse=zeros(4, 6)), ValueError, "lse"),
    (PAGED, dict(weights=zeros(2, 4, 3, 9)), ValueError, "weights"),
    (SDPA_BACKWARD, dict(grad_out=None), ValueError, "grad_out"),
    (SDPA_BACKWARD, dict(given_out=None), ValueError, "out"),
    (SDPA_BACKWARD, dict(given_lse=None), ValueError, "lse"),
    (SDPA_BACKWARD, dict(grad_out=zeros(2, 4, 3, 8)), ValueError, "grad_out"),
    (SDPA_BACKWARD, dict(grad_out=zeros(2, 4, 3, 6, dtype=F64)), TypeError, "grad_out"),
    (SDPA_BACKWARD, dict(given_out=zeros(2, 4, 2, 6)), ValueError, "out"),
    (SDPA_BACKWARD, dict(given_lse=zeros(2, 4, 3, dtype=F64)), TypeError, "lse"),
    (SDPA_BACKWARD, dict(given_lse=zeros(2, 3, 4)), ValueError, "lse"),
    (SDPA_BACKWARD, dict(query=zeros(2, 4, 3, 8, dtype=I32)), TypeError, "query"),
    (SDPA_BACKWARD, dict(key=zeros(2, 2, 5, 7)), ValueError, "key: head_dim is 7, query has 8"),
    (SDPA_BACKWARD, dict(dq=zeros(2, 4, 3, 6)), ValueError, "dq"),
    (SDPA_BACKWARD, dict(dq=zeros(2, 4, 3, 8, dtype=F64)), TypeError, "dq"),
    (SDPA_BACKWARD, dict(dk=zeros(2, 4, 5, 8)), ValueError, "dk"),
    (SDPA_BACKWARD, dict(dv=zeros(2, 2, 5, 8)), ValueError, "dv"),
    (SDPA_BACKWARD, dict(dv=raw(zeros(2, 2, 5, 6), strides={2: 0})), ValueError, "dv"),
    (SDPA_BACKWARD, dict(dbias=zeros(5)), ValueError, "dbias"),
    (SDPA_BACKWARD, dict(dbias=zeros(3, 5, dtype=F16)), TypeError, "dbias"),
    (SDPA_BACKWARD, dict(dsinks=zeros(2)), ValueError, "dsinks"),
    (SDPA_BACKWARD, dict(options=None), ValueError, "dbias"),
    (SDPA_BACKWARD, dict(options=A(attn_mask=np.ones((3, 5), bool))), ValueError, "dbias"),
    (SDPA_BACKWARD, dict(options=A(attn_mask=zeros(3, 5))), ValueError, "dsinks"),
    (SDPA_BACKWARD, dict(options=A(softcap=-1.0), dbias=None, dsinks=None), ValueError, "softcap"),
    (VARLEN_BACKWARD, dict(grad_out=zeros(7, 4, 8)), ValueError, "grad_out"),
    (VARLEN_BACKWARD, dict(dk=zeros(9, 4, 8)), ValueError, "dk"),
    (VARLEN_BACKWARD, dict(cu_seqlens_q=np.array([0, 3, 6], I32)), ValueError, "cu_seqlens_q"),
    (VARLEN_BACKWARD, dict(options=None), ValueError, "dsinks"),
    (VARLEN_BACKWARD, dict(options=A(attn_mask=zeros(1))), ValueError, "attn_mask"),
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
    ("sample", dict(logits=zeros(2, 3, 0)), ValueError, "logits"),
    ("sample", dict(logits=zeros()), ValueError, "logits"),
    ("sample", dict(logits=np.full((2, 3, 5), NAN, F32)), ValueError, "logits: row 0 holds NaN"),
    ("sample", dict(logits=np.full((2, 3, 5), -INF, F32)), ValueError, "logits: row 0 is -inf alone"),
    ("sample", dict(out=zeros(2, 3)), TypeError, "out"),
    ("sample", dict(out=zeros(3, 2, dtype=I64)), ValueError, "out"),
    ("sample", dict(options=sampling_options(struct_size=9)), ValueError, "struct_size"),
    ("sample", dict(options=sampling_options(flags=4)), ValueError, "flags"),
    ("sample", dict(options=sampling_options(flags=1, temperature=-1.0)), ValueError, "temperature"),
    ("sample", dict(options=sampling_options(top_k=-1)), ValueError, "top_k"),
    ("sample", dict(options=sampling_options(repetition_penalty=INF)), ValueError, "repetition_penalty"),
    ("sample", dict(options=sampling_options(previous_tokens=np.array([5]))), ValueError, "previous_tokens"),
    ("sampling_distribution", dict(out=zeros(2, 3, 5, dtype=F64)), TypeError, "out"),
    ("sampling_distribution", dict(logits=np.full((2, 3, 5), NAN, F32)), ValueError, "logits"),
    ("cross_entropy", dict(targets=np.array([[0, 5, 1]] * 2)), ValueError, "targets: entry 1 is 5"),
    ("cross_entropy", dict(targets=np.array([[0, -1, 1]] * 2)), ValueError, "targets"),
    ("cross_entropy", dict(targets=np.array([0, 1, 2])), ValueError, "targets"),
    ("cross_entropy", dict(targets=zeros(2, 3)), TypeError, "targets"),
    ("cross_entropy", dict(out=zeros(1)), ValueError, "loss"),
    ("cross_entropy", dict(out=zeros(dtype=F64)), TypeError, "loss"),
    ("cross_entropy", dict(options=cross_entropy_options(label_smoothing=1.5)), ValueError, "label_smoothing"),
    ("cross_entropy", dict(options=cross_entropy_options(flags=2)), ValueError, "flags"),
    ("cross_entropy_backward", dict(grad_loss=INF), ValueError, "grad_loss"),
    ("cross_entropy_backward", dict(out=zeros(2, 3, 4)), ValueError, "grad_logits"),
    ("rotary_tables", dict(out_sin=zeros(5, 3)), ValueError, "sin"),
    ("rotary_tables", dict(out_cos=zeros(5)), ValueError, "cos"),
    ("rotary_tables", dict(out_cos=zeros(5, 2, dtype=I32)), TypeError, "cos"),
    ("rotary_tables", dict(options=rotary_options(struct_size=4)), ValueError, "struct_size"),
    ("rotary_tables", dict(options=rotary_options(scaling=7)), ValueError, "scaling"),
    ("rotary_tables", dict(options=rotary_options(reserved=1)), ValueError, "reserved"),
    ("rotary_tables", dict(options=rotary_options(no_truncate=2)), ValueError, "no_truncate"),
    ("rotary_tables", dict(options=rotary_options(base=-1.0)), ValueError, "base"),
    ("rotary_embedding", dict(x=zeros(6)), ValueError, "x"),
    ("rotary_embedding", dict(cos=zeros(4, 4), sin=zeros(4, 4)), ValueError, "cos"),
    ("rotary_embedding", dict(sin=zeros(4, 1)), ValueError, "sin"),
    ("rotary_embedding", dict(cos=zeros(4, 2, dtype=F16)), TypeError, "cos"),
    ("rotary_embedding", dict(sin=zeros(4, 2, dtype=F64)), TypeError, "sin"),
    ("rotary_embedding", dict(position_ids=np.array([0, 4, 1])), ValueError, "position_ids: entry 1 is 4"),
    ("rotary_embedding", dict(position_ids=np.array([-1, 0, 1])), ValueError, "position_ids"),
    ("rotary_embedding", dict(position_ids=np.array([0, 1])), ValueError, "position_ids"),
    ("rotary_embedding", dict(position_ids=np.zeros((2, 3), I64)), ValueError, "position_ids"),
    ("rotary_embedding", dict(position_ids=zeros(3)), TypeError, "position_ids"),
    ("rotary_embedding", dict(position_ids=None, cos=zeros(2, 2), sin=zeros(2, 2)), ValueError, "cos"),
    ("rotary_embedding", dict(pairing=2), ValueError, "pairing"),
    ("rotary_embedding", dict(out=zeros(2, 3, 5)), ValueError, "out"),
    ("rotary_embedding_backward", dict(x=None), ValueError, "grad_out"),
    ("rotary_embedding_backward", dict(out=zeros(2, 3, 6, dtype=F64)), TypeError, "dx"),
    ("sinusoidal_positions", dict(out=zeros(5)), ValueError, "out"),
    ("sinusoidal_positions", dict(out=zeros(5, 4, dtype=I32)), TypeError, "out"),
]
