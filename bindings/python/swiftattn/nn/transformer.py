"""The Transformer's layers and stacks as blocks."""

from __future__ import annotations

import ctypes
from typing import Any

from .. import _ffi
from .._tensor import Array, ArrayLike, borrow, borrow_integers, choice, empty, real
from ._module import Module, Visibility, count_option, dtype_option, require_batch_first


def _layer_options(
    d_model: int,
    nhead: int,
    dim_feedforward: int,
    dropout: float,
    activation: Any,
    layer_norm_eps: float,
    batch_first: bool,
    norm_first: bool,
    bias: bool,
    dtype: Any,
    num_kv_heads: int | None,
    norm: str,
    positions: str,
    precision: str,
) -> _ffi.LayerOptions:
    require_batch_first(batch_first)
    word = activation if isinstance(activation, str) else getattr(activation, "__name__", activation)
    return _ffi.LayerOptions(
        struct_size=ctypes.sizeof(_ffi.LayerOptions),
        flags=(_ffi.LAYER_NORM_FIRST if norm_first else 0) | (0 if bias else _ffi.LAYER_NO_BIAS) | _ffi.LAYER_HAS_EPS,
        d_model=count_option(d_model, "d_model"),
        nhead=count_option(nhead, "nhead"),
        num_kv_heads=0 if num_kv_heads is None else count_option(num_kv_heads, "num_kv_heads"),
        dim_feedforward=count_option(dim_feedforward, "dim_feedforward"),
        eps=real(layer_norm_eps, "layer_norm_eps"),
        activation=choice(_ffi.FEED_FORWARD_ACTIVATIONS, word, "activation"),
        norm=choice(_ffi.NORMS, norm, "norm"),
        positions=choice(_ffi.POSITIONS, positions, "positions"),
        precision=choice(_ffi.PRECISIONS, precision, "precision"),
        dtype=dtype_option(dtype),
        dropout=real(dropout, "dropout"),
    )


class _Call:
    """swiftattn_layer_call and the arrays that it borrows."""

    def __init__(self, own: Visibility, memory: Visibility | None = None, src: Visibility | None = None, **starts: Any):
        self._visibilities = own, memory, src
        self._starts = {
            name: borrow_integers(array, name) for name, array in starts.items() if array is not None
        }
        nothing = _ffi.Visibility()
        self.struct = _ffi.LayerCall(
            ctypes.sizeof(_ffi.LayerCall),
            0,
            *(nothing if visibility is None else visibility.struct for visibility in self._visibilities),
            **{name: _ffi.pointer(tensor) for name, tensor in self._starts.items()},
        )


class _Layer(Module):
    """A layer: its options are kept for the stacks that repeat it."""

    _create: Any

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = True,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = "float32",
        *,
        num_kv_heads: int | None = None,
        norm: str = "layer",
        positions: str = "none",
        precision: str = "highest",
    ) -> None:
        self._options = _layer_options(
            *(d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias),
            *(dtype, num_kv_heads, norm, positions, precision),
        )
        super().__init__(self._create, self._options)


class _Stack(Module):
    """Copies of a layer, parameters included, and a final norm."""

    def __init__(self, create: Any, layer: _Layer, num_layers: int, norm: str | None) -> None:
        final = choice(_ffi.FINAL_NORMS, norm, "norm")
        super().__init__(create, layer._options, count_option(num_layers, "num_layers"), final)
        state = layer.state_dict()
        copies = {f"layers.{n}.{name}": array for n in range(num_layers) for name, array in state.items()}
        self.load_state_dict(copies, strict=False)


class _Encoding:
    """How encoder layers and their stacks are called."""

    def _run(self, x: Any, name: str, mask: Any, padding: Any, is_causal: Any, names: tuple[str, str], starts: Any) -> Array:
        source = borrow(x, name)
        call = _Call(Visibility(source, mask, padding, is_causal, names), cu_seqlens=starts)
        out = empty(source.dims, source)
        _ffi.encoder_forward(self._handle, source, call.struct, out)
        self._keep(source)
        return out.owner


