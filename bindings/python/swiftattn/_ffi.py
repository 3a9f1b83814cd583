"""The C ABI of include/swiftattn.h in ctypes, in the header's order, and the one status check."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path

LIBRARY = "libswiftattn.so"


def _load() -> ctypes.CDLL:
    """Loads the library from the first place that has it; the ImportError says what was tried."""
    here = Path(__file__).resolve().parent
    forced = os.environ.get("SWIFTATTN_LIBRARY")
    if forced:
        candidates = [forced]
    else:
        # An installed package carries its library; a checkout has it where `make build` leaves it.
        files = [here / LIBRARY, *(folder / ".build" / "release" / LIBRARY for folder in here.parents[2:3])]
        candidates = [str(file) for file in files if file.exists()] or [*map(str, files), LIBRARY]
    tried = []
    for candidate in candidates:
        try:
            return ctypes.CDLL(candidate)
        except OSError as error:
            text = str(error)  # begins with the file that is missing: this library, or one that it needs
            tried.append(f"  {text}" if text.startswith(candidate) else f"  {candidate}: {text}")
    hint = "Build it with `make build`, or set SWIFTATTN_LIBRARY to its path."
    if any("libomp" in line for line in tried):
        hint = "The OpenMP runtime is missing: `apt install libomp5` (or libomp-dev)."
    raise ImportError("\n".join([f"swiftattn: {LIBRARY} could not be loaded. Tried:", *tried, hint]))


_library = _load()
path = _library._name

# Status

_EXCEPTIONS = {
    -1: ValueError,  # NULL_POINTER
    -2: ValueError,  # INVALID_ARGUMENT
    -3: ValueError,  # INVALID_SHAPE
    -4: TypeError,  # INVALID_DTYPE
    -5: ValueError,  # ALIASING
    -6: ValueError,  # STRUCT_SIZE
    -7: MemoryError,  # OUT_OF_MEMORY
    -8: ValueError,  # UNSUPPORTED_ISA
}


def _check(status: int, function, arguments) -> int:
    """Raises the exception of a failed status, with the C message verbatim."""
    if status:
        raise _EXCEPTIONS.get(status, ValueError)(last_error().decode())
    return status


def _declare(name: str, result, *arguments):
    try:
        function = getattr(_library, "swiftattn_" + name)
    except AttributeError:
        raise ImportError(
            f"swiftattn: {path} has no function swiftattn_{name}: it is of another version than this package"
        ) from None
    function.restype = result
    function.argtypes = arguments
    return function


def _computing(name: str, *arguments):
    function = _declare(name, c_int32, *arguments)
    function.errcheck = _check
    return function


last_error = _declare("last_error", c_char_p)

# Library

version = _declare("version", c_char_p)
cpu_isa = _declare("cpu_isa", c_char_p)
cpu_features = _declare("cpu_features", c_char_p)
set_num_threads = _computing("set_num_threads", c_int32)
get_num_threads = _declare("get_num_threads", c_int32)

# Tensors

MAX_DIMS = 8


class DType(ctypes.Structure):
    """swiftattn_dtype."""

    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class Tensor(ctypes.Structure):
    """swiftattn_tensor. _tensor.py adds two Python attributes: `owner`, which keeps the memory alive, and `dims`."""

    __slots__ = ("dims", "owner")
    _fields_ = [
        ("data", c_void_p),
        ("ndim", c_int32),
        ("dtype", DType),
        ("shape", c_int64 * MAX_DIMS),
        ("strides", c_int64 * MAX_DIMS),
        ("byte_offset", c_uint64),
    ]


_TensorPointer = POINTER(Tensor)

# Attention

CAUSAL_NONE = 0
CAUSAL_UPPER_LEFT = 1
CAUSAL_LOWER_RIGHT = 2

PRECISIONS = {"highest": 0, "high": 1, "medium": 2}

WEIGHTS_STAGES = {True: 0, "scaled": 1, "capped": 2, "biased": 3}

HAS_SCALE = 1
HAS_QUERY_OFFSET = 2
HAS_WINDOW_LEFT = 4
HAS_WINDOW_RIGHT = 8


class AttentionOptions(ctypes.Structure):
    """swiftattn_attention_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("scale", c_double),
        ("softcap", c_double),
        ("causal", c_int32),
        ("precision", c_int32),
        ("query_offset", c_int64),
        ("window_left", c_int64),
        ("window_right", c_int64),
        ("dropout_p", c_double),
        ("seed", c_uint64),
        ("query_offsets", _TensorPointer),
        ("attn_mask", _TensorPointer),
        ("alibi_slopes", _TensorPointer),
        ("sinks", _TensorPointer),
        ("q_lengths", _TensorPointer),
        ("kv_lengths", _TensorPointer),
        ("weights_stage", c_int32),
        ("reserved", c_int32),
    ]


