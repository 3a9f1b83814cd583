"""swiftattn.nn against float64 NumPy: what torch.nn has too is in peers/test_torch_nn.py as well."""

import itertools

import ml_dtypes
import nn_reference
import numpy as np
import pytest
import reference
from support import FLOAT32_EPS, strided
from swiftattn import nn

WIDTH, HEADS = 48, 6
LIMIT = {"float32": 1e-5, "float64": 1e-12, "float16": 4e-3, "bfloat16": 4e-2}


def numbers(rng, *shape, dtype="float32"):
    return rng.standard_normal(shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def close(got, exact, limit=None):
    assert got.shape == exact.shape
    limit = limit or LIMIT[got.dtype.name]
    difference = np.abs(got.astype(np.float64) - exact).max() / np.abs(exact).max()
    assert difference <= limit, f"relative difference {difference:.3g}"


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kv_heads": 2},
        {"num_kv_heads": 1, "bias": False, "output_projection": False},
        {"positions": "rope", "num_kv_heads": 3},
        {"positions": "alibi", "scale": 0.7},
        {"scale": 0.0},
        {"scale": -1.5, "kdim": 20},
    ],
    ids=str,
)
def test_attention(options, dtype):
    rng = np.random.default_rng(1)
    module = nn.MultiheadAttention(WIDTH, HEADS, dtype=dtype, **options)
    state = nn_reference.random_state(rng, module)
    batch, queries, keys = 2, 5, 9
    query = numbers(rng, batch, queries, WIDTH, dtype=dtype)
    key = numbers(rng, batch, keys, options.get("kdim", WIDTH), dtype=dtype)
    value = numbers(rng, batch, keys, WIDTH, dtype=dtype)
    hidden = rng.random((batch * HEADS, queries, keys)) < 0.3
    lengths = np.array([keys, 4])
    padding = np.arange(keys) >= lengths[:, None]
    bias = np.where(hidden.reshape(batch, HEADS, queries, keys) | padding[:, None, None], -np.inf, 0)
    wide = [x.astype(np.float64) for x in (query, key, value)]
    simple = {"kv_heads": options.get("num_kv_heads"), **{k: options[k] for k in ("scale", "positions") if k in options}}
    for arguments, added in (({}, None), (dict(attn_mask=hidden, key_padding_mask=padding), bias)):
        exact, weights = nn_reference.multihead_attention(state, *wide, HEADS, bias=added, **simple)
        got = module(query, key, value, **arguments, average_attn_weights=False)
        close(got[0], exact)
        close(got[1], weights)
        out, mean = module(strided(rng, query), strided(rng, key), strided(rng, value), **arguments)
        assert out.tobytes() == got[0].tobytes()
        close(mean, weights.mean(axis=1))
        alone = module(query, key, value, **arguments, need_weights=False)
        assert alone[1] is None and alone[0].tobytes() == got[0].tobytes()


@pytest.mark.parametrize("positions", ["none", "rope", "alibi"])
def test_packed_sequences_are_batches_without_padding(positions):
    rng = np.random.default_rng(2)
    lengths = [3, 0, 7, 1]
    starts = np.cumsum([0, *lengths]).astype(np.int32)
    attention = nn.MultiheadAttention(WIDTH, HEADS, num_kv_heads=2, positions=positions)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, positions=positions, num_kv_heads=3)
    nn_reference.random_state(rng, attention)
    nn_reference.random_state(rng, layer)
    x = numbers(rng, sum(lengths), WIDTH)
    for causal in (False, True):
        packed = attention(x, x, x, cu_seqlens_q=starts, cu_seqlens_k=starts, is_causal=causal)[0]
        layered = layer(x, cu_seqlens=starts, is_causal=causal)
        for begin, end in zip(starts, starts[1:]):
            own = x[begin:end]
            assert packed[begin:end].tobytes() == attention(own, own, own, is_causal=causal)[0].tobytes()
            assert layered[begin:end].tobytes() == layer(own, is_causal=causal).tobytes()
    decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, positions=positions)
    nn_reference.random_state(rng, decoder)
    memory_starts = np.array([0, 2, 5, 6, 11])
    memory = numbers(rng, 11, WIDTH)
    packed = decoder(x, memory, tgt_is_causal=True, cu_seqlens=starts, memory_cu_seqlens=memory_starts)
    for b, (begin, end) in enumerate(zip(starts, starts[1:])):
        own = memory[memory_starts[b] : memory_starts[b + 1]]
        assert packed[begin:end].tobytes() == decoder(x[begin:end], own, tgt_is_causal=True).tobytes()