class _Decoding:
    """How decoder layers and their stacks are called."""

    def __call__(
        self,
        tgt: ArrayLike,
        memory: ArrayLike,
        tgt_mask: ArrayLike | None = None,
        memory_mask: ArrayLike | None = None,
        tgt_key_padding_mask: ArrayLike | None = None,
        memory_key_padding_mask: ArrayLike | None = None,
        tgt_is_causal: bool | None = False,
        memory_is_causal: bool = False,
        *,
        cu_seqlens: ArrayLike | None = None,
        memory_cu_seqlens: ArrayLike | None = None,
    ) -> Array:
        """Args:
            tgt: (B, T, E), or (T, E).
            memory: (B, S, E), or (S, E): what cross-attention looks at.
            tgt_mask, memory_mask: (T, T) and (T, S), or with B * nhead in front. True hides (torch.nn's polarity), floats are
                added to the scores.
            tgt_key_padding_mask, memory_key_padding_mask: (B, T) and (B, S), likewise.
            tgt_is_causal, memory_is_causal: hide key j from query i < j, on top of the masks.
            cu_seqlens, memory_cu_seqlens: (B + 1,) int32: tgt and memory are sequences packed without padding, (rows, E).

        Returns:
            An array like tgt. A query whose keys are all hidden attends to nothing (torch.nn: NaN).

        Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
        """
        target = borrow(tgt, "tgt")
        source = target if memory is tgt else borrow(memory, "memory")
        call = _Call(
            Visibility(target, tgt_mask, tgt_key_padding_mask, tgt_is_causal, ("tgt_mask", "tgt_key_padding_mask")),
            Visibility(
                *(target, memory_mask, memory_key_padding_mask, memory_is_causal),
                ("memory_mask", "memory_key_padding_mask"),
            ),
            cu_seqlens=cu_seqlens,
            memory_cu_seqlens=memory_cu_seqlens,
        )
        out = empty(target.dims, target)
        _ffi.decoder_forward(self._handle, target, source, call.struct, out)
        self._keep(target, source)
        return out.owner


class TransformerEncoderLayer(_Encoding, _Layer):
    """torch.nn.TransformerEncoderLayer: self-attention and a feed-forward part.

    Args:
        d_model, nhead, dim_feedforward, dropout, layer_norm_eps, norm_first, bias: as torch.nn's. dropout acts in training.
        activation: "relu", "gelu", "gelu_tanh", "silu", or gated "swiglu", "geglu": these add linear_gate.* to the
            parameters, activation(linear_gate x) * linear1 x.
        batch_first: only True.
        device: taken for compatibility; memory is the CPU's.
        dtype: "float32", "float16", "bfloat16" or "float64", of parameters, inputs and results.
        num_kv_heads: heads of keys and values, a divisor of nhead; None is as many.
        norm: "layer" or "rms".
        positions: "none", "rope" or "alibi", in self-attention.
        precision: of float32 products: "highest", "high" or "medium".

    Parameters begin as zeros, norms as ones: load_state_dict.
    """

    _create = _ffi.encoder_layer_create

    def __call__(
        self,
        src: ArrayLike,
        src_mask: ArrayLike | None = None,
        src_key_padding_mask: ArrayLike | None = None,
        is_causal: bool = False,
        *,
        cu_seqlens: ArrayLike | None = None,
    ) -> Array:
        """Args:
            src: (B, T, E), or (T, E).
            src_mask: (T, T) or (B * nhead, T, T): True hides (torch.nn's polarity), floats are added to the scores.
            src_key_padding_mask: (B, T), or (T,): likewise.
            is_causal: hides key j from query i < j, on top of the masks.
            cu_seqlens: (B + 1,) int32: src is sequences packed without padding, (rows, E).

        Returns:
            An array like src; rows that are padding are computed like the others. A query whose keys are all hidden attends
            to nothing (torch.nn: NaN).

        Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
        """
        return self._run(
            *(src, "src", src_mask, src_key_padding_mask, is_causal),
            *(("src_mask", "src_key_padding_mask"), cu_seqlens),
        )


class TransformerEncoder(_Encoding, _Stack):
    """torch.nn.TransformerEncoder: num_layers copies of encoder_layer, then a norm: None, "layer" or "rms"."""

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer,
        num_layers: int,
        norm: str | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__(_ffi.encoder_create, encoder_layer, num_layers, norm)

    def __call__(
        self,
        src: ArrayLike,
        mask: ArrayLike | None = None,
        src_key_padding_mask: ArrayLike | None = None,
        is_causal: bool | None = None,
        *,
        cu_seqlens: ArrayLike | None = None,
    ) -> Array:
        """As TransformerEncoderLayer, through all layers. torch.nn may set rows that are padding to 0; here they are computed."""
        return self._run(
            *(src, "src", mask, src_key_padding_mask, is_causal),
            *(("mask", "src_key_padding_mask"), cu_seqlens),
        )


