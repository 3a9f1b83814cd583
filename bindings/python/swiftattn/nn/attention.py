"""Multi-head attention as a block."""

from __future__ import annotations

import ctypes
from typing import Any

from .. import _ffi
from .._tensor import Array, ArrayLike, borrow, borrow_integers, choice, empty, real
from ._module import Module, Visibility, count_option, dtype_option, require_batch_first


class MultiheadAttention(Module):
    """torch.nn.MultiheadAttention: the same arguments, parameter names and results.

    Args:
        embed_dim: E, the width of queries and results; a multiple of num_heads.
        num_heads: heads of E / num_heads each.
        dropout: of the weights in training.
        bias: whether the projections have one.
        add_bias_kv: a learned key and value are put behind the others.
        add_zero_attn: so are a key and a value of zeros.
        kdim, vdim: widths of key and value rows; None is E.
        batch_first: only True.
        device: taken for compatibility; memory is the CPU's.
        dtype: "float32", "float16", "bfloat16" or "float64", of parameters, inputs and results.
        num_kv_heads: heads of keys and values, a divisor of num_heads; None is as many. 1 is multi-query attention.
        positions: "none", "rope" or "alibi".
        scale: of the scores; None is 1/sqrt(E / num_heads).
        output_projection: False leaves out_proj out; the heads side by side are the result.
        precision: of float32 products: "highest", "high" or "medium".

    Parameters begin as zeros: load_state_dict. Where num_kv_heads is smaller, in_proj_weight has (num_heads +
    2 num_kv_heads) * E / num_heads rows.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = True,
        device: Any = None,
        dtype: Any = "float32",
        *,
        num_kv_heads: int | None = None,
        positions: str = "none",
        scale: float | None = None,
        output_projection: bool = True,
        precision: str = "highest",
    ) -> None:
        require_batch_first(batch_first)
        options = _ffi.MultiheadAttentionOptions(
            struct_size=ctypes.sizeof(_ffi.MultiheadAttentionOptions),
            flags=(0 if bias else _ffi.MULTIHEAD_NO_BIAS)
            | (0 if output_projection else _ffi.MULTIHEAD_NO_OUTPUT_PROJECTION)
            | (_ffi.MULTIHEAD_ADD_BIAS_KV if add_bias_kv else 0)
            | (_ffi.MULTIHEAD_ADD_ZERO_ATTN if add_zero_attn else 0)
            | (0 if scale is None else _ffi.MULTIHEAD_HAS_SCALE),
            embed_dim=count_option(embed_dim, "embed_dim"),
            num_heads=count_option(num_heads, "num_heads"),
            num_kv_heads=0 if num_kv_heads is None else count_option(num_kv_heads, "num_kv_heads"),
            kdim=0 if kdim is None else count_option(kdim, "kdim"),
            vdim=0 if vdim is None else count_option(vdim, "vdim"),
            scale=0.0 if scale is None else real(scale, "scale"),
            positions=choice(_ffi.POSITIONS, positions, "positions"),
            precision=choice(_ffi.PRECISIONS, precision, "precision"),
            dtype=dtype_option(dtype),
            dropout=real(dropout, "dropout"),
        )
        super().__init__(_ffi.multihead_attention_create, options)
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self._extra_keys = bool(add_bias_kv) + bool(add_zero_attn)

    def __call__(
        self,
        query: ArrayLike,
        key: ArrayLike,
        value: ArrayLike,
        key_padding_mask: ArrayLike | None = None,
        need_weights: bool = True,
        attn_mask: ArrayLike | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        cu_seqlens_q: ArrayLike | None = None,
        cu_seqlens_k: ArrayLike | None = None,
    ) -> tuple[Array, Array | None]:
        """concat(softmax(scale * Q_h K_h^T) V_h) W_o^T + b_o.

        Args:
            query: (B, T, E), or (T, E).
            key: (B, S, kdim), or (S, kdim). The same array as key and value, or as all three, is projected once.
            value: (B, S, vdim), or (S, vdim).
            key_padding_mask: (B, S), or (S,): True hides a key (torch.nn's polarity); floats are added to the scores.
            need_weights: whether to return the weights as well. Without them nothing of size T x S is stored.
            attn_mask: (T, S) or (B * num_heads, T, S): True hides; floats are added.
            average_attn_weights: whether the weights are the mean over the heads.
            is_causal: hides key j from query i < j, on top of the masks.
            cu_seqlens_q, cu_seqlens_k: (B + 1,) int32: query (rows, E), key and value are sequences packed without padding,
                as in attention_varlen; without masks and weights.

        Returns:
            (out, weights): out like query; weights (B, T, S), or (B, num_heads, T, S), or None; before dropout.

        A query whose keys are all hidden attends to nothing: its weights are 0, and its output is the projection's bias.
        torch.nn gives NaN there.

        Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
        """
        q = borrow(query, "query")
        k = q if key is query else borrow(key, "key")
        v = k if value is key else borrow(value, "value")
        visibility = Visibility(q, attn_mask, key_padding_mask, is_causal, ("attn_mask", "key_padding_mask"))
        starts = [
            None if array is None else borrow_integers(array, name)
            for array, name in ((cu_seqlens_q, "cu_seqlens_q"), (cu_seqlens_k, "cu_seqlens_k"))
        ]
        call = _ffi.MultiheadAttentionCall(
            ctypes.sizeof(_ffi.MultiheadAttentionCall),
            bool(average_attn_weights),
            visibility.struct,
            *map(_ffi.pointer, starts),
        )
        out, weights = empty(q.dims, q), None
        if need_weights and cu_seqlens_q is None and len(q.dims) > 1 and len(k.dims) > 1:
            heads = () if average_attn_weights else (self.num_heads,)
            weights = empty((*q.dims[:-2], *heads, q.dims[-2], k.dims[-2] + self._extra_keys), q)
        _ffi.multihead_attention_forward(self._handle, q, k, v, call, out, weights)
        self._keep(q, k, v)
        return out.owner, None if weights is None else weights.owner