ACTIVATIONS = ["relu", "gelu", "silu", "swiglu", "geglu"]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(
    "activation, norm, positions, kv_heads",
    [*zip(ACTIVATIONS, itertools.cycle(["layer", "rms"]), itertools.cycle(["none", "rope", "alibi"]), [None, 2, 3, 1, 6])],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_and_stacks(activation, norm, positions, kv_heads, norm_first, dtype):
    rng = np.random.default_rng(3)
    options = dict(activation=activation, norm=norm, positions=positions, num_kv_heads=kv_heads, norm_first=norm_first)
    simple = dict(activation=activation, kind=norm, positions=positions, kv_heads=kv_heads, norm_first=norm_first)
    batch, length, sources = 2, 6, 9
    x, memory = numbers(rng, batch, length, WIDTH, dtype=dtype), numbers(rng, batch, sources, WIDTH, dtype=dtype)
    wide, wide_memory = x.astype(np.float64), memory.astype(np.float64)
    padding = np.arange(sources) >= np.array([sources, 3])[:, None]
    memory_bias = np.where(padding, -np.inf, 0)[:, None, None]

    encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 40, dtype=dtype, **options)
    state = nn_reference.random_state(rng, encoder)
    close(encoder(x), nn_reference.encoder_layer(state, wide, HEADS, **simple))
    stack = nn.TransformerEncoder(encoder, 3, norm=norm)
    assert (stack.state_dict()["layers.2.linear1.weight"] == state["linear1.weight"]).all()  # copies of the layer
    state = nn_reference.random_state(rng, stack)
    bias = nn_reference.causal(length)
    exact = nn_reference.stack(state, wide, nn_reference.encoder_layer, heads=HEADS, bias=bias, **simple)
    close(stack(x, is_causal=True), exact)
    close(stack(x, mask=np.isinf(bias)), exact)

    decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, 40, dtype=dtype, **options)
    stack = nn.TransformerDecoder(decoder, 2, norm="rms" if norm == "rms" else None)
    state = nn_reference.random_state(rng, stack)
    exact = nn_reference.stack(
        *(state, wide, nn_reference.decoder_layer),
        **dict(memory=wide_memory, heads=HEADS, bias=bias, memory_bias=memory_bias, **simple),
    )
    close(stack(x, memory, tgt_is_causal=True, memory_key_padding_mask=padding), exact)

    both = nn.Transformer(WIDTH, HEADS, 2, 1, 40, dtype=dtype, **options)
    state = nn_reference.random_state(rng, both)
    inner = nn_reference.stack(
        nn_reference.part(state, "encoder."), wide_memory, nn_reference.encoder_layer, heads=HEADS, bias=memory_bias, **simple
    )
    exact = nn_reference.stack(
        *(nn_reference.part(state, "decoder."), wide, nn_reference.decoder_layer),
        **dict(memory=inner, heads=HEADS, bias=bias, memory_bias=memory_bias, **simple),
    )
    got = both(memory, x, tgt_is_causal=True, src_key_padding_mask=padding, memory_key_padding_mask=padding)
    close(got, exact)


def test_half_precision_layers():
    rng = np.random.default_rng(4)
    for dtype in ("float16", "bfloat16"):
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 40, dtype=dtype, activation="swiglu", norm="rms")
        state = nn_reference.random_state(rng, layer)
        x = numbers(rng, 2, 5, WIDTH, dtype=dtype)
        mask = numbers(rng, 5, 5, dtype=dtype)
        exact = nn_reference.encoder_layer(
            state, x.astype(np.float64), HEADS, "swiglu", kind="rms", bias=mask.astype(np.float64)
        )
        close(layer(x, src_mask=mask), exact, 8 * LIMIT[dtype])


def test_queries_without_keys_and_hidden_nan():
    rng = np.random.default_rng(5)
    module = nn.MultiheadAttention(WIDTH, HEADS)
    nn_reference.random_state(rng, module)
    x = numbers(rng, 2, 4, WIDTH)
    x[1, 2:] = np.nan
    padding = np.array([[True] * 4, [False, False, True, True]])
    out, weights = module(x, x, x, key_padding_mask=padding)
    assert (weights[0] == 0).all() and (out[0] == module.state_dict()["out_proj.bias"]).all()
    assert np.isfinite(out[1, :2]).all()
    close(out[1, :2], module(x[1, :2], x[1, :2], x[1, :2])[0].astype(np.float64), 4 * FLOAT32_EPS)
    hidden = np.zeros((4, 4), bool)
    hidden[1] = True
    y = numbers(rng, 2, 4, WIDTH)
    out, weights = module(y, y, y, attn_mask=hidden, is_causal=True, average_attn_weights=False)
    assert (weights[:, :, 1] == 0).all() and np.isfinite(out).all()
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 40)
    nn_reference.random_state(rng, layer)
    assert np.isfinite(layer(y, src_key_padding_mask=np.ones((2, 4), bool))).all()