_OptionsPointer = POINTER(AttentionOptions)

scaled_dot_product_attention = _computing(
    "scaled_dot_product_attention",
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # query, key, value
    _OptionsPointer,
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # out, lse, weights
)
attention_varlen = _computing(
    "attention_varlen",
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # query, key, value
    *(_TensorPointer, _TensorPointer),  # cu_seqlens_q, cu_seqlens_k
    _OptionsPointer,
    *(_TensorPointer, _TensorPointer),  # out, lse
)
attention_paged = _computing(
    "attention_paged",
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # query, key_cache, value_cache
    *(_TensorPointer, _TensorPointer),  # block_table, kv_lengths
    _OptionsPointer,
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # out, lse, weights
)
merge_attention_states = _computing(
    "merge_attention_states",
    *(_TensorPointer, _TensorPointer, c_int64),  # outs[count], lses[count], count
    *(_TensorPointer, _TensorPointer),  # out, lse
)
alibi_slopes = _computing("alibi_slopes", _TensorPointer)

# Key/value caches

KV_CACHE_HAS_VALUE_DIM = 1


class KVCacheOptions(ctypes.Structure):
    """swiftattn_kv_cache_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("batch", c_int64),
        ("kv_heads", c_int64),
        ("max_len", c_int64),
        ("head_dim", c_int64),
        ("value_dim", c_int64),
        ("dtype", DType),
        ("reserved", c_int32),
    ]


kv_cache_create = _computing("kv_cache_create", POINTER(KVCacheOptions), POINTER(c_void_p))
kv_cache_destroy = _declare("kv_cache_destroy", None, c_void_p)
kv_cache_append = _computing(
    "kv_cache_append",
    c_void_p,
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # key, value, lengths
)
kv_cache_truncate = _computing("kv_cache_truncate", c_void_p, c_int64, _TensorPointer)
kv_cache_view = _computing(
    "kv_cache_view",
    c_void_p,
    *(_TensorPointer, _TensorPointer),  # keys, values
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # key_scales, value_scales, lengths
)
kv_cache_fork = _computing("kv_cache_fork", c_void_p, _TensorPointer, POINTER(c_void_p))
kv_cache_reorder = _computing("kv_cache_reorder", c_void_p, _TensorPointer)
attention_kv_cache = _computing(
    "attention_kv_cache",
    *(_TensorPointer, c_void_p, _OptionsPointer),  # query, cache
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # out, lse, weights
)


class PagedKVCacheOptions(ctypes.Structure):
    """swiftattn_paged_kv_cache_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("num_blocks", c_int64),
        ("block_size", c_int64),
        ("kv_heads", c_int64),
        ("head_dim", c_int64),
        ("value_dim", c_int64),
        ("dtype", DType),
        ("reserved", c_int32),
    ]


