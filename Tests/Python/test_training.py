"""Training of swiftattn.nn: gradients against central differences, dropout, optimizers, checkpoints that resume bit for bit."""

import json

import numpy as np
import pytest
from support import run_python
from swiftattn import nn, optim

WIDTH, HEADS, INNER = 16, 4, 24
STARTS = np.array([0, 3, 3, 8, 9], np.int32)


def attention(**options):
    return nn.MultiheadAttention(WIDTH, HEADS, dtype="float64", **options)


def layer(**options):
    return nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, dtype="float64", **{"dropout": 0.0, **options})


def decoder_layer(**options):
    return nn.TransformerDecoderLayer(WIDTH, HEADS, INNER, dtype="float64", **{"dropout": 0.0, **options})


def tokens(layer_options=(), layers=2, **options):
    return nn.TokenModel(layer(**dict(layer_options)), layers, 11, **options)


RNG = np.random.default_rng(1)
X, MEMORY, NARROW = (RNG.standard_normal(shape) for shape in ((3, 5, WIDTH), (3, 7, WIDTH), (3, 7, 10)))
PACKED, OTHER = RNG.standard_normal((9, WIDTH)), RNG.standard_normal((6, WIDTH))
PADDING = np.arange(7) >= np.array([7, 0, 3])[:, None]
HOLES = RNG.random((3, 5)) < 0.3
BIAS = RNG.standard_normal((3 * HEADS, 5, 7))
IDS, TYPES = RNG.integers(0, 11, (3, 6)), RNG.integers(0, 2, (3, 6))
INSIDE = np.arange(6) < np.array([6, 1, 4])[:, None]
OTHER_STARTS = np.array([0, 2, 2, 2, 6])