def test_rows_depend_on_themselves_alone():
    rng = np.random.default_rng(6)
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128), 2)
    nn_reference.random_state(rng, layer)
    x = numbers(rng, 5, 33, 64)
    lengths = np.array([33, 7, 20, 1, 33])
    padding = np.arange(33) >= lengths[:, None]
    whole = layer(x, src_key_padding_mask=padding)
    for b, length in enumerate(lengths):
        assert layer(x[b, :length]).tobytes() == whole[b, :length].tobytes()


def test_sizes_of_zero():
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 40)
    nn_reference.random_state(np.random.default_rng(0), layer)
    assert layer(np.zeros((0, 3, WIDTH), np.float32)).shape == (0, 3, WIDTH)
    assert layer(np.zeros((2, 0, WIDTH), np.float32), src_key_padding_mask=np.zeros((2, 0), bool)).shape == (2, 0, WIDTH)
    attention = nn.MultiheadAttention(WIDTH, HEADS)
    out, weights = attention(np.ones((2, 3, WIDTH), np.float32), *[np.zeros((2, 0, WIDTH), np.float32)] * 2)
    assert (out == 0).all() and weights.shape == (2, 3, 0)


def test_state_dict():
    rng = np.random.default_rng(7)
    module = nn.MultiheadAttention(WIDTH, HEADS)
    x = numbers(rng, 2, 3, WIDTH)
    state = nn_reference.random_state(rng, module)
    first = module(x, x, x)[0]
    module.load_state_dict({name: 2 * array for name, array in state.items()})  # what was packed is packed anew
    second = module(x, x, x)[0]
    assert not np.array_equal(first, second)
    copy = nn.MultiheadAttention(WIDTH, HEADS)
    copy.load_state_dict(module.state_dict())
    assert copy(x, x, x)[0].tobytes() == second.tobytes()
    kept = module.state_dict()
    for bad, error, words in (
        ({**state, "extra": state["in_proj_bias"]}, ValueError, "has unknown extra"),
        ({name: array for name, array in state.items() if name != "out_proj.bias"}, ValueError, "lacks out_proj.bias"),
        ({**state, "out_proj.bias": np.zeros(7, np.float32)}, ValueError, r"out_proj.bias: shape is \(7,\), expected \(48,\)"),
        ({**state, "out_proj.bias": np.zeros(48, np.int64)}, TypeError, "out_proj.bias: dtype"),
    ):
        with pytest.raises(error, match=words):
            module.load_state_dict(bad)
    assert all((kept[name] == array).all() for name, array in module.state_dict().items())
    module.load_state_dict({"out_proj.bias": np.ones(48)}, strict=False)
    assert (module.state_dict()["out_proj.bias"] == 1).all()


X = np.zeros((2, 4, WIDTH), np.float32)


@pytest.mark.once
@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: nn.MultiheadAttention(50, 6), ValueError, "embed_dim: expected a multiple of num_heads, got 50 and 6"),
        (lambda: nn.MultiheadAttention(48, 6, num_kv_heads=4), ValueError, "num_kv_heads: expected a divisor"),
        (lambda: nn.MultiheadAttention(48, 6, batch_first=False), ValueError, "batch_first"),
        (lambda: nn.MultiheadAttention(0, 6), ValueError, "embed_dim"),
        (lambda: nn.MultiheadAttention(6, 6, positions="rope"), ValueError, "positions: rope"),
        (lambda: nn.MultiheadAttention(48, 6, positions="absolute"), ValueError, "positions"),
        (lambda: nn.MultiheadAttention(48, 6, scale=np.nan), ValueError, "scale"),
        (lambda: nn.MultiheadAttention(48, 6, dtype="int32"), ValueError, "dtype"),
        (lambda: nn.MultiheadAttention(2**40, 1), ValueError, "embed_dim"),
        (lambda: nn.TransformerEncoderLayer(48, 6, activation="elu"), ValueError, "activation"),
        (lambda: nn.TransformerEncoderLayer(48, 6, layer_norm_eps=-1.0), ValueError, "layer_norm_eps"),
        (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(48, 6, 8), 0), ValueError, "num_layers"),
        (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(48, 6, 8), 1, "batch"), ValueError, "norm"),
        (lambda: nn.Transformer(48, 6, 1, 1, 8, custom_encoder=object()), ValueError, "custom_encoder"),
        (lambda: nn.Transformer(48, 6, 1, 5000, 8), ValueError, "num_layers"),
    ],
)
def test_bad_constructions(make, error, words):
    with pytest.raises(error, match=words):
        make()