paged_kv_cache_create = _computing("paged_kv_cache_create", POINTER(PagedKVCacheOptions), POINTER(c_void_p))
paged_kv_cache_destroy = _declare("paged_kv_cache_destroy", None, c_void_p)
paged_kv_cache_open = _computing("paged_kv_cache_open", c_void_p, POINTER(c_int64))
paged_kv_cache_fork = _computing("paged_kv_cache_fork", c_void_p, c_int64, c_int64, POINTER(c_int64))
paged_kv_cache_close = _computing("paged_kv_cache_close", c_void_p, c_int64)
paged_kv_cache_truncate = _computing("paged_kv_cache_truncate", c_void_p, c_int64, c_int64)
paged_kv_cache_append = _computing(
    "paged_kv_cache_append",
    *(c_void_p, _TensorPointer),  # cache, sequences
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # key, value, lengths
)
paged_kv_cache_table = _computing(
    "paged_kv_cache_table",
    *(c_void_p, _TensorPointer),  # cache, sequences
    *(_TensorPointer, _TensorPointer, POINTER(c_int64)),  # block_table, lengths, free_blocks
)
paged_kv_cache_view = _computing(
    "paged_kv_cache_view",
    c_void_p,
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # keys, values, key_scales, value_scales
)
attention_paged_kv_cache = _computing(
    "attention_paged_kv_cache",
    *(_TensorPointer, c_void_p, _TensorPointer, _OptionsPointer),  # query, cache, sequences
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # out, lse, weights
)

# Attention backward

scaled_dot_product_attention_backward = _computing(
    "scaled_dot_product_attention_backward",
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # grad_out, query, key, value
    *(_TensorPointer, _TensorPointer),  # out, lse
    _OptionsPointer,
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # dq, dk, dv, dbias, dsinks
)
attention_varlen_backward = _computing(
    "attention_varlen_backward",
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # grad_out, query, key, value
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # out, lse, cu_seqlens_q, cu_seqlens_k
    _OptionsPointer,
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # dq, dk, dv, dsinks
)

# Matrix products

matmul = _computing("matmul", _TensorPointer, _TensorPointer, c_int32, _TensorPointer)

ACTIVATIONS = {None: 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "silu": 4}


class LinearOptions(ctypes.Structure):
    """swiftattn_linear_options."""

    _fields_ = [("struct_size", c_uint32), ("activation", c_int32), ("precision", c_int32)]


linear = _computing(
    "linear",
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # x, weight, bias, residual
    POINTER(LinearOptions),
    _TensorPointer,  # out
)

pack_weight = _computing("pack_weight", _TensorPointer, POINTER(c_void_p))
packed_weight_destroy = _declare("packed_weight_destroy", None, c_void_p)
linear_packed = _computing(
    "linear_packed",
    *(_TensorPointer, c_void_p, _TensorPointer, _TensorPointer),  # x, packed, bias, residual
    POINTER(LinearOptions),
    _TensorPointer,  # out
)

# Rows

softmax = _computing("softmax", _TensorPointer, c_int64, _TensorPointer)
layer_norm = _computing("layer_norm", _TensorPointer, _TensorPointer, _TensorPointer, c_double, _TensorPointer)
rms_norm = _computing("rms_norm", _TensorPointer, _TensorPointer, c_double, _TensorPointer)

# Activations

GELU_APPROXIMATIONS = {"none": 0, "tanh": 1}

relu = _computing("relu", _TensorPointer, _TensorPointer)
gelu = _computing("gelu", _TensorPointer, c_int32, _TensorPointer)
silu = _computing("silu", _TensorPointer, _TensorPointer)
swiglu = _computing("swiglu", _TensorPointer, _TensorPointer, _TensorPointer)
geglu = _computing("geglu", _TensorPointer, _TensorPointer, c_int32, _TensorPointer)

# Embeddings

embedding = _computing("embedding", _TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer)
sinusoidal_positions = _computing("sinusoidal_positions", _TensorPointer)

# Rotary positions

ROTARY_SCALINGS = {"default": 0, "linear": 1, "dynamic": 2, "ntk": 3, "llama3": 4, "yarn": 5, "longrope": 6}


