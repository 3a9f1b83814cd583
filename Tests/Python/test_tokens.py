"""nn.TokenModel and the BERT family against float64 NumPy."""

import json

import nn_reference
import numpy as np
import pytest
import reference
from support import FLOAT32_EPS
from swiftattn import models, nn

WIDTH, HEADS, INNER, LAYERS, VOCABULARY = 24, 4, 40, 3, 50
LENGTHS = (5, 1, 9, 2)
STARTS = np.cumsum([0, *LENGTHS]).astype(np.int32)


def token_model(state, ids, *, layers=LAYERS, types=None, waves=False, first=0, kind="layer", bias=None, **options):
    """ids (B, T) -> rows before, between and after the layers; the last one after the final norm if there is one."""
    x = state["embedding.weight"][ids]
    if "embedding.positions.weight" in state:
        x = x + state["embedding.positions.weight"][first : first + ids.shape[1]]
    if waves:
        x = x + reference.sinusoidal_positions(ids.shape[1], x.shape[-1])
    if "embedding.types.weight" in state:
        x = x + state["embedding.types.weight"][np.zeros_like(ids) if types is None else types]
    if "embedding.norm.weight" in state:
        x = nn_reference.norm(nn_reference.part(state, "embedding.norm."), x, kind)
    if "embedding.projection.weight" in state:
        x = nn_reference.linear(nn_reference.part(state, "embedding.projection."), x)
    rows = [x]
    for n in range(layers):
        own = nn_reference.part(state, f"layers.{n}.") or nn_reference.part(state, "layers.0.")
        rows.append(nn_reference.encoder_layer(own, rows[-1], HEADS, kind=kind, bias=bias, **options))
    last = nn_reference.norm(nn_reference.part(state, "norm."), rows[-1], kind) if "norm.weight" in state else rows[-1]
    return rows, last


def close(got, exact, limit=1e-5):
    assert got.shape == exact.shape
    assert np.abs(got - exact).max() <= limit * np.abs(exact).max()


MODELS = {
    "bert": dict(token_positions="learned", max_positions=12, type_vocab_size=2, embedding_norm=True),
    "albert": dict(token_positions="learned", embedding_dim=10, embedding_norm=True, shared_layers=True),
    "roberta": dict(token_positions="learned", max_positions=14, first_position=2, type_vocab_size=1),
    "sinusoidal": dict(token_positions="sinusoidal", final_norm="layer"),
    "bare": dict(),
}