# What is differentiated: a module, its floating inputs, and the rest of the call.
CASES = {
    "self-attention": (attention, [X, X, X], dict(is_causal=True)),
    "cross-attention": (attention, [X, MEMORY, MEMORY], dict(key_padding_mask=PADDING, attn_mask=BIAS)),
    "separate inputs": (lambda: attention(kdim=10, bias=False), [X, NARROW, MEMORY], dict(attn_mask=BIAS > 1)),
    "grouped heads, rope": (lambda: attention(num_kv_heads=2, positions="rope"), [X, X, X], {}),
    "rope across": (lambda: attention(positions="rope"), [X, MEMORY, MEMORY], {}),
    "no output projection, alibi": (
        *(lambda: attention(output_projection=False, positions="alibi", bias=False), [X, X, X]),
        {},
    ),
    "packed": (
        *(lambda: attention(positions="rope", num_kv_heads=1), [PACKED, OTHER, OTHER]),
        dict(cu_seqlens_q=STARTS, cu_seqlens_k=OTHER_STARTS),
    ),
    "encoder layer": (layer, [X], dict(src_key_padding_mask=HOLES)),
    "pre-norm, gelu": (lambda: layer(norm_first=True, activation="gelu"), [X], dict(is_causal=True)),
    "rms, swiglu, rope, packed": (
        *(lambda: layer(norm_first=True, activation="swiglu", norm="rms", positions="rope", num_kv_heads=2), [PACKED]),
        dict(cu_seqlens=STARTS, is_causal=True),
    ),
    "rms, geglu, no bias": (lambda: layer(activation="geglu", norm="rms", bias=False), [X[0]], {}),
    "silu": (lambda: layer(activation="silu"), [X], {}),
    "gelu_tanh": (lambda: layer(activation="gelu_tanh"), [X], {}),
    "encoder": (lambda: nn.TransformerEncoder(layer(), 3, "layer"), [X], {}),
    "decoder layer": (decoder_layer, [X, MEMORY], dict(tgt_is_causal=True, memory_key_padding_mask=PADDING)),
    "decoder": (lambda: nn.TransformerDecoder(decoder_layer(norm_first=True), 2, "rms"), [X, MEMORY], {}),
    "decoder of itself": (decoder_layer, [X, X], {}),
    "decoder, packed": (decoder_layer, [PACKED, OTHER], dict(cu_seqlens=STARTS, memory_cu_seqlens=OTHER_STARTS)),
    "transformer": (
        *(lambda: nn.Transformer(WIDTH, HEADS, 2, 2, INNER, 0.0, dtype="float64"), [MEMORY, X]),
        dict(tgt_is_causal=True, src_key_padding_mask=PADDING),
    ),
    "bert": (
        *(lambda: tokens(token_positions="learned", type_vocab_size=2, embedding_norm=True, embedding_dim=10), [IDS]),
        dict(type_ids=TYPES, key_padding_mask=~INSIDE, pooling="mean", normalize=True),
    ),
    "classes": (
        *(lambda: tokens(head="classes", num_classes=3, head_bias=True), [IDS[INSIDE]]),
        dict(cu_seqlens=[0, 6, 7, 11], pooling="mean"),
    ),
    "attention only, dropout": (
        *(lambda: tokens(dict(bias=False, dropout=0.2), attention_only=True, head="classes", num_classes=3), [IDS]),
        dict(key_padding_mask=~INSIDE, pooling="mean"),
    ),
    "first": (lambda: tokens(shared_layers=True), [IDS], dict(pooling="first")),
    "first, packed": (lambda: tokens(), [IDS[INSIDE]], dict(cu_seqlens=[0, 6, 7, 11], pooling="first")),
    "language model": (
        *(lambda: tokens(dict(norm="rms", norm_first=True), final_norm="rms", head="tied", embedding_dim=10), [IDS]),
        dict(is_causal=True),
    ),
    "untied": (lambda: tokens(head="vocabulary", token_positions="sinusoidal"), [IDS], dict(is_causal=True)),
    "encoder-decoder": (
        *(lambda: nn.EncoderDecoder(layer(), 1, 2, 11, 9, head_bias=True), [IDS, IDS[:, :4] % 9]),
        dict(src_key_padding_mask=~INSIDE),
    ),
    "shared and tied": (
        *(lambda: nn.EncoderDecoder(layer(), 1, 1, 11, shared_embedding=True, tied_head=True), [IDS, IDS[:, :4]]),
        {},
    ),
    "dropout": (lambda: layer(dropout=0.3), [X], {}),
    "dropout, gated": (lambda: layer(dropout=0.3, activation="swiglu", norm_first=True), [X], {}),
    "dropout of everything": (
        *(lambda: nn.EncoderDecoder(layer(dropout=0.2), 1, 1, 11, 9), [IDS, IDS[:, :4] % 9]),
        {},
    ),
}


def first(result):
    return result[0] if isinstance(result, tuple) else result


def randomized(make, seed=2):
    module = make()
    rng = np.random.default_rng(seed)
    state = {
        name: rng.standard_normal(array.shape) * 0.3 + (1.0 if "norm" in name and "weight" in name else 0.0)
        for name, array in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module, {name: array.astype(module.state_dict()[name].dtype) for name, array in state.items()}


@pytest.mark.once
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name):
    make, inputs, options = CASES[name]
    module, state = randomized(make)
    inference = first(module(*inputs, **options))
    module.train()

    def loss(values=state, arrays=inputs):
        module.load_state_dict(values)
        module.dropout_state = 7, 3
        return (first(module(*arrays, **options)) * weight).sum()

    rng = np.random.default_rng(3)
    weight = rng.standard_normal(inference.shape)
    if "dropout" not in name:
        np.testing.assert_allclose(first(module(*inputs, **options)), inference, rtol=1e-12, atol=1e-13)
    loss()
    given = module.backward(weight)
    gradients = module.gradients()
    h = 1e-5
    scale = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    for parameter, array in state.items():  # along a random direction in each parameter
        direction = rng.standard_normal(array.shape)
        direction /= np.linalg.norm(direction)
        slope = (loss({**state, parameter: array + h * direction}) - loss({**state, parameter: array - h * direction})) / (2 * h)
        assert abs(slope - (gradients[parameter] * direction).sum()) <= 1e-7 * max(scale, 1), parameter
    floating = inputs[0].dtype.kind == "f"
    assert len(given) == (len(inputs) if floating else 0)
    for n, gradient in enumerate(given):
        if any(inputs[n] is other for other in inputs[:n]):
            assert (gradient == 0).all()
            continue
        direction = rng.standard_normal(inputs[n].shape)
        direction /= np.linalg.norm(direction)
        moved = [
            loss(arrays=[array + step * direction if array is inputs[n] else array for array in inputs]) for step in (h, -h)
        ]
        # arrays that were one are one again
        assert abs((moved[0] - moved[1]) / (2 * h) - (gradient * direction).sum()) <= 1e-7 * max(scale, 1), n