class RotaryOptions(ctypes.Structure):
    """swiftattn_rotary_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("scaling", c_int32),
        ("base", c_double),
        ("factor", c_double),
        ("original_length", c_int64),
        ("attention_factor", c_double),
        ("mscale", c_double),
        ("mscale_all_dim", c_double),
        ("beta_fast", c_double),
        ("beta_slow", c_double),
        ("low_freq_factor", c_double),
        ("high_freq_factor", c_double),
        ("no_truncate", c_int32),
        ("reserved", c_int32),
        ("short_factors", _TensorPointer),
        ("long_factors", _TensorPointer),
    ]


rotary_tables = _computing("rotary_tables", POINTER(RotaryOptions), _TensorPointer, _TensorPointer)
rotary_embedding = _computing(
    "rotary_embedding",
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # x, cos, sin, position_ids
    c_int32,
    _TensorPointer,  # out
)
rotary_embedding_backward = _computing(
    "rotary_embedding_backward",
    *(_TensorPointer, _TensorPointer, _TensorPointer, _TensorPointer),  # grad_out, cos, sin, position_ids
    c_int32,
    _TensorPointer,  # dx
)

# Blocks


def pointer(tensor: Tensor | None):
    """Of a struct's tensor field; None is NULL."""
    return None if tensor is None else ctypes.pointer(tensor)


module_destroy = _declare("module_destroy", None, c_void_p)
module_parameter_count = _computing("module_parameter_count", c_void_p, POINTER(c_int64))
module_parameter = _computing("module_parameter", c_void_p, c_int64, POINTER(c_char_p), _TensorPointer)
module_load_parameter = _computing("module_load_parameter", c_void_p, c_char_p, _TensorPointer)
module_parameters_changed = _computing("module_parameters_changed", c_void_p)

POSITIONS = {"none": 0, "rope": 1, "alibi": 2}

MULTIHEAD_NO_BIAS = 1
MULTIHEAD_NO_OUTPUT_PROJECTION = 2
MULTIHEAD_ADD_BIAS_KV = 4
MULTIHEAD_ADD_ZERO_ATTN = 8
MULTIHEAD_HAS_SCALE = 16


class MultiheadAttentionOptions(ctypes.Structure):
    """swiftattn_multihead_attention_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("embed_dim", c_int64),
        ("num_heads", c_int64),
        ("num_kv_heads", c_int64),
        ("kdim", c_int64),
        ("vdim", c_int64),
        ("scale", c_double),
        ("positions", c_int32),
        ("precision", c_int32),
        ("dtype", DType),
        ("dropout", c_double),
    ]


multihead_attention_create = _computing(
    "multihead_attention_create", POINTER(MultiheadAttentionOptions), POINTER(c_void_p)
)


class Visibility(ctypes.Structure):
    """swiftattn_visibility."""

    _fields_ = [
        ("attn_mask", _TensorPointer),
        ("key_padding_mask", _TensorPointer),
        ("is_causal", c_int32),
        ("reserved", c_int32),
    ]


class MultiheadAttentionCall(ctypes.Structure):
    """swiftattn_multihead_attention_call."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("average_weights", c_int32),
        ("visibility", Visibility),
        ("cu_seqlens_q", _TensorPointer),
        ("cu_seqlens_k", _TensorPointer),
    ]


multihead_attention_forward = _computing(
    "multihead_attention_forward",
    *(c_void_p, _TensorPointer, _TensorPointer, _TensorPointer),  # module, query, key, value
    POINTER(MultiheadAttentionCall),
    *(_TensorPointer, _TensorPointer),  # out, weights
)

FEED_FORWARD_ACTIVATIONS = {"relu": 0, "gelu": 1, "gelu_tanh": 2, "silu": 3, "swiglu": 4, "geglu": 5}
NORMS = {"layer": 0, "rms": 1}
FINAL_NORMS = {**NORMS, None: 2}