def make(name, dtype="float32", **options):
    rng = np.random.default_rng(1)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, activation="gelu", dtype=dtype)
    module = nn.TokenModel(layer, LAYERS, VOCABULARY, **{**MODELS[name], **options})
    state = nn_reference.random_state(rng, module)
    return module, state


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_packed_and_padded_against_the_reference(name, dtype):
    module, state = make(name, dtype)
    limit = 1e-5 if dtype == "float32" else 1e-12
    rng = np.random.default_rng(2)
    ids = rng.integers(0, VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    types = rng.integers(0, MODELS[name].get("type_vocab_size", 0) or 1, ids.shape)
    if not MODELS[name].get("type_vocab_size"):
        types = None
    inside = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    packed_types = None if types is None else types[inside]
    arguments = dict(types=types, waves=name == "sinusoidal", first=MODELS[name].get("first_position", 0), activation="gelu")
    bias = np.where(inside, 0, -np.inf)[:, None, None]
    rows, last = token_model(state, ids, bias=bias, **arguments)

    result = module(ids, key_padding_mask=~inside, type_ids=types, return_hidden=True, return_attentions=True)
    close(result.out[inside], last[inside], limit)
    for n, exact in enumerate(rows):
        close(result.hidden[n][inside], exact[inside], limit)
    assert result.attentions.shape == (LAYERS, len(LENGTHS), HEADS, *ids.shape[1:] * 2)
    np.testing.assert_allclose(result.attentions.sum(-1), 1, rtol=1e-6)
    assert (result.attentions[:, 1, :, :, 1:] == 0).all()
    plain = module(ids, key_padding_mask=~inside, type_ids=types)
    assert plain.tobytes() == result.out.tobytes()
    packed = module(ids[inside].astype(np.int32), cu_seqlens=STARTS, type_ids=packed_types)
    assert packed.tobytes() == plain[inside].tobytes()

    mean = np.stack([last[b, :length].mean(axis=0) for b, length in enumerate(LENGTHS)])
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    for pooling, normalize, exact in (("mean", False, mean), ("mean", True, unit), ("first", False, last[:, 0])):
        options = dict(pooling=pooling, normalize=normalize)
        pooled = module(ids, key_padding_mask=~inside, type_ids=types, **options)
        close(pooled, exact, limit)
        assert module(ids[inside], cu_seqlens=STARTS, type_ids=packed_types, **options).tobytes() == pooled.tobytes()


def test_padding_between_tokens():
    module, state = make("bert")
    rng = np.random.default_rng(3)
    ids = rng.integers(0, VOCABULARY, (2, 7))
    hidden = np.array([[0, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0, 1]], bool)
    _, last = token_model(state, ids, bias=np.where(hidden, -np.inf, 0)[:, None, None], activation="gelu")
    exact = np.stack([rows[~mask].mean(axis=0) for rows, mask in zip(last, hidden)])
    close(module(ids, key_padding_mask=hidden, pooling="mean"), exact)


@pytest.mark.parametrize("name", ["bare", "albert"])
@pytest.mark.parametrize("head, bias", [("vocabulary", True), ("tied", False), ("tied", True), ("classes", True)])
def test_heads(name, head, bias):
    module, state = make(name, head=head, num_classes=3, head_bias=bias)
    assert ("head.weight" in state) == (head != "tied")
    assert ("head.projection.weight" in state) == (name == "albert" and head != "classes")
    ids = np.random.default_rng(4).integers(0, VOCABULARY, (2, 6))
    causal = nn_reference.causal(6)
    _, x = token_model(state, ids, bias=causal, activation="gelu")
    if "head.projection.weight" in state:
        x = x @ state["head.projection.weight"].T
    weight = state["embedding.weight"] if head == "tied" else state["head.weight"]
    exact = x @ weight.T + state.get("head.bias", 0)
    close(module(ids, is_causal=True), exact)
    if head == "classes":
        pooled = module(ids, is_causal=True, pooling="mean")
        close(pooled, x.mean(axis=1) @ weight.T + state["head.bias"])


def test_empty_sequences():
    module, _ = make("bert")
    ids = np.array([3, 4])
    out = module(ids, cu_seqlens=[0, 0, 2, 2], pooling="mean", normalize=True)
    assert (out[[0, 2]] == 0).all()
    assert abs(np.linalg.norm(out[1]) - 1) < 4 * FLOAT32_EPS
    assert module(np.zeros((0, 4), np.int64)).shape == (0, 4, WIDTH)
    assert module(np.zeros(0, np.int64), cu_seqlens=[0], pooling="mean").shape == (0, WIDTH)
    with pytest.raises(ValueError, match="cu_seqlens: sequence 0 is empty"):
        module(ids, cu_seqlens=[0, 0, 2], pooling="first")


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments, options, words",
    [
        ((np.zeros((1, 13), int),), {}, "ids: a sequence has 13 tokens, the module positions for 12"),
        ((np.full((1, 2), VOCABULARY),), {}, "ids: entry 0 is 50, expected 0 <= id < 50"),
        ((np.full((1, 2), -1),), {}, "ids: entry 0 is -1"),
        ((np.zeros(3, int),), {}, "ids: rank is 1, expected 2"),
        ((np.zeros(3, int),), {"cu_seqlens": [0, 4]}, "cu_seqlens: entry 1 is 4"),
        ((np.zeros(3, int),), {"cu_seqlens": [0, 3], "return_attentions": True}, "attentions: expected NULL"),
        ((np.zeros((1, 3), int),), {"type_ids": np.full((1, 3), 2)}, "ids: entry 0 is 2"),
        ((np.zeros((1, 3), int),), {"type_ids": np.zeros((1, 2), int)}, "type_ids: shape"),
        ((np.zeros((1, 3), int),), {"pooling": "max"}, "pooling: expected one of"),
    ],
)
def test_bad_calls(arguments, options, words):
    module, _ = make("bert")
    with pytest.raises(ValueError, match=words):
        module(*arguments, **options)


@pytest.mark.once
def test_bad_constructions():
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER)
    for options, words in (
        (dict(head="classes"), "num_classes: expected 1"),
        (dict(token_positions="learned", first_position=512), "first_position: expected 0 to 511"),
        (dict(type_vocab_size=-1), "type_vocab_size"),
        (dict(embedding_dim=0), "embedding_dim"),
    ):
        with pytest.raises(ValueError, match=words):
            nn.TokenModel(layer, 1, VOCABULARY, **options)


# Folders as Hugging Face writes them.