def test_gradients_add_up_until_they_are_zeroed():
    module, _ = randomized(lambda: tokens(head="tied"))
    module.train()
    grad = np.random.default_rng(0).standard_normal((3, 6, 11))
    module(IDS)
    module.backward(grad)
    once = module.gradients()
    module(IDS)
    module.backward(grad)
    twice = module.gradients()
    assert all(np.allclose(twice[name], 2 * once[name], rtol=1e-12) for name in once)
    module.zero_grad()
    assert all((array == 0).all() for array in module.gradients().values())
    module(IDS)
    module.backward(grad)
    assert all(module.gradients()[name].tobytes() == once[name].tobytes() for name in once)


def test_float32_gradients():
    options = dict(norm_first=True, activation="swiglu", norm="rms", positions="rope")
    exact, state = randomized(lambda: layer(**options))
    module = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, 0.0, **options)
    module.load_state_dict(state)
    grad = np.random.default_rng(0).standard_normal(X.shape)
    for one, array in ((exact, X), (module, X.astype(np.float32))):
        one.train()
        one(array, is_causal=True)
        one.backward(grad.astype(array.dtype))
    for name, gradient in exact.gradients().items():
        got = module.gradients()[name]
        assert got.dtype == np.float32 and np.abs(got - gradient).max() <= 1e-5 * np.abs(gradient).max(), name


def test_dropout_is_for_training_and_a_function_of_its_state():
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, 0.5), 2).initialize(seed=3)
    x = X.astype(np.float32)
    plain = module(x)
    assert module(x).tobytes() == plain.tobytes()
    module.train()
    module.dropout_state = 5, 0
    runs = [module(x) for _ in range(3)]
    assert module.dropout_state == (5, 3)
    assert len({run.tobytes() for run in [plain, *runs]}) == 4
    module.dropout_state = 5, 1
    assert module(x).tobytes() == runs[1].tobytes()
    module.dropout_state = 6, 1
    assert module(x).tobytes() != runs[1].tobytes()
    module.eval()
    assert module(x).tobytes() == plain.tobytes()


def test_dropout_rate():
    """With values and outputs that are the identity and one key, what is left of the rows shows the masks."""
    module = nn.MultiheadAttention(64, 1, 0.25, bias=False)
    state = module.state_dict()
    state["in_proj_weight"][128:] = np.eye(64)
    state["out_proj.weight"][:] = np.eye(64)
    module.load_state_dict(state)
    module.train()
    x = np.ones((4000, 1, 64), np.float32)
    out, weights = module(x, x, x)
    assert (weights == 1).all()  # before dropout
    kept = out[:, 0, 0] != 0
    assert (out[kept] == np.float32(1 / 0.75)).all() and (out[~kept] == 0).all()
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 4000)


def rate(kind, step, lr, warmup, total, final):
    if kind == "constant":
        return lr * min(1, step / max(warmup, 1))
    if kind == "inverse_square_root":
        return lr * min(step / max(warmup, 1), np.sqrt(max(warmup, 1) / step))
    if step <= warmup:
        return lr * step / warmup
    part = min((step - warmup) / (total - warmup), 1)
    return final + (lr - final) * (1 + np.cos(np.pi * part)) / 2