LAYER_NORM_FIRST = 1
LAYER_NO_BIAS = 2
LAYER_HAS_EPS = 4


class LayerOptions(ctypes.Structure):
    """swiftattn_layer_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("d_model", c_int64),
        ("nhead", c_int64),
        ("num_kv_heads", c_int64),
        ("dim_feedforward", c_int64),
        ("eps", c_double),
        ("activation", c_int32),
        ("norm", c_int32),
        ("positions", c_int32),
        ("precision", c_int32),
        ("dtype", DType),
        ("dropout", c_double),
    ]


_LayerOptionsPointer = POINTER(LayerOptions)

encoder_layer_create = _computing("encoder_layer_create", _LayerOptionsPointer, POINTER(c_void_p))
encoder_create = _computing("encoder_create", _LayerOptionsPointer, c_int64, c_int32, POINTER(c_void_p))
decoder_layer_create = _computing("decoder_layer_create", _LayerOptionsPointer, POINTER(c_void_p))
decoder_create = _computing("decoder_create", _LayerOptionsPointer, c_int64, c_int32, POINTER(c_void_p))
transformer_create = _computing("transformer_create", _LayerOptionsPointer, c_int64, c_int64, POINTER(c_void_p))


class LayerCall(ctypes.Structure):
    """swiftattn_layer_call."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_int32),
        ("visibility", Visibility),
        ("memory", Visibility),
        ("src", Visibility),
        ("cu_seqlens", _TensorPointer),
        ("memory_cu_seqlens", _TensorPointer),
    ]


_LayerCallPointer = POINTER(LayerCall)

encoder_forward = _computing("encoder_forward", c_void_p, _TensorPointer, _LayerCallPointer, _TensorPointer)
decoder_forward = _computing(
    "decoder_forward",
    *(c_void_p, _TensorPointer, _TensorPointer),  # module, tgt, memory
    *(_LayerCallPointer, _TensorPointer),  # call, out
)
transformer_forward = _computing(
    "transformer_forward",
    *(c_void_p, _TensorPointer, _TensorPointer),  # module, src, tgt
    *(_LayerCallPointer, _TensorPointer),  # call, out
)

TOKEN_POSITIONS = {"none": 0, "sinusoidal": 1, "learned": 2}
HEADS = {None: 0, "vocabulary": 1, "tied": 2, "classes": 3}
POOLINGS = {None: 0, "mean": 1, "first": 2}

TOKEN_MODEL_EMBEDDING_NORM = 1
TOKEN_MODEL_SHARED_LAYERS = 2
TOKEN_MODEL_HEAD_BIAS = 4
TOKEN_MODEL_ATTENTION_ONLY = 8


class TokenModelOptions(ctypes.Structure):
    """swiftattn_token_model_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("layer", _LayerOptionsPointer),
        ("num_layers", c_int64),
        ("vocab_size", c_int64),
        ("embedding_dim", c_int64),
        ("max_positions", c_int64),
        ("first_position", c_int64),
        ("type_vocab_size", c_int64),
        ("num_classes", c_int64),
        ("token_positions", c_int32),
        ("head", c_int32),
        ("final_norm", c_int32),
        ("reserved", c_int32),
    ]


token_model_create = _computing("token_model_create", POINTER(TokenModelOptions), POINTER(c_void_p))


class TokenModelCall(ctypes.Structure):
    """swiftattn_token_model_call."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("pooling", c_int32),
        ("normalize", c_int32),
        ("reserved", c_int32),
        ("visibility", Visibility),
        ("cu_seqlens", _TensorPointer),
        ("type_ids", _TensorPointer),
        ("hidden", _TensorPointer),
        ("attentions", _TensorPointer),
    ]


token_model_forward = _computing(
    "token_model_forward", c_void_p, _TensorPointer, POINTER(TokenModelCall), _TensorPointer
)