BERT = dict(
    model_type="bert",
    vocab_size=VOCABULARY,
    hidden_size=WIDTH,
    num_attention_heads=HEADS,
    num_hidden_layers=2,
    intermediate_size=INNER,
    hidden_act="gelu",
    layer_norm_eps=1e-5,
    max_position_embeddings=16,
    type_vocab_size=2,
)
DISTILBERT = dict(
    model_type="distilbert",
    vocab_size=VOCABULARY,
    dim=WIDTH,
    n_heads=HEADS,
    n_layers=2,
    hidden_dim=INNER,
    activation="gelu",
    layer_norm_eps=1e-5,
    max_position_embeddings=16,
)
CONFIGS = {
    "bert": BERT,
    "roberta": {**BERT, "model_type": "roberta", "pad_token_id": 1, "type_vocab_size": 1},
    "electra": {**BERT, "model_type": "electra", "embedding_size": 10},
    "albert": {**BERT, "model_type": "albert", "embedding_size": 10, "hidden_act": "gelu_new"},
    "distilbert": DISTILBERT,
}


def linear(rng, name, outputs, inputs):
    return {f"{name}.weight": rng.standard_normal((outputs, inputs)) * 0.2, f"{name}.bias": rng.standard_normal(outputs)}


def norm(rng, name, width):
    return {f"{name}.weight": 1 + 0.1 * rng.standard_normal(width), f"{name}.bias": rng.standard_normal(width)}


def checkpoint(kind):
    """Random weights by the file's names, and the same by those of nn.TokenModel."""
    rng = np.random.default_rng(5)
    inner = CONFIGS[kind].get("embedding_size", WIDTH)
    theirs, ours = {}, {}

    def put(name, own, values):
        for (part, array) in values.items():
            theirs[name + part[1:]] = array
            ours[own + part[1:]] = array

    for name, own, rows in (
        ("word_embeddings", "embedding", VOCABULARY),
        ("position_embeddings", "embedding.positions", 16),
        *([("token_type_embeddings", "embedding.types", CONFIGS[kind]["type_vocab_size"])] if kind != "distilbert" else []),
    ):
        put(f"embeddings.{name}", own, {"x.weight": rng.standard_normal((rows, inner)) * 0.5})
    put("embeddings.LayerNorm", "embedding.norm", norm(rng, "x", inner))
    if inner != WIDTH:
        project = {"albert": "encoder.embedding_hidden_mapping_in", "electra": "embeddings_project"}[kind]
        put(project, "embedding.projection", linear(rng, "x", WIDTH, inner))
    names = {
        "distilbert": (
            "transformer.layer.{}.",
            *(["attention.q_lin", "attention.k_lin", "attention.v_lin"], "attention.out_lin", "sa_layer_norm"),
            *("ffn.lin1", "ffn.lin2", "output_layer_norm"),
        ),
        "albert": (
            "encoder.albert_layer_groups.{}.albert_layers.0.",
            *(["attention.query", "attention.key", "attention.value"], "attention.dense", "attention.LayerNorm"),
            *("ffn", "ffn_output", "full_layer_layer_norm"),
        ),
    }.get(
        kind,
        (
            "encoder.layer.{}.",
            *([f"attention.self.{word}" for word in ("query", "key", "value")], "attention.output.dense"),
            *("attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"),
        ),
    )
    layer, qkv, out, norm1, up, down, norm2 = names
    for n in range(1 if kind == "albert" else 2):
        prefix, own = layer.format(n), f"layers.{n}."
        parts = [linear(rng, "x", WIDTH, WIDTH) for _ in qkv]
        for name, values in zip(qkv, parts):
            theirs.update({prefix + name + part[1:]: array for part, array in values.items()})
        for part in ("weight", "bias"):
            ours[f"{own}self_attn.in_proj_{part}"] = np.concatenate([values[f"x.{part}"] for values in parts])
        put(prefix + out, own + "self_attn.out_proj", linear(rng, "x", WIDTH, WIDTH))
        put(prefix + norm1, own + "norm1", norm(rng, "x", WIDTH))
        put(prefix + up, own + "linear1", linear(rng, "x", INNER, WIDTH))
        put(prefix + down, own + "linear2", linear(rng, "x", WIDTH, INNER))
        put(prefix + norm2, own + "norm2", norm(rng, "x", WIDTH))
    return theirs, ours


def write(folder, kind, prefix="", old_names=False, **changes):
    from safetensors.numpy import save_file

    theirs, ours = checkpoint(kind)
    named = {prefix + name: array.astype(np.float32) for name, array in theirs.items()}
    if old_names:
        named = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
            for name, array in named.items()
        }
    save_file({**named, "cls.predictions.bias": np.zeros(3, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIGS[kind], **changes}))
    return ours


