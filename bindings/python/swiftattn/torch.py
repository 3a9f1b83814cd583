"""Attention as an operator of PyTorch: differentiable on CPU tensors, without copies, and an attention implementation for
Hugging Face transformers. Needs the package torch."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise ImportError("swiftattn.torch needs PyTorch: pip install torch") from error

from . import attention, attention_backward

__all__ = ["scaled_dot_product_attention", "use_in_transformers"]

_CAUSAL = {False: "", True: "upper_left", "upper_left": "upper_left", "lower_right": "lower_right"}


def _options(
    dropout_p,
    causal,
    scale,
    query_offset,
    query_offsets,
    window_left,
    window_right,
    softcap,
    alibi_slopes,
    sinks,
    q_lengths,
    kv_lengths,
    seed,
    precision,
):
    """The operators' arguments as the functions' options."""
    return {
        "dropout_p": dropout_p,
        "is_causal": causal or False,
        "scale": scale,
        "query_offset": query_offset if query_offsets is None else query_offsets,
        "window": (window_left, window_right),
        "softcap": softcap,
        "alibi_slopes": alibi_slopes,
        "sinks": sinks,
        "q_lengths": q_lengths,
        "kv_lengths": kv_lengths,
        "seed": seed % 2**64,
        "precision": precision,
    }


@torch.library.custom_op("swiftattn::attention", mutates_args=())
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    causal: str,
    scale: float | None,
    query_offset: int | None,
    query_offsets: Tensor | None,
    window_left: int | None,
    window_right: int | None,
    softcap: float,
    alibi_slopes: Tensor | None,
    sinks: Tensor | None,
    q_lengths: Tensor | None,
    kv_lengths: Tensor | None,
    seed: int,
    precision: str,
) -> tuple[Tensor, Tensor]:
    options = _options(
        *(dropout_p, causal, scale, query_offset, query_offsets, window_left, window_right, softcap),
        *(alibi_slopes, sinks, q_lengths, kv_lengths, seed, precision),
    )
    with torch.no_grad():
        return attention.scaled_dot_product_attention(query, key, value, attn_mask, return_lse=True, **options)


@_attention.register_fake
def _(query, key, value, *arguments):
    leading = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
    rows = (*leading, *query.shape[-3:-1])
    sums = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty((*rows, value.shape[-1])), query.new_empty(rows, dtype=sums)


@torch.library.custom_op("swiftattn::attention_backward", mutates_args=())
def _attention_backward(
    grad_out: Tensor,
    out: Tensor,
    lse: Tensor,
    bias_grad: bool,
    sink_grad: bool,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    causal: str,
    scale: float | None,
    query_offset: int | None,
    query_offsets: Tensor | None,
    window_left: int | None,
    window_right: int | None,
    softcap: float,
    alibi_slopes: Tensor | None,
    sinks: Tensor | None,
    q_lengths: Tensor | None,
    kv_lengths: Tensor | None,
    seed: int,
    precision: str,
) -> list[Tensor]:
    options = _options(
        *(dropout_p, causal, scale, query_offset, query_offsets, window_left, window_right, softcap),
        *(alibi_slopes, sinks, q_lengths, kv_lengths, seed, precision),
    )
    with torch.no_grad():
        gradients = attention_backward.scaled_dot_product_attention_backward(
            grad_out, query, key, value, out, lse, attn_mask, bias_grad=bias_grad, sink_grad=sink_grad, **options
        )
    if sink_grad:  # sinks of another dtype were converted to float32
        gradients = (*gradients[:-1], torch.as_tensor(gradients[-1]).to(sinks.dtype))
    return list(gradients)


@_attention_backward.register_fake
def _(grad_out, out, lse, bias_grad, sink_grad, query, key, value, attn_mask, *arguments):
    sinks = arguments[9]
    given = [query, key, value, *([attn_mask] if bias_grad else []), *([sinks] if sink_grad else [])]
    return [x.new_empty(x.shape) for x in given]


def _keep(ctx, inputs, output):
    tensors = [i for i, x in enumerate(inputs) if isinstance(x, Tensor)]
    ctx.places = tensors
    ctx.rest = [None if i in tensors else x for i, x in enumerate(inputs)]
    ctx.save_for_backward(*(inputs[i] for i in tensors), *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad_out, grad_lse):
    *tensors, out, lse = ctx.saved_tensors
    inputs = list(ctx.rest)
    for i, tensor in zip(ctx.places, tensors):
        inputs[i] = tensor
    wants = ctx.needs_input_grad
    bias, sink = wants[3], wants[13]
    gradients = iter(_attention_backward(grad_out, out, lse, bias, sink, *inputs))
    found = [next(gradients) for _ in range(3)]
    result = [None] * len(inputs)
    result[:3] = (gradient if wanted else None for gradient, wanted in zip(found, wants))
    if bias:
        result[3] = next(gradients)
    if sink:
        result[13] = next(gradients)
    return tuple(result)


_attention.register_autograd(_differentiate, setup_context=_keep)


def scaled_dot_product_attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    *,
    query_offset=None,
    window=None,
    softcap=0.0,
    alibi_slopes=None,
    sinks=None,
    q_lengths=None,
    kv_lengths=None,
    seed=None,
    precision="highest",
    return_lse=False,
):
    """swiftattn.scaled_dot_product_attention as a differentiable operator of torch.

    Arguments as there, tensors of torch in CPU memory. Gradients flow to query, key, value, a float attn_mask and sinks.
    lse is returned without a gradient.

    Args:
        seed: of the dropout. None draws one from torch's generator, so that torch.manual_seed decides.
    """
    if seed is None:
        seed = int(torch.randint(2**62, (), device="cpu")) if dropout_p else 0
    if is_causal not in _CAUSAL:
        raise ValueError(f"is_causal: expected one of False, True, 'upper_left', 'lower_right', got {is_causal!r}")
    left, right = (None, None) if window is None else window
    offsets = query_offset if isinstance(query_offset, Tensor) else None
    out, lse = _attention(
        *(query, key, value, attn_mask, float(dropout_p), _CAUSAL[is_causal], scale),
        *(None if offsets is not None else query_offset, offsets, left, right, float(softcap)),
        *(alibi_slopes, sinks, q_lengths, kv_lengths, seed - 2**64 if seed >= 2**63 else seed, precision),
    )
    return (out, lse) if return_lse else out


def _transformers_attention(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, position_bias=None, **options
):
    """An attention function as transformers calls it: (B, H, T, D) in, (B, T, H, D) out.

    attention_mask is what sdpa gets: bool, float or None, and None means causal for a decoder's queries.
    """
    if options.get("cache") is not None:
        raise ValueError("swiftattn: the paged caches of continuous batching are not supported")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and query.shape[2] > 1
    if position_bias is not None:
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            attention_mask = torch.where(attention_mask, position_bias, -torch.inf)
        else:
            attention_mask = position_bias if attention_mask is None else position_bias + attention_mask
    out = scaled_dot_product_attention(
        *(query, key, value, attention_mask, dropout, causal, scaling),
        softcap=options.get("softcap") or 0.0,
        sinks=options.get("s_aux"),
    )
    return out.transpose(1, 2).contiguous(), None


def use_in_transformers(name="swiftattn"):
    """Registers the operator with Hugging Face transformers: models then take attn_implementation="swiftattn".

    Model families that sdpa supports work: causal, sliding-window and bidirectional masks, grouped heads, caches, softcap,
    sinks, dropout and training. Needs the package transformers.
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask
    except ImportError as error:
        raise ImportError("use_in_transformers needs the package transformers: pip install transformers") from error
    AttentionInterface.register(name, _transformers_attention)
    AttentionMaskInterface.register(name, sdpa_mask)
