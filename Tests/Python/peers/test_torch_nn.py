"""swiftattn.nn next to torch.nn on the same state dict: largest relative difference 1e-5 in float32."""

import itertools
import warnings

import numpy as np
import pytest
import swiftattn.nn as ours
import torch
from torch import nn as theirs

LIMIT = {torch.float32: 1e-5, torch.float64: 1e-12}
WIDTH, HEADS, INNER = 48, 4, 80
BATCH, TARGETS, SOURCES = 3, 5, 7

pytestmark = pytest.mark.filterwarnings("ignore")


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def twins(name, *arguments, dtype=torch.float32, **options):
    """Both libraries' module with the same parameters, all of them random."""
    peer = getattr(theirs, name)(*arguments, batch_first=True, dtype=dtype, **options).eval()
    for n, parameter in enumerate(peer.parameters()):
        with torch.no_grad():
            parameter.copy_(numbers(*parameter.shape, dtype=dtype, seed=n + 100) * 0.2 + (parameter.ndim == 1) * 0.5)
    mine = getattr(ours, name)(*arguments, dtype=dtype, **options)
    mine.load_state_dict(peer.state_dict())
    return mine, peer


def same(got, expected):
    assert isinstance(got, torch.Tensor) and got.dtype == expected.dtype and got.shape == expected.shape
    difference = (got - expected).abs().max() / expected.abs().max()
    assert difference <= LIMIT[got.dtype], f"relative difference {difference:.3g}"


def hidden(*shape, seed):
    """True hides; the first key stays visible to everyone, without it torch gives NaN."""
    mask = numbers(*shape, seed=seed) > 0.5
    mask[..., 0] = False
    return mask


def masks(queries, keys, dtype):
    return {
        "none": None,
        "bool": hidden(queries, keys, seed=1),
        "bool per head": hidden(BATCH * HEADS, queries, keys, seed=2),
        "float": numbers(queries, keys, dtype=dtype, seed=3),
        "float per head": numbers(BATCH * HEADS, queries, keys, dtype=dtype, seed=4),
        "minus infinity": torch.zeros(queries, keys, dtype=dtype).masked_fill(hidden(queries, keys, seed=5), -torch.inf),
    }


def paddings(keys, dtype):
    lengths = torch.tensor([keys, 1, keys - 2])
    return {
        "none": None,
        "lengths": torch.arange(keys) >= lengths[:, None],
        "holes": hidden(BATCH, keys, seed=6),
        "float": numbers(BATCH, keys, dtype=dtype, seed=7),
    }


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"kdim": 20, "vdim": 12},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"add_bias_kv": True, "add_zero_attn": True, "kdim": 20},
    ],
    ids=str,
)
def test_attention(options, dtype):
    mine, peer = twins("MultiheadAttention", WIDTH, HEADS, dtype=dtype, **options)
    query = numbers(BATCH, TARGETS, WIDTH, dtype=dtype, seed=1)
    key = numbers(BATCH, SOURCES, options.get("kdim", WIDTH), dtype=dtype, seed=2)
    value = numbers(BATCH, SOURCES, options.get("vdim", WIDTH), dtype=dtype, seed=3)
    for mask, padding in itertools.product(
        masks(TARGETS, SOURCES, dtype).values(), paddings(SOURCES, dtype).values()
    ):
        for average in (True, False):
            arguments = dict(attn_mask=mask, key_padding_mask=padding, average_attn_weights=average)
            with torch.no_grad():
                for got, expected in zip(mine(query, key, value, **arguments), peer(query, key, value, **arguments)):
                    same(got, expected)
    with torch.no_grad():
        out, weights = mine(query[0], key[0], value[0], key_padding_mask=hidden(SOURCES, seed=1))
        expected = peer(query[0], key[0], value[0], key_padding_mask=hidden(SOURCES, seed=1))
        same(out, expected[0])
        same(weights, expected[1])
        assert mine(query, key, value, need_weights=False)[1] is None


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_self_attention_and_shared_keys(dtype):
    mine, peer = twins("MultiheadAttention", WIDTH, HEADS, dtype=dtype)
    x, memory = numbers(BATCH, TARGETS, WIDTH, dtype=dtype), numbers(BATCH, SOURCES, WIDTH, dtype=dtype, seed=9)
    causal = torch.ones(TARGETS, TARGETS).triu(1) > 0
    with torch.no_grad():
        same(mine(x, x, x)[0], peer(x, x, x)[0])
        same(mine(x, memory, memory)[0], peer(x, memory, memory)[0])
        same(mine(x, x, x, is_causal=True)[0], peer(x, x, x, attn_mask=causal)[0])
        column = x.transpose(0, 1).contiguous().transpose(0, 1)  # other strides
        same(mine(column, column, column)[0], peer(x, x, x)[0])