@pytest.mark.once
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("prefixed", [False, True])
def test_folders_of_the_family(tmp_path, kind, prefixed):
    state = write(tmp_path, kind, f"{kind}." if prefixed else "", old_names=prefixed and kind == "bert")
    model = models.load(tmp_path)
    rng = np.random.default_rng(6)
    first = 2 if kind == "roberta" else 0
    assert model.max_length == 16 - first
    sequences = [rng.integers(0, VOCABULARY, length) for length in (4, 1, 14)]
    activation = "gelu" if kind != "albert" else "gelu_tanh"
    exact = []
    for ids in sequences:
        _, last = token_model(state, ids[None], layers=2, first=first, activation=activation)
        exact.append(last[0].mean(axis=0))
    close(model.embed(sequences), np.stack(exact))


@pytest.mark.once
def test_sentence_transformers_options(tmp_path):
    state = write(tmp_path, "bert")
    ids = np.array([3, 1, 4])
    rows = token_model(state, ids[None], layers=2, activation="gelu")[1][0]

    def configure(modes, *kinds):
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH, **modes}))
        kinds = ("Transformer", *kinds)
        described = [{"idx": n, "path": f"{n}_{kind}", "type": f"sentence_transformers.models.{kind}"} for n, kind in enumerate(kinds)]
        (tmp_path / "modules.json").write_text(json.dumps(described))
        return models.load(tmp_path)

    model = configure({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "Pooling")
    close(model.embed([ids])[0], rows[0])
    model = configure({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "Pooling", "Normalize")
    mean = rows.mean(axis=0)
    close(model.embed([ids])[0], mean / np.linalg.norm(mean))
    with pytest.raises(ValueError, match="1_Pooling/config.json: pooling is"):
        configure({"pooling_mode_max_tokens": True}, "Pooling")
    with pytest.raises(ValueError, match="modules.json: Dense is not supported"):
        configure({"pooling_mode_mean_tokens": True}, "Pooling", "Dense")


@pytest.mark.once
def test_text(tmp_path):
    from tokenizers import Tokenizer, models as kinds, pre_tokenizers, processors

    write(tmp_path, "bert")
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "cat": 4, "sat": 5}
    tokenizer = Tokenizer(kinds.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = models.load(tmp_path)
    tokens = model.tokenize(["a cat sat", "", "a " * 40])
    assert tokens.ids[:7].tolist() == [1, 3, 4, 5, 2, 1, 2] and tokens.cu_seqlens.tolist() == [0, 5, 7, 23]
    assert tokens.words[0] == ["[CLS]", "a", "cat", "sat", "[SEP]"]
    embeddings = model.encode(["a cat sat", "", "a " * 40])
    assert embeddings.tobytes() == model.embed([tokens.ids[:5], tokens.ids[5:7], tokens.ids[7:]]).tobytes()
    assert model.encode([""]).tobytes() == embeddings[1].tobytes()
    assert model.encode([]).shape == (0, WIDTH)
    seen = model.attend("a cat")
    assert seen.tokens == ["[CLS]", "a", "cat", "[SEP]"] and seen.weights.shape == (2, HEADS, 4, 4)
    many = model.embed([tokens.ids[:5]] * 1000)  # more than one pack
    assert (many == embeddings[0]).all()
    with pytest.raises(TypeError, match="texts: expected a list of strings"):
        model.encode("a cat sat")


@pytest.mark.once
@pytest.mark.parametrize(
    "changes, words",
    [
        ({"hidden_act": "tanh"}, "hidden_act is 'tanh'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_size": 28}, "expected \\("),
        ({"num_hidden_layers": 3}, "lacks encoder.layer.2.attention.self.query.weight"),
        ({"num_hidden_layers": "3"}, "num_layers"),
        ({"hidden_size": 25}, "embed_dim: expected a multiple"),
        ({"vocab_size": 10**9}, "vocab_size"),
        ({"model_type": "gpt9"}, "model_type 'gpt9'"),
        ({"model_type": "albert", "embedding_size": WIDTH}, "embedding_size"),
    ],
)
def test_bad_folders(tmp_path, changes, words):
    write(tmp_path, "bert", **changes)
    with pytest.raises((ValueError, TypeError), match=words):
        models.load(tmp_path)


@pytest.mark.once
def test_damaged_folders(tmp_path):
    write(tmp_path, "bert")
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.safetensors cannot be read"):
        models.load(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match="has no .safetensors file"):
        models.load(tmp_path)
    incomplete = {name: value for name, value in BERT.items() if name != "hidden_act"}
    config.write_text(json.dumps(incomplete))
    with pytest.raises(ValueError, match="config.json: lacks hidden_act"):
        models.load(tmp_path)