def call(*arguments, **options):
    return lambda module: module(*arguments, **options)


@pytest.mark.once
@pytest.mark.parametrize(
    "run, error, words",
    [
        (call(X, X[:, :, :40], X), ValueError, "key: shape is"),
        (call(X, X, X[:, :3]), ValueError, "value: length is 3, key has 4"),
        (call(X, X[:1], X[:1]), ValueError, "key: batch is 1, query has 2"),
        (call(X, X[0], X[0]), ValueError, "key: rank is 2"),
        (call(X[0, 0], X, X), ValueError, "query: rank is 1"),
        (call(X.astype(np.float64), X, X), TypeError, "query: dtype is float64, the module has float32"),
        (call(X, X, X, attn_mask=np.zeros((4, 5), bool)), ValueError, "attn_mask: shape"),
        (call(X, X, X, attn_mask=np.zeros((11, 4, 4), bool)), ValueError, "attn_mask: shape"),
        (call(X, X, X, attn_mask=np.zeros(4, bool)), ValueError, "attn_mask: rank"),
        (call(X, X, X, attn_mask=np.zeros((4, 4), np.int32)), TypeError, "attn_mask: dtype"),
        (call(X, X, X, attn_mask=np.zeros((4, 4), np.float64)), TypeError, "attn_mask: dtype"),
        (call(X, X, X, key_padding_mask=np.zeros((4, 2), bool)), ValueError, "key_padding_mask: shape"),
        (call(X[0], X[0], X[0], cu_seqlens_q=[0, 4]), ValueError, "cu_seqlens_k"),
        (call(X[0], X[0], X[0], cu_seqlens_q=[0, 3], cu_seqlens_k=[0, 4]), ValueError, "cu_seqlens_q: the last entry"),
        (call(X[0], X[0], X[0], cu_seqlens_q=[0, 4, 2, 4], cu_seqlens_k=[0, 1, 2, 4]), ValueError, "cu_seqlens_q: entry 2"),
        (
            call(X[0], X[0], X[0], attn_mask=np.zeros((4, 4), bool), cu_seqlens_q=[0, 4], cu_seqlens_k=[0, 4]),
            *(ValueError, "attn_mask: expected none"),
        ),
    ],
)
def test_bad_calls_of_attention(run, error, words):
    for positions in ("none", "rope"):
        with pytest.raises(error, match=words):
            run(nn.MultiheadAttention(WIDTH, HEADS, positions=positions))


@pytest.mark.once
def test_bad_calls_of_layers():
    decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, 16)
    both = nn.Transformer(WIDTH, HEADS, 1, 1, 16)
    for run, error, words in (
        (lambda: decoder(X, X[:1]), ValueError, "memory: batch is 1, tgt has 2"),
        (lambda: decoder(X, X[0]), ValueError, "memory: is without a batch, tgt is a batch"),
        (lambda: decoder(X[0], X[0], cu_seqlens=[0, 4]), ValueError, "memory: is without a batch, tgt is packed"),
        (lambda: decoder(X[0], X[0], cu_seqlens=[0, 4], memory_cu_seqlens=[0, 3]), ValueError, "memory_cu_seqlens: the last"),
        (lambda: decoder(X[0], X[0], cu_seqlens=[0, 4], memory_cu_seqlens=[0, 3, 4]), ValueError, "memory_cu_seqlens: length"),
        (lambda: decoder(X, X, memory_mask=np.zeros((4, 5), bool)), ValueError, "memory.attn_mask: shape"),
        (lambda: both(X, X, src_key_padding_mask=np.zeros((2, 5), bool)), ValueError, "src.key_padding_mask: shape"),
        (lambda: both(X.astype(np.float16), X), TypeError, "src: dtype is float16"),
    ):
        with pytest.raises(error, match=words):
            run()
    with pytest.raises(ValueError, match="module: is of another kind, expected an encoder or its layer"):
        nn.TransformerEncoder._run(decoder, X, "src", None, None, False, ("mask", "padding"), None)