ENCODER_DECODER_SHARED_EMBEDDING = 1
ENCODER_DECODER_TIED_HEAD = 2
ENCODER_DECODER_HEAD_BIAS = 4


class EncoderDecoderOptions(ctypes.Structure):
    """swiftattn_encoder_decoder_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("layer", _LayerOptionsPointer),
        ("num_encoder_layers", c_int64),
        ("num_decoder_layers", c_int64),
        ("src_vocab_size", c_int64),
        ("tgt_vocab_size", c_int64),
        ("embedding_dim", c_int64),
        ("max_positions", c_int64),
        ("token_positions", c_int32),
        ("reserved", c_int32),
    ]


encoder_decoder_create = _computing("encoder_decoder_create", POINTER(EncoderDecoderOptions), POINTER(c_void_p))
encoder_decoder_forward = _computing(
    "encoder_decoder_forward",
    *(c_void_p, _TensorPointer, _TensorPointer),  # module, src, tgt
    *(_LayerCallPointer, _TensorPointer, _TensorPointer),  # call, out, attentions
)

BEAM_HAS_LENGTH_PENALTY = 1


class BeamOptions(ctypes.Structure):
    """swiftattn_beam_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("beams", c_int32),
        ("start", c_int64),
        ("end", c_int64),
        ("flags", c_uint32),
        ("reserved", c_int32),
        ("length_penalty", c_double),
    ]


encoder_decoder_write = _computing(
    "encoder_decoder_write",
    *(c_void_p, _TensorPointer, _TensorPointer),  # module, src, key_padding_mask
    POINTER(BeamOptions),
    *(_TensorPointer, _TensorPointer),  # ids, scores
)

# Training

module_set_training = _computing("module_set_training", c_void_p, c_int32)
module_backward = _computing("module_backward", c_void_p, _TensorPointer, POINTER(_TensorPointer), c_int64)
module_gradient = _computing("module_gradient", c_void_p, c_int64, _TensorPointer)
module_zero_gradients = _computing("module_zero_gradients", c_void_p)

INITIALIZATIONS = {"xavier": 0, "normal": 1}

module_initialize = _computing("module_initialize", c_void_p, c_int32, c_double, c_uint64)
module_set_dropout = _computing("module_set_dropout", c_void_p, c_uint64, c_uint64)
module_get_dropout = _computing("module_get_dropout", c_void_p, POINTER(c_uint64), POINTER(c_uint64))

OPTIMIZER_ADAMW = 0
OPTIMIZER_SGD = 1
SCHEDULES = {"constant": 0, "inverse_square_root": 1, "cosine": 2}


class OptimizerOptions(ctypes.Structure):
    """swiftattn_optimizer_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_int32),
        ("schedule", c_int32),
        ("reserved", c_int32),
        ("lr", c_double),
        ("beta1", c_double),
        ("beta2", c_double),
        ("eps", c_double),
        ("weight_decay", c_double),
        ("momentum", c_double),
        ("clip_norm", c_double),
        ("warmup", c_int64),
        ("total_steps", c_int64),
        ("final_lr", c_double),
    ]


optimizer_create = _computing("optimizer_create", c_void_p, POINTER(OptimizerOptions), POINTER(c_void_p))
optimizer_destroy = _declare("optimizer_destroy", None, c_void_p)
optimizer_step = _computing("optimizer_step", c_void_p, POINTER(c_double))
optimizer_get_steps = _computing("optimizer_get_steps", c_void_p, POINTER(c_int64), POINTER(c_double))
optimizer_set_steps = _computing("optimizer_set_steps", c_void_p, c_int64)
optimizer_state_count = _computing("optimizer_state_count", c_void_p, POINTER(c_int64))
optimizer_state = _computing("optimizer_state", c_void_p, c_int64, POINTER(c_char_p), _TensorPointer)

# Sampling

SAMPLING_HAS_TEMPERATURE = 1
SAMPLING_HAS_TOP_P = 2


class SamplingOptions(ctypes.Structure):
    """swiftattn_sampling_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("temperature", c_double),
        ("top_k", c_int64),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition_penalty", c_double),
        ("presence_penalty", c_double),
        ("frequency_penalty", c_double),
        ("previous_tokens", _TensorPointer),
        ("seed", c_uint64),
        ("draw", c_uint64),
    ]


