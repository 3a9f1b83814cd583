"""Tokenizers, chat templates, and continuing prompts."""

from __future__ import annotations

import json
import sys

import gguf_files
import numpy as np
import pytest
from llama_oracle import Llama, relative_rms
from swiftattn.models import GGUFFile, load
from swiftattn.models.chat import ChatTemplate
from swiftattn.models.tokenizer import TextStream, from_gguf
from test_llama import IDS, needs_smollm, smollm

pytestmark = pytest.mark.once


@pytest.fixture
def model(tmp_path):
    return load(gguf_files.write_model(tmp_path / "model.gguf", tokenizer=True), sequences=3)


def greedy(model, ids, count):
    """By full passes."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(model.logits(ids)[-1].argmax()))
    return ids[-count:]


def test_greedy_ids(model):
    assert model.generate(IDS[:5], max_tokens=12, as_ids=True, stop=()) == greedy(model, IDS[:5], 12)
    assert model.lengths.tolist() == [0, 0, 0]


def test_several_prompts_are_what_each_is_alone(model):
    prompts = [IDS[:3], IDS[2:9], IDS[:1], IDS[5:], IDS[1:2]]  # more than the model has sequences
    together = model.generate(prompts, max_tokens=9, as_ids=True)
    assert together == [model.generate(prompt, max_tokens=9, as_ids=True) for prompt in prompts]


def test_stop_ids_end_an_answer_without_being_said(model):
    whole = greedy(model, IDS[:5], 12)
    stop = whole[6]
    assert model.generate(IDS[:5], max_tokens=12, as_ids=True, stop=stop) == whole[: whole.index(stop)]
    assert model.generate(IDS[:5], max_tokens=0, as_ids=True) == []


def test_streams_say_the_same(model):
    options = dict(max_tokens=20, temperature=1.5, seed=3)
    pieces = list(model.generate("hello", stream=True, **options))
    assert "".join(pieces) == model.generate("hello", **options) and len(pieces) > 1
    ids = model.generate("hello", as_ids=True, **options)
    assert list(model.generate("hello", as_ids=True, stream=True, **options)) == ids
    assert model.detokenize(ids) == "".join(pieces)


def test_stop_texts_cut_an_answer(model):
    whole = model.generate("hello", max_tokens=30, temperature=1.5, seed=5)
    stop = whole[7:10]
    expected = whole[: whole.index(stop)]
    assert model.generate("hello", max_tokens=30, temperature=1.5, seed=5, stop=stop) == expected
    assert "".join(model.generate("hello", max_tokens=30, temperature=1.5, seed=5, stop=[stop], stream=True)) == expected


def test_a_stream_that_is_dropped_leaves_the_model_ready(model):
    stream = model.generate("hello", stream=True, max_tokens=50)
    next(stream)
    stream.close()
    assert model.lengths.tolist() == [0, 0, 0]


def test_seeds(model):
    draw = lambda seed: model.generate(IDS[:4], max_tokens=16, as_ids=True, temperature=2.0, seed=seed)  # noqa: E731
    assert draw(1) == draw(1) and draw(1) != draw(2)


def test_penalties_see_the_prompt_and_the_answer(model):
    answer = model.generate(IDS[:4], max_tokens=30, as_ids=True, presence_penalty=1e6)
    assert len({*answer, *IDS[:4]}) == 30 + len({*IDS[:4]})


def test_messages_go_through_the_template(model):
    messages = [{"role": "user", "content": "hello"}]
    assert model.render(messages) == "u hello a"
    assert model.generate(messages, max_tokens=5) == model.generate("u hello a", max_tokens=5)


def test_bad_generation_calls(model):
    with pytest.raises(ValueError, match="stream: expected a single prompt"):
        model.generate(["hello", "he"], stream=True)
    with pytest.raises(ValueError, match="stop: expected texts that are not empty"):
        model.generate("hello", stop="")
    with pytest.raises(ValueError, match="max_tokens: expected 0"):
        model.generate("hello", max_tokens=-1)
    with pytest.raises(ValueError, match="ids: is empty"):
        model.generate("", max_tokens=3)
    with pytest.raises(ValueError, match="tokens of at most 96"):
        model.generate(IDS[:5], max_tokens=100, as_ids=True)


def test_templates_that_fail_are_clear_errors():
    with pytest.raises(ValueError, match="chat template: TemplateError: no system"):
        ChatTemplate("{{ raise_exception('no system') }}").render([{"role": "system", "content": ""}])
    with pytest.raises(ValueError, match="chat template"):
        ChatTemplate("{% for %}").render([])
    with pytest.raises(ValueError, match="chat template: SecurityError"):
        ChatTemplate("{{ ''.__class__.__mro__ }}").render([])
    with pytest.raises(TypeError, match="messages"):
        ChatTemplate("").render("hello")


def test_missing_packages_are_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert len(model.generate(IDS[:4], max_tokens=3, as_ids=True)) == 3
    with pytest.raises(ImportError, match="pip install tokenizers"):
        model.tokenize("hello")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match="pip install jinja2"):
        ChatTemplate("never seen before").render([])


@needs_smollm
def test_real_tokenizer():
    model = load(smollm())
    text = "Hello, world! It's 2024; caf\u00e9 \u00fcn\u00ef \u4f60\u597d 123456\n\n  def f(x):\treturn x<|im_end|>"
    # What llama.cpp 0.3.36's Python package says of the same file.
    expected = (
        "19556 28 905 17 657 506 216 34 32 34 36 43 37366 5549 137 94 25972 216 18645 250 48392 138 216 33 34 35 36 37 38 "
        "8866 753 275 24 104 727 197 5406 1792 2"
    )
    ids = model.tokenize(text)
    assert ids == [int(id) for id in expected.split()]
    assert model.detokenize(ids, special=True) == text
    stream = TextStream(model.tokenizer)
    assert "".join(map(stream.add, ids[:-1])) + stream.rest() == text.removesuffix("<|im_end|>")
    assert "".join(model.tokenizer.pieces(ids[:-1])) == text.removesuffix("<|im_end|>")
    assert model.tokenizer.ends == (2,) and not model.tokenizer.adds_bos
    answer = model.generate([{"role": "user", "content": "What is the capital of France? Answer briefly."}], max_tokens=30)
    assert "Paris" in answer


def test_sentencepiece():
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = ["\u2581", "a", "b", "ab", "\u2581a", "\u2581ab", "c", "abc"]
    scores = [0.0] * len(words) + [-10.0, -11.0, -12.0, -2.0, -3.0, -1.0, -13.0, -4.0]
    tokenizer = from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": words + pieces,
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0,
        }
    )
    at = {word: i for i, word in enumerate(words + pieces)}
    assert tokenizer.encode("ab abc") == [1, at["\u2581ab"], at["\u2581ab"], at["c"]]
    assert tokenizer.encode("a\u00e9", bos=False) == [at["\u2581a"], at["<0xC3>"], at["<0xA9>"]]
    assert tokenizer.decode(tokenizer.encode("ab a\u00e9c")) == "ab a\u00e9c"


def test_tokenizers_that_are_not_known_are_named(tmp_path):
    file = dict(GGUFFile(gguf_files.write_model(tmp_path / "m.gguf", tokenizer=True)))
    for change, message in (
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model is 'bert'"),
        ({"tokenizer.ggml.pre": "odd"}, "tokenizer.ggml.pre is 'odd'"),
        ({"tokenizer.ggml.tokens": None}, "no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["h"]}, "not two words"),
        ({"tokenizer.ggml.merges": ["h zz"]}, "do not fit"),
        ({"tokenizer.ggml.token_type": [1]}, "has 1 entries, expected 50"),
    ):
        with pytest.raises(ValueError, match=message):
            from_gguf({**file, **change})


# ---- Folders of Hugging Face


def write_folder(folder, dtype, tied=False):
    """The weights of a small GGUF model with the pairing and the names of Hugging Face; and the oracle for them."""
    import ml_dtypes
    import safetensors.numpy

    oracle = Llama.open(gguf_files.write_model(folder / "m.gguf", tied=tied))
    oracle.sizes["neighbours"] = False
    names = dict(attn_norm="input_layernorm", ffn_norm="post_attention_layernorm", attn_output="self_attn.o_proj")
    names |= {f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"}
    names |= {f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    kind, tensors = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype), {}
    for name, array in oracle.weights.items():
        if name.startswith("blk."):
            _, layer, part, _ = name.split(".")
            new = f"model.layers.{layer}.{names[part]}.weight"
        else:
            new = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[name.split(".")[0]] + ".weight"
        tensors[new] = array.astype(kind)
        oracle.weights[name] = tensors[new].astype(np.float64)
    (folder / "m.gguf").unlink()
    half = len(tensors) // 2
    for number, part in enumerate((list(tensors)[:half], list(tensors)[half:])):
        safetensors.numpy.save_file({name: tensors[name] for name in part}, folder / f"model-{number}.safetensors")
    config = dict(model_type="llama", vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    config |= dict(num_key_value_heads=2, intermediate_size=96, max_position_embeddings=96, rms_norm_eps=1e-5, eos_token_id=2)
    (folder / "config.json").write_text(json.dumps(config))
    return oracle


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_folders(tmp_path, dtype):
    oracle = write_folder(tmp_path, dtype, tied=dtype == "float16")
    model = load(tmp_path)
    logits, states, _ = oracle.run(IDS)
    assert relative_rms(model.logits(IDS), logits) <= 1e-5
    assert relative_rms(load(tmp_path, weights="float32").logits(IDS), logits) <= 1e-5
    np.testing.assert_allclose(model.prefill(IDS), model.logits(IDS)[-1], rtol=1e-5, atol=1e-5)


def test_folders_with_rope_scaling(tmp_path):
    oracle = write_folder(tmp_path, "float32")
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_scaling"] = dict(rope_type="linear", factor=4.0)
    (tmp_path / "config.json").write_text(json.dumps(config))
    oracle.rotary = (oracle.rotary[0] / 4, 1.0)
    assert relative_rms(load(tmp_path).logits(IDS), oracle.run(IDS)[0]) <= 1e-5


def test_bad_folders_are_clear_errors(tmp_path):
    write_folder(tmp_path, "float32")
    config = json.loads((tmp_path / "config.json").read_text())

    def refused(message, **change):
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in {**config, **change}.items() if v is not None}))
        with pytest.raises(ValueError, match=message):
            load(tmp_path)

    refused("model_type 'gpt2', expected one of", model_type="gpt2")
    refused("has no hidden_size", hidden_size=None)
    refused("hidden_act is 'gelu'", hidden_act="gelu")
    refused(r"model.embed_tokens.weight: shape is \(50, 64\), expected \(51, 64\)", vocab_size=51)
    refused("model.layers.2.input_layernorm.weight: no such tensor was given", num_hidden_layers=3)
    refused("kv_heads: 3 does not divide 4 heads", num_key_value_heads=3)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model-0.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="model-0.safetensors cannot be read"):
        load(tmp_path)
    with pytest.raises(ValueError, match="No such file"):
        load(tmp_path / "missing")