LAYERS = [
    dict(zip(("norm_first", "activation", "bias"), choice))
    for choice in itertools.product([False, True], ["relu", "gelu"], [True, False])
]


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_encoder_layer(options, dtype):
    mine, peer = twins("TransformerEncoderLayer", WIDTH, HEADS, INNER, 0.1, dtype=dtype, **options)
    x = numbers(BATCH, TARGETS, WIDTH, dtype=dtype)
    for mask, padding in itertools.product(masks(TARGETS, TARGETS, dtype).values(), paddings(TARGETS, dtype).values()):
        expected = peer(x, src_mask=mask, src_key_padding_mask=padding)  # with gradients: not the fast path
        same(mine(x, src_mask=mask, src_key_padding_mask=padding), expected.detach())
    same(mine(x[0]), peer(x[0]).detach())


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_decoder_layer(options, dtype):
    mine, peer = twins("TransformerDecoderLayer", WIDTH, HEADS, INNER, 0.1, dtype=dtype, **options)
    x, memory = numbers(BATCH, TARGETS, WIDTH, dtype=dtype), numbers(BATCH, SOURCES, WIDTH, dtype=dtype, seed=9)
    own, other = masks(TARGETS, TARGETS, dtype), masks(TARGETS, SOURCES, dtype)
    for kind, padding in itertools.product(own, paddings(SOURCES, dtype)):
        arguments = dict(
            tgt_mask=own[kind],
            memory_mask=other[kind],
            tgt_key_padding_mask=paddings(TARGETS, dtype)[padding],
            memory_key_padding_mask=paddings(SOURCES, dtype)[padding],
        )
        same(mine(x, memory, **arguments), peer(x, memory, **arguments).detach())
    same(mine(x[0], memory[0]), peer(x[0], memory[0]).detach())


@pytest.mark.parametrize("norm", [None, "layer"])
@pytest.mark.parametrize("options", LAYERS[::3], ids=str)
def test_stacks(options, norm):
    arguments = (WIDTH, HEADS, INNER, 0.1)
    final = theirs.LayerNorm(WIDTH, bias=options["bias"]) if norm else None
    x, memory = numbers(BATCH, TARGETS, WIDTH), numbers(BATCH, SOURCES, WIDTH, seed=9)
    padding, memory_padding = (paddings(length, torch.float32)["lengths"] for length in (TARGETS, SOURCES))

    mine, layer = twins("TransformerEncoderLayer", *arguments, **options)
    stack = theirs.TransformerEncoder(layer, 3, final, enable_nested_tensor=False).eval()
    copies = ours.TransformerEncoder(mine, 3, norm)
    same(copies(x), stack(x).detach())  # the layer's own parameters, copied
    copies.load_state_dict(stack.state_dict())
    same(copies(x, src_key_padding_mask=padding), stack(x, src_key_padding_mask=padding).detach())

    mine, layer = twins("TransformerDecoderLayer", *arguments, **options)
    stack = theirs.TransformerDecoder(layer, 3, final).eval()
    copies = ours.TransformerDecoder(mine, 3, norm)
    copies.load_state_dict(stack.state_dict())
    causal = theirs.Transformer.generate_square_subsequent_mask(TARGETS)
    got = copies(x, memory, tgt_is_causal=True, memory_key_padding_mask=memory_padding)
    same(got, stack(x, memory, tgt_mask=causal, memory_key_padding_mask=memory_padding).detach())


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_transformer(options):
    mine, peer = twins("Transformer", WIDTH, HEADS, 2, 3, INNER, 0.1, **options)
    src, tgt = numbers(BATCH, SOURCES, WIDTH), numbers(BATCH, TARGETS, WIDTH, seed=9)
    dtype = torch.float32
    for kind, padding in itertools.product(masks(1, 2, dtype), paddings(4, dtype)):
        arguments = dict(
            src_mask=masks(SOURCES, SOURCES, dtype)[kind],
            tgt_mask=masks(TARGETS, TARGETS, dtype)[kind],
            memory_mask=masks(TARGETS, SOURCES, dtype)[kind],
            src_key_padding_mask=paddings(SOURCES, dtype)[padding],
            tgt_key_padding_mask=paddings(TARGETS, dtype)[padding],
            memory_key_padding_mask=paddings(SOURCES, dtype)[padding],
        )
        same(mine(src, tgt, **arguments), peer(src, tgt, **arguments).detach())


def test_names_are_torchs_in_torchs_order():
    mine, peer = twins("Transformer", WIDTH, HEADS, 2, 2, INNER)
    assert list(mine.state_dict()) == list(peer.state_dict())
    mine, peer = twins("MultiheadAttention", WIDTH, HEADS, kdim=8, add_bias_kv=True)
    assert list(mine.state_dict()) == list(peer.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, array in mine.state_dict().items():
            assert torch.equal(torch.from_numpy(array), peer.state_dict()[name])


@pytest.mark.parametrize("options", LAYERS[::3], ids=str)
def test_gradients(options):
    mine, peer = twins("Transformer", WIDTH, HEADS, 2, 2, INNER, 0.0, dtype=torch.float64, **options)
    src, tgt = numbers(BATCH, SOURCES, WIDTH, dtype=torch.float64), numbers(BATCH, TARGETS, WIDTH, dtype=torch.float64, seed=9)
    padding = paddings(SOURCES, torch.float64)["lengths"]
    grad = numbers(BATCH, TARGETS, WIDTH, dtype=torch.float64, seed=5)
    inputs = src.clone().requires_grad_(), tgt.clone().requires_grad_()
    causal = theirs.Transformer.generate_square_subsequent_mask(TARGETS, dtype=torch.float64)
    arguments = dict(src_key_padding_mask=padding, memory_key_padding_mask=padding)
    peer(*inputs, tgt_mask=causal, **arguments).backward(grad)
    mine.train()
    mine(src, tgt, tgt_is_causal=True, **arguments)
    for got, expected in zip(mine.backward(grad), inputs):
        same(got, expected.grad)
    for name, gradient in mine.gradients().items():
        expected = dict(peer.named_parameters())[name].grad
        assert np.abs(gradient - expected.numpy()).max() <= 1e-11 * max(expected.abs().max(), 1), name