sample = _computing("sample", _TensorPointer, POINTER(SamplingOptions), _TensorPointer)
sampling_distribution = _computing("sampling_distribution", _TensorPointer, POINTER(SamplingOptions), _TensorPointer)

# Loss

CROSS_ENTROPY_HAS_IGNORE_INDEX = 1


class CrossEntropyOptions(ctypes.Structure):
    """swiftattn_cross_entropy_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("ignore_index", c_int64),
        ("label_smoothing", c_double),
    ]


cross_entropy = _computing(
    "cross_entropy",
    _TensorPointer,
    _TensorPointer,
    POINTER(CrossEntropyOptions),
    _TensorPointer,  # logits, targets, loss
)
cross_entropy_backward = _computing(
    "cross_entropy_backward",
    *(c_double, _TensorPointer, _TensorPointer),  # grad_loss, logits, targets
    POINTER(CrossEntropyOptions),
    *(_TensorPointer, _TensorPointer),  # loss, grad_logits
)

# GGUF files

gguf_open = _computing("gguf_open", c_char_p, POINTER(c_void_p))
gguf_close = _declare("gguf_close", None, c_void_p)
gguf_count = _computing("gguf_count", c_void_p, POINTER(c_int64), POINTER(c_int64))  # file, keys, tensors

GGUF_FLOAT32 = 6
GGUF_BOOL = 7
GGUF_STRING = 8
GGUF_ARRAY = 9
GGUF_FLOAT64 = 12

gguf_key = _computing(
    "gguf_key",
    *(c_void_p, c_int64),  # file, index
    *(POINTER(c_char_p), POINTER(c_int32), POINTER(c_int32), POINTER(c_int64)),  # name, type, is_array, count
)
gguf_numbers = _computing("gguf_numbers", c_void_p, c_int64, _TensorPointer)  # file, index, out
gguf_strings = _computing(
    "gguf_strings",
    *(c_void_p, c_int64),  # file, index
    *(POINTER(c_void_p), POINTER(POINTER(c_int64))),  # text, offsets
)
gguf_tensor = _computing(
    "gguf_tensor",
    *(c_void_p, c_int64),  # file, index
    *(POINTER(c_char_p), POINTER(c_int32), POINTER(c_int32), c_int64 * 4),  # name, format, ndim, shape
)
gguf_load = _computing("gguf_load", c_void_p, c_int64, _TensorPointer)  # file, index, out

# Language models


class ModelConfig(ctypes.Structure):
    """swiftattn_model_config."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("rotary_pairing", c_int32),
        ("vocabulary", c_int64),
        ("width", c_int64),
        ("layers", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("head_dim", c_int64),
        ("hidden", c_int64),
        ("context", c_int64),
        ("rotary_dim", c_int64),
        ("norm_eps", c_double),
        ("rotary", POINTER(RotaryOptions)),
    ]


MODEL_WEIGHTS = {"stored": 0, "float32": 1}


