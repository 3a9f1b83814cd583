"""swiftattn: transformer attention on the CPU, on NumPy, torch and JAX arrays."""

from . import nn
from .activations import geglu, gelu, relu, silu, swiglu
from .attention import attention_paged, attention_varlen, merge_attention_states, scaled_dot_product_attention
from .attention_backward import attention_varlen_backward, scaled_dot_product_attention_backward
from .caches import KVCache
from .embeddings import alibi_slopes, embedding, sinusoidal_positions
from .loss import cross_entropy, cross_entropy_backward
from .products import PackedWeight, linear, matmul
from .rotary import rotary_embedding, rotary_embedding_backward, rotary_tables
from .rows import layer_norm, rms_norm, softmax
from .runtime import cpu_info, get_num_threads, set_num_threads
from .sampling import sample, sampling_distribution

__version__ = "0.1.0"

__all__ = [
    "KVCache",
    "PackedWeight",
    "alibi_slopes",
    "attention_paged",
    "attention_varlen",
    "attention_varlen_backward",
    "cpu_info",
    "cross_entropy",
    "cross_entropy_backward",
    "embedding",
    "geglu",
    "gelu",
    "get_num_threads",
    "layer_norm",
    "linear",
    "matmul",
    "merge_attention_states",
    "nn",
    "relu",
    "rms_norm",
    "rotary_embedding",
    "rotary_embedding_backward",
    "rotary_tables",
    "sample",
    "sampling_distribution",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "set_num_threads",
    "silu",
    "sinusoidal_positions",
    "softmax",
    "swiglu",
]