@pytest.mark.parametrize("kind", ["adamw", "sgd", "plain sgd"])
@pytest.mark.parametrize("schedule", ["constant", "inverse_square_root", "cosine"])
def test_optimizers(kind, schedule):
    module, state = randomized(lambda: attention())
    common = dict(lr=0.02, weight_decay=0.1, clip_norm=1.5, schedule=schedule, warmup=3, total_steps=8, final_lr=0.001)
    momentum = 0.9 if kind == "sgd" else 0.0
    if kind == "adamw":
        optimizer = optim.AdamW(module, betas=(0.8, 0.95), eps=1e-6, **common)
    else:
        optimizer = optim.SGD(module, momentum=momentum, **common)
    module.train()
    rng = np.random.default_rng(4)
    first_average = {name: np.zeros_like(array) for name, array in state.items()}
    second_average = {name: np.zeros_like(array) for name, array in state.items()}
    for step in range(1, 11):
        module(X, X, X)
        module.backward(rng.standard_normal(X.shape) * 0.2)
        gradients = module.gradients()
        wanted = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        r = rate(schedule, step, 0.02, 3, 8, 0.001)
        assert optimizer.steps == step - 1 and abs(optimizer.lr - r) <= 1e-15
        assert abs(optimizer.step() - wanted) <= 1e-12 * wanted
        optimizer.zero_grad()
        for name, p in state.items():
            g = gradients[name] * min(1, 1.5 / wanted)
            if kind == "adamw":
                first_average[name] = m = 0.8 * first_average[name] + 0.2 * g
                second_average[name] = v = 0.95 * second_average[name] + 0.05 * g * g
                state[name] = p * (1 - r * 0.1) - r * (m / (1 - 0.8**step)) / (np.sqrt(v / (1 - 0.95**step)) + 1e-6)
            else:
                g = g + 0.1 * p
                first_average[name] = m = g if step == 1 else momentum * first_average[name] + g
                state[name] = p - r * m
            np.testing.assert_allclose(module.state_dict()[name], state[name], rtol=1e-10, atol=1e-12)
        state = module.state_dict()


def test_initialization():
    module = nn.TokenModel(nn.TransformerEncoderLayer(64, 4, 128), 1, 1000).initialize(seed=1)
    state = module.state_dict()
    bound = np.sqrt(6 / (64 + 128))
    weight = state["layers.0.linear1.weight"]
    assert np.abs(weight).max() <= bound and abs(weight.std() - bound / np.sqrt(3)) < 0.02 * bound
    table = state["embedding.weight"]
    assert abs(table.mean()) < 0.003 and abs(table.std() - 1 / 8) < 0.002
    assert (state["layers.0.linear1.bias"] == 0).all() and (state["layers.0.norm1.weight"] == 1).all()
    assert all((array == module.initialize(seed=1).state_dict()[name]).all() for name, array in state.items())
    assert not (module.initialize(seed=2).state_dict()["embedding.weight"] == table).all()
    module.initialize("normal", deviation=0.5)
    assert abs(module.state_dict()["layers.0.linear1.weight"].std() - 0.5) < 0.02


def train(module, optimizer, steps, first_step=0):
    """Predicts the next token of counting sequences; returns the losses."""
    losses = []
    for step in range(first_step, first_step + steps):
        rng = np.random.default_rng(step)
        ids = (rng.integers(0, 11, (8, 1)) + np.arange(9) * rng.integers(1, 4, (8, 1))) % 11
        logits = module(ids[:, :-1], is_causal=True)
        loss, gradient = cross_entropy(logits, ids[:, 1:])
        module.backward(gradient)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def cross_entropy(logits, targets):
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    gradient = np.exp(logs)
    rows = np.arange(targets.size)
    gradient.reshape(-1, logits.shape[-1])[rows, targets.ravel()] -= 1
    return -logs.reshape(-1, logits.shape[-1])[rows, targets.ravel()].mean(), gradient / targets.size


def new_training():
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, 0.1, "swiglu", norm_first=True, norm="rms", positions="rope", num_kv_heads=2
    )
    module = nn.TokenModel(layer, 2, 11, head="tied", final_norm="rms").initialize(seed=4).train()
    return module, optim.AdamW(module, 0.01, clip_norm=1.0, schedule="cosine", warmup=5, total_steps=100)