class ModelOptions(ctypes.Structure):
    """swiftattn_model_options."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("weights", c_int32),
        ("context", c_int64),
        ("sequences", c_int64),
        ("window", c_int64),
        ("exact_prefill", c_int32),
        ("kv_dtype", DType),
    ]


model_open = _computing("model_open", c_char_p, POINTER(ModelOptions), POINTER(c_void_p))
model_create = _computing(
    "model_create",
    *(POINTER(ModelConfig), POINTER(c_char_p), _TensorPointer, c_int64),  # config, names[count], tensors[count], count
    *(POINTER(ModelOptions), POINTER(c_void_p)),  # options, model
)
model_close = _declare("model_close", None, c_void_p)
model_info = _computing(
    "model_info",
    *(c_void_p, POINTER(ModelConfig)),  # model, config
    *(POINTER(c_int64), POINTER(c_int64), POINTER(c_int64)),  # context, sequences, window
)
model_prefill = _computing(
    "model_prefill", c_void_p, c_int64, _TensorPointer, _TensorPointer
)  # model, sequence, ids, logits
model_step = _computing("model_step", c_void_p, _TensorPointer, _TensorPointer)  # model, ids, logits
model_truncate = _computing("model_truncate", c_void_p, c_int64, c_int64)  # model, sequence, length
model_lengths = _computing("model_lengths", c_void_p, _TensorPointer)  # model, out
model_logits = _computing("model_logits", c_void_p, _TensorPointer, _TensorPointer)  # model, ids, logits
model_log_probabilities = _computing(
    "model_log_probabilities", c_void_p, _TensorPointer, _TensorPointer
)  # model, ids, out
model_perplexity = _computing("model_perplexity", c_void_p, _TensorPointer, POINTER(c_double))  # model, ids, perplexity
model_embed = _computing("model_embed", c_void_p, _TensorPointer, _TensorPointer)  # model, ids, out
model_trace = _computing("model_trace", c_void_p, *(_TensorPointer,) * 3)  # model, ids, attention, states

# Additive attention

additive_attention = _computing(
    "additive_attention",
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # query, key, value
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # w_query, w_key, v_score
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # attn_mask, out, weights
)
additive_attention_backward = _computing(
    "additive_attention_backward",
    _TensorPointer,  # grad_out
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # query, key, value
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # w_query, w_key, v_score
    _TensorPointer,  # attn_mask
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # dquery, dkey, dvalue
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # dw_query, dw_key, dv_score
)

# Dropout

dropout = _computing("dropout", _TensorPointer, c_double, c_uint64, c_uint64, _TensorPointer)
dropout_backward = _computing("dropout_backward", _TensorPointer, c_double, c_uint64, c_uint64, _TensorPointer)

# Gradients

linear_backward = _computing(
    "linear_backward",
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # grad_out, x, weight
    *(_TensorPointer, _TensorPointer),  # bias, pre_activation
    POINTER(LinearOptions),
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # dx, dweight, dbias
)
softmax_backward = _computing("softmax_backward", _TensorPointer, _TensorPointer, c_int64, _TensorPointer)
layer_norm_backward = _computing(
    "layer_norm_backward",
    *(_TensorPointer, _TensorPointer, _TensorPointer, c_double),  # grad_out, x, weight, eps
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # dx, dweight, dbias
)
rms_norm_backward = _computing(
    "rms_norm_backward",
    *(_TensorPointer, _TensorPointer, _TensorPointer, c_double),  # grad_out, x, weight, eps
    *(_TensorPointer, _TensorPointer),  # dx, dweight
)
relu_backward = _computing("relu_backward", _TensorPointer, _TensorPointer, _TensorPointer)
gelu_backward = _computing("gelu_backward", _TensorPointer, _TensorPointer, c_int32, _TensorPointer)
silu_backward = _computing("silu_backward", _TensorPointer, _TensorPointer, _TensorPointer)
swiglu_backward = _computing(
    "swiglu_backward",
    *(_TensorPointer, _TensorPointer, _TensorPointer),  # grad_out, gate, up
    *(_TensorPointer, _TensorPointer),  # dgate, dup
)
geglu_backward = _computing(
    "geglu_backward",
    *(_TensorPointer, _TensorPointer, _TensorPointer, c_int32),  # grad_out, gate, up, approximate
    *(_TensorPointer, _TensorPointer),  # dgate, dup
)
embedding_backward = _computing("embedding_backward", _TensorPointer, _TensorPointer, _TensorPointer)