class TransformerDecoderLayer(_Decoding, _Layer):
    """torch.nn.TransformerDecoderLayer: self-attention, cross-attention on a memory, and a feed-forward part.

    Arguments as TransformerEncoderLayer's; positions are those of self-attention.
    """

    _create = _ffi.decoder_layer_create


class TransformerDecoder(_Decoding, _Stack):
    """torch.nn.TransformerDecoder: num_layers copies of decoder_layer, then a norm: None, "layer" or "rms"."""

    def __init__(self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: str | None = None) -> None:
        super().__init__(_ffi.decoder_create, decoder_layer, num_layers, norm)


class Transformer(Module):
    """torch.nn.Transformer: an encoder whose result is the memory of a decoder, both with a final norm.

    Arguments as TransformerEncoderLayer's, and num_encoder_layers, num_decoder_layers; custom_encoder and custom_decoder are
    not taken.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = "relu",
        custom_encoder: None = None,
        custom_decoder: None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = True,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = "float32",
        *,
        num_kv_heads: int | None = None,
        norm: str = "layer",
        positions: str = "none",
        precision: str = "highest",
    ) -> None:
        for name, module in (("custom_encoder", custom_encoder), ("custom_decoder", custom_decoder)):
            if module is not None:
                raise ValueError(f"{name}: expected None, got {type(module).__name__}")
        options = _layer_options(
            *(d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias),
            *(dtype, num_kv_heads, norm, positions, precision),
        )
        super().__init__(
            *(_ffi.transformer_create, options),
            count_option(num_encoder_layers, "num_encoder_layers"),
            count_option(num_decoder_layers, "num_decoder_layers"),
        )

    def __call__(
        self,
        src: ArrayLike,
        tgt: ArrayLike,
        src_mask: ArrayLike | None = None,
        tgt_mask: ArrayLike | None = None,
        memory_mask: ArrayLike | None = None,
        src_key_padding_mask: ArrayLike | None = None,
        tgt_key_padding_mask: ArrayLike | None = None,
        memory_key_padding_mask: ArrayLike | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        cu_seqlens: ArrayLike | None = None,
        memory_cu_seqlens: ArrayLike | None = None,
    ) -> Array:
        """Args:
            src: (B, S, E), or (S, E).
            tgt: (B, T, E), or (T, E).
            src_mask, tgt_mask, memory_mask: (S, S), (T, T), (T, S), or with B * nhead in front. True hides (torch.nn's
                polarity), floats are added to the scores.
            src_key_padding_mask, tgt_key_padding_mask, memory_key_padding_mask: (B, S), (B, T), (B, S), likewise.
            src_is_causal, tgt_is_causal, memory_is_causal: hide key j from query i < j, on top of the masks.
            cu_seqlens, memory_cu_seqlens: (B + 1,) int32: tgt and src are sequences packed without padding, (rows, E).

        Returns:
            An array like tgt. A query whose keys are all hidden attends to nothing (torch.nn: NaN).

        Raises ValueError, TypeError (dtypes) or MemoryError with the C library's message.
        """
        source = borrow(src, "src")
        target = source if tgt is src else borrow(tgt, "tgt")
        call = _Call(
            Visibility(target, tgt_mask, tgt_key_padding_mask, tgt_is_causal, ("tgt_mask", "tgt_key_padding_mask")),
            Visibility(
                *(target, memory_mask, memory_key_padding_mask, memory_is_causal),
                ("memory_mask", "memory_key_padding_mask"),
            ),
            Visibility(source, src_mask, src_key_padding_mask, src_is_causal, ("src_mask", "src_key_padding_mask")),
            cu_seqlens=cu_seqlens,
            memory_cu_seqlens=memory_cu_seqlens,
        )
        out = empty(target.dims, target)
        _ffi.transformer_forward(self._handle, source, target, call.struct, out)
        self._keep(source, target)
        return out.owner