def test_training_learns():
    module, optimizer = new_training()
    losses = train(module, optimizer, 100)
    assert losses[0] > 2.2 and np.mean(losses[-5:]) < 0.9
    module.eval()
    ids = np.array([[1, 3, 5, 7, 9]])
    assert module(ids, is_causal=True)[0, -1].argmax() == 0


def test_checkpoints_resume_bit_for_bit(tmp_path):
    module, optimizer = new_training()
    train(module, optimizer, 4)
    nn.save_checkpoint(tmp_path / "training", module, optimizer, epoch=3)
    losses = train(module, optimizer, 4, 4)
    again, other = new_training()
    again.initialize(seed=9)
    assert nn.load_checkpoint(tmp_path / "training", again, other) == {"epoch": 3}
    assert other.steps == 4
    assert train(again, other, 4, 4) == losses
    assert all(array.tobytes() == again.state_dict()[name].tobytes() for name, array in module.state_dict().items())
    with pytest.raises(ValueError, match="is no checkpoint"):
        nn.load_checkpoint(tmp_path / "none", again)
    (tmp_path / "text").write_text("{}")
    with pytest.raises(ValueError, match="is no checkpoint"):
        nn.load_checkpoint(tmp_path / "text", again)
    nn.save_checkpoint(tmp_path / "alone", module)
    with pytest.raises(ValueError, match="has no optimizer"):
        nn.load_checkpoint(tmp_path / "alone", again, other)
    with pytest.raises(ValueError, match="state_dict: "):
        nn.load_checkpoint(tmp_path / "alone", nn.TokenModel(nn.TransformerEncoderLayer(32, 4, 64), 1, 11))


TRAINING = """
import json, sys
sys.path.insert(0, "Tests/Python")
import test_training
print(json.dumps(test_training.train(*test_training.new_training(), 6)))
"""


def test_losses_do_not_depend_on_threads():
    runs = {run_python(TRAINING, OMP_NUM_THREADS=str(threads)) for threads in (1, 2, 3)}
    assert len(runs) == 1 and len(json.loads(runs.pop())) == 6


@pytest.mark.once
def test_errors():
    module = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER)
    x = X.astype(np.float32)
    with pytest.raises(ValueError, match="module: expected a forward call in training"):
        module.backward(x)
    module.train()
    module(x)
    with pytest.raises(ValueError, match="grad_out: shape"):
        module.backward(x[:, :2])
    with pytest.raises(TypeError, match="grad_out: dtype"):
        module.backward(X)
    module.backward(x)
    with pytest.raises(ValueError, match="one for each backward"):
        module.backward(x)
    with pytest.raises(TypeError, match="float16, expected float32 or float64 in training"):
        nn.MultiheadAttention(WIDTH, HEADS, dtype="float16").train()
    extra = nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True).train()
    with pytest.raises(ValueError, match="add_bias_kv: expected no extra keys in training"):
        extra(x, x, x)
    with pytest.raises(ValueError, match="hidden: expected NULL in training"):
        tokens().train()(IDS, return_hidden=True)
    for make, words in (
        (lambda: nn.MultiheadAttention(WIDTH, HEADS, 1.0), "dropout: expected 0 <= dropout < 1"),
        (lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, dropout=-0.1), "dropout"),
        (lambda: optim.AdamW(module, lr=-1.0), "lr: expected"),
        (lambda: optim.AdamW(module, betas=(1.0, 0.9)), "beta1: expected"),
        (lambda: optim.AdamW(module, eps=0.0), "eps: expected"),
        (lambda: optim.SGD(module, momentum=np.nan), "momentum: expected"),
        (lambda: optim.SGD(module, schedule="cosine", warmup=3, total_steps=3), "total_steps: expected more than"),
        (lambda: optim.SGD(module, schedule="linear"), "schedule: expected one of"),
        (lambda: module.initialize("uniform"), "kind: expected one of"),
        (lambda: module.initialize("normal", deviation=0.0), "deviation: expected"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
