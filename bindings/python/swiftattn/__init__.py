"""swiftattn: transformer attention on the CPU, on NumPy, torch and JAX arrays."""

from . import nn, optim
from .activations import geglu, gelu, relu, silu, swiglu
from .additive import additive_attention, additive_attention_backward
from .attention import attention_paged, attention_varlen, merge_attention_states, scaled_dot_product_attention
from .attention_backward import attention_varlen_backward, scaled_dot_product_attention_backward
from .caches import KVCache
from .dropout import dropout, dropout_backward
from .embeddings import alibi_slopes, embedding, sinusoidal_positions
from .gradients import (
    embedding_backward,
    geglu_backward,
    gelu_backward,
    layer_norm_backward,
    linear_backward,
    relu_backward,
    rms_norm_backward,
    silu_backward,
    softmax_backward,
    swiglu_backward,
)
from .loss import cross_entropy, cross_entropy_backward
from .paged_cache import PagedKVCache
from .products import PackedWeight, linear, matmul
from .rotary import rotary_embedding, rotary_embedding_backward, rotary_tables
from .rows import layer_norm, rms_norm, softmax
from .runtime import cpu_info, get_num_threads, set_num_threads
from .sampling import sample, sampling_distribution

__version__ = "0.1.0"

__all__ = [
    "KVCache",
    "PackedWeight",
    "PagedKVCache",
    "additive_attention",
    "additive_attention_backward",
    "alibi_slopes",
    "attention_paged",
    "attention_varlen",
    "attention_varlen_backward",
    "cpu_info",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "geglu",
    "geglu_backward",
    "gelu",
    "gelu_backward",
    "get_num_threads",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "matmul",
    "merge_attention_states",
    "nn",
    "optim",
    "relu",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "rotary_embedding",
    "rotary_embedding_backward",
    "rotary_tables",
    "sample",
    "sampling_distribution",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "set_num_threads",
    "silu",
    "silu_backward",
    "sinusoidal_positions",
    "softmax",
    "softmax_backward",
    "swiglu",
    "swiglu_backward",
]
