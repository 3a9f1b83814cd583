"""The Transformer of the paper over token ids."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from .. import _ffi
from .._tensor import Array, ArrayLike, borrow, borrow_integers, choice, dtype_name, empty, integer, real
from ._module import Module, Visibility, count_option
from .transformer import TransformerEncoderLayer, _Call


class Written(NamedTuple):
    """What an EncoderDecoder wrote for each source."""

    ids: list[list[int]]  # with the end, if it was reached
    scores: np.ndarray  # (B,) float64: sum of log-probabilities / n^length_penalty


class EncoderDecoder(Module):
    """head(decoder(embedding(tgt), encoder(embedding(src)))).

    Args:
        layer: a TransformerEncoderLayer, for the options of all layers of both sides.
        num_encoder_layers, num_decoder_layers: how many.
        src_vocab_size: tokens of the source.
        tgt_vocab_size: V, tokens of the target.
        embedding_dim: the width of the tables; None is the layers' E. Another one goes through a projection.
        token_positions: what is added to the rows of tokens: "none", "sinusoidal" or "learned".
        max_positions: rows of the learned table.
        shared_embedding: whether source and target share one, of src_vocab_size tokens.
        tied_head: whether the head's weight is the target embedding's table.
        head_bias: whether the head has one.

    Parameters: src_embedding.*, tgt_embedding.* and head.* as TokenModel's embedding.* and head.*; encoder.*, decoder.* as
    Transformer's.
    """

    def __init__(
        self,
        layer: TransformerEncoderLayer,
        num_encoder_layers: int,
        num_decoder_layers: int,
        src_vocab_size: int,
        tgt_vocab_size: int | None = None,
        *,
        embedding_dim: int | None = None,
        token_positions: str = "sinusoidal",
        max_positions: int = 512,
        shared_embedding: bool = False,
        tied_head: bool = False,
        head_bias: bool = False,
    ) -> None:
        targets = src_vocab_size if tgt_vocab_size is None else tgt_vocab_size
        options = _ffi.EncoderDecoderOptions(
            struct_size=ctypes.sizeof(_ffi.EncoderDecoderOptions),
            flags=(_ffi.ENCODER_DECODER_SHARED_EMBEDDING if shared_embedding else 0)
            | (_ffi.ENCODER_DECODER_TIED_HEAD if tied_head else 0)
            | (_ffi.ENCODER_DECODER_HEAD_BIAS if head_bias else 0),
            layer=ctypes.pointer(layer._options),
            num_encoder_layers=count_option(num_encoder_layers, "num_encoder_layers"),
            num_decoder_layers=count_option(num_decoder_layers, "num_decoder_layers"),
            src_vocab_size=count_option(src_vocab_size, "src_vocab_size"),
            tgt_vocab_size=count_option(targets, "tgt_vocab_size"),
            embedding_dim=0 if embedding_dim is None else count_option(embedding_dim, "embedding_dim"),
            max_positions=count_option(max_positions, "max_positions"),
            token_positions=choice(_ffi.TOKEN_POSITIONS, token_positions, "token_positions"),
        )
        super().__init__(_ffi.encoder_decoder_create, options)
        self._dtype = layer._options.dtype
        self._width = src_vocab_size if shared_embedding else targets
        self._attentions = (num_decoder_layers, layer._options.nhead)

    def __call__(
        self,
        src: ArrayLike,
        tgt: ArrayLike,
        *,
        src_key_padding_mask: ArrayLike | None = None,
        tgt_key_padding_mask: ArrayLike | None = None,
        memory_key_padding_mask: ArrayLike | None = None,
        tgt_is_causal: bool = True,
        return_attentions: bool = False,
    ) -> Array | tuple[Array, Array]:
        """Args:
            src: (B, S) int32 or int64.
            tgt: (B, T), what was written before each token that is predicted.
            src_key_padding_mask, tgt_key_padding_mask: (B, S), (B, T): True hides (torch.nn's polarity).
            memory_key_padding_mask: (B, S), what the target does not see of the source; None is src_key_padding_mask.
            tgt_is_causal: hides the target's later tokens.
            return_attentions: whether the weights of cross-attention are returned as well, (L, B, nhead, T, S).

        Returns:
            Logits (B, T, V).

        Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
        """
        source, target = borrow_integers(src, "src"), borrow_integers(tgt, "tgt")
        like = _ffi.Tensor(dtype=self._dtype)
        if memory_key_padding_mask is None:
            memory_key_padding_mask = src_key_padding_mask
        names = ("attn_mask", "tgt_key_padding_mask"), ("attn_mask", "memory_key_padding_mask")
        call = _Call(
            Visibility(like, None, tgt_key_padding_mask, tgt_is_causal, names[0]),
            Visibility(like, None, memory_key_padding_mask, False, names[1]),
            Visibility(like, None, src_key_padding_mask, False, ("attn_mask", "src_key_padding_mask")),
        )
        dtype = dtype_name(self._dtype)
        out = empty((*target.dims, self._width), source, dtype)
        layers, heads = self._attentions
        attentions = None
        if return_attentions:
            attentions = empty((layers, *target.dims[:1], heads, *target.dims[1:], *source.dims[1:]), source, dtype)
        _ffi.encoder_decoder_forward(self._handle, source, target, call.struct, out, attentions)
        return out.owner if attentions is None else (out.owner, attentions.owner)

    def write(
        self,
        src: ArrayLike,
        *,
        start: int,
        end: int,
        max_length: int,
        src_key_padding_mask: ArrayLike | None = None,
        beams: int = 1,
        length_penalty: float = 1.0,
    ) -> Written:
        """The best sequence that greedy decoding (one beam) or a beam search finds for each source.

        Args:
            src: (B, S) int32 or int64.
            start: the token that every sequence begins with; it is not part of the result.
            end: the token that ends a sequence; it is part of the result.
            max_length: tokens at most.
            src_key_padding_mask: (B, S): True hides.
            beams: sequences that compete for each source.
            length_penalty: n tokens are worth the sum of their log-probabilities / n^length_penalty.

        Tokens go one by one through KV caches; keys and values of the source are projected once. In each step the beams'
        tokens compete by the sum of log-probabilities; equal sums: the earlier beam and the smaller token first. float64
        modules are not taken.

        Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
        """
        source = borrow_integers(src, "src")
        mask = None if src_key_padding_mask is None else borrow(src_key_padding_mask, "src_key_padding_mask")
        options = _ffi.BeamOptions(
            struct_size=ctypes.sizeof(_ffi.BeamOptions),
            beams=integer(beams, "beams", 1, 1024),
            start=integer(start, "start"),
            end=integer(end, "end"),
            flags=_ffi.BEAM_HAS_LENGTH_PENALTY,
            length_penalty=real(length_penalty, "length_penalty"),
        )
        batch = source.dims[0] if source.ndim else 0
        ids = np.empty((batch, integer(max_length, "max_length", 1, 2**20)), np.int64)
        scores = np.empty(batch, np.float64)
        _ffi.encoder_decoder_write(self._handle, source, mask, options, borrow(ids, "ids", True), borrow(scores, "scores", True))
        return Written([[int(id) for id in row if id >= 0] for row in ids], scores)
