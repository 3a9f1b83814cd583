"""Models over token ids."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

from .. import _ffi
from .._tensor import Array, ArrayLike, borrow_integers, choice, dtype_name, empty, integer
from ._module import Module, Visibility, count_option
from .transformer import TransformerEncoderLayer


class TokenOutput(NamedTuple):
    """What a TokenModel gives when more than its result is asked for."""

    out: Array
    hidden: Array | None  # (L + 1, ..., E), the rows before, between and after the L layers
    attentions: Array | None  # (L, B, nhead, T, T)


class TokenModel(Module):
    """A Transformer over tokens: head(norm(layers(embedding(ids)))). An encoder, or with is_causal a language model.

    Args:
        layer: a TransformerEncoderLayer, for the options of all layers.
        num_layers: how many.
        vocab_size: V.
        embedding_dim: W, the width of the tables; None is the layers' E. Another one goes through a projection.
        token_positions: what is added to the rows of tokens: "none", "sinusoidal" or "learned". Rotary positions and ALiBi
            are options of the layer.
        max_positions: rows of the learned table.
        first_position: the row in it that the first token takes.
        type_vocab_size: kinds of tokens with a row each; 0 for none.
        embedding_norm: whether a norm of the layers' kind follows the sum.
        shared_layers: whether one layer is run num_layers times.
        attention_only: whether layers are their self-attention alone, without norms, residuals, feed-forward part and output
            projection; the layer's dropout is that of the weights.
        final_norm: None, "layer" or "rms".
        head: None gives rows, "vocabulary" logits over the vocabulary, "tied" the same from the embedding's table, "classes"
            logits over num_classes.
        head_bias: whether the head has one.

    Parameters: embedding.weight (V, W), embedding.positions.weight, embedding.types.weight, embedding.norm.*,
    embedding.projection.*; layers.N.*, norm.* as in TransformerEncoder; head.weight unless tied, head.bias, and for a
    vocabulary with W other than E head.projection.weight (W, E).
    """

    def __init__(
        self,
        layer: TransformerEncoderLayer,
        num_layers: int,
        vocab_size: int,
        *,
        embedding_dim: int | None = None,
        token_positions: str = "none",
        max_positions: int = 512,
        first_position: int = 0,
        type_vocab_size: int = 0,
        embedding_norm: bool = False,
        shared_layers: bool = False,
        attention_only: bool = False,
        final_norm: str | None = None,
        head: str | None = None,
        num_classes: int = 0,
        head_bias: bool = False,
    ) -> None:
        options = _ffi.TokenModelOptions(
            struct_size=ctypes.sizeof(_ffi.TokenModelOptions),
            flags=(_ffi.TOKEN_MODEL_EMBEDDING_NORM if embedding_norm else 0)
            | (_ffi.TOKEN_MODEL_SHARED_LAYERS if shared_layers else 0)
            | (_ffi.TOKEN_MODEL_HEAD_BIAS if head_bias else 0)
            | (_ffi.TOKEN_MODEL_ATTENTION_ONLY if attention_only else 0),
            layer=ctypes.pointer(layer._options),
            num_layers=count_option(num_layers, "num_layers"),
            vocab_size=count_option(vocab_size, "vocab_size"),
            embedding_dim=0 if embedding_dim is None else count_option(embedding_dim, "embedding_dim"),
            max_positions=count_option(max_positions, "max_positions"),
            first_position=integer(first_position, "first_position"),
            type_vocab_size=integer(type_vocab_size, "type_vocab_size"),
            num_classes=integer(num_classes, "num_classes"),
            token_positions=choice(_ffi.TOKEN_POSITIONS, token_positions, "token_positions"),
            head=choice(_ffi.HEADS, head, "head"),
            final_norm=choice(_ffi.FINAL_NORMS, final_norm, "final_norm"),
        )
        super().__init__(_ffi.token_model_create, options)
        self.num_layers, self.d_model, self.nhead = num_layers, layer._options.d_model, layer._options.nhead
        widths = {None: self.d_model, "vocabulary": vocab_size, "tied": vocab_size, "classes": num_classes}
        self._width = widths[head]
        self._dtype = layer._options.dtype

    def __call__(
        self,
        ids: ArrayLike,
        attn_mask: ArrayLike | None = None,
        key_padding_mask: ArrayLike | None = None,
        is_causal: bool = False,
        *,
        type_ids: ArrayLike | None = None,
        cu_seqlens: ArrayLike | None = None,
        pooling: str | None = None,
        normalize: bool = False,
        return_hidden: bool = False,
        return_attentions: bool = False,
    ) -> Array | TokenOutput:
        """Args:
            ids: (B, T) int32 or int64, or packed (rows,) with cu_seqlens.
            attn_mask: (T, T) or (B * nhead, T, T): True hides (torch.nn's polarity), floats are added to the scores.
            key_padding_mask: (B, T), likewise; pooling leaves out what it hides.
            is_causal: hides key j from query i < j.
            type_ids: as ids, the kind of each token; None is 0.
            cu_seqlens: (B + 1,) int32: where each sequence of packed ids begins, and the end.
            pooling: None gives a row for each token, "mean" and "first" one for each sequence.
            normalize: whether the result's rows are scaled to length 1.
            return_hidden, return_attentions: whether these are returned as well, in a TokenOutput.

        Returns:
            (B, T, N) or (rows, N), with pooling (B, N); N is E, or the width of the head. A padded batch and packed sequences
            give the same bits.

        Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
        """
        tokens = borrow_integers(ids, "ids")
        like = _ffi.Tensor(dtype=self._dtype)
        visibility = Visibility(like, attn_mask, key_padding_mask, is_causal, ("attn_mask", "key_padding_mask"))
        types = None if type_ids is None else borrow_integers(type_ids, "type_ids")
        starts = None if cu_seqlens is None else borrow_integers(cu_seqlens, "cu_seqlens")
        shape, layers = tuple(tokens.dims), self.num_layers
        batch = shape[0] if starts is None else max(starts.dims[0] - 1, 0) if starts.ndim else 0
        dtype = dtype_name(self._dtype)
        out = empty((*(shape if pooling is None else (batch,)), self._width), tokens, dtype)
        hidden = empty((layers + 1, *shape, self.d_model), tokens, dtype) if return_hidden else None
        attentions = empty((layers, batch, self.nhead, *shape[-1:] * 2), tokens, dtype) if return_attentions else None
        call = _ffi.TokenModelCall(
            *(ctypes.sizeof(_ffi.TokenModelCall), choice(_ffi.POOLINGS, pooling, "pooling"), bool(normalize), 0),
            visibility.struct,
            *map(_ffi.pointer, (starts, types, hidden, attentions)),
        )
        _ffi.token_model_forward(self._handle, tokens, call, out)
        if not return_hidden and not return_attentions:
            return out.owner
        return TokenOutput(out.owner, *(None if extra is None else extra.owner for extra in (hidden, attentions)))
