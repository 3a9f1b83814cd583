"""Rotary positions and sampling against Hugging Face transformers' own: the frequencies of every scaling, Llama's
rotation, and the filters of generate."""

import numpy as np
import pytest
import swiftattn
import torch
from transformers import (
    LlamaConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

DIM = 64
SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn with everything": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 1024,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.8,
        "truncate": False,
    },
    "longrope": {
        "rope_type": "longrope",
        "factor": 8.0,
        "original_max_position_embeddings": 1024,
        "short_factor": [1.0 + 0.1 * i for i in range(DIM // 2)],
        "long_factor": [2.0 + 0.5 * i for i in range(DIM // 2)],
    },
}


def config(scaling):
    return LlamaConfig(
        hidden_size=4 * DIM,
        num_attention_heads=4,
        max_position_embeddings=1024,
        rope_parameters={"rope_theta": 50000.0, **(scaling or {"rope_type": "default"})},
    )


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("length", [700, 3000])
def test_frequencies(name, length):
    """Of their float32 frequencies: the angle at position 1, and the factor of the tables at 0."""
    inverse, factor = ROPE_INIT_FUNCTIONS[name.split()[0]](config(SCALINGS[name]), "cpu", seq_len=length)
    scaling = {"original_max_position_embeddings": 1024, **SCALINGS[name]}
    cos, sin = swiftattn.rotary_tables(DIM, length, base=50000.0, scaling=scaling, dtype="float64")
    np.testing.assert_allclose(cos[0], factor, rtol=1e-7)
    np.testing.assert_allclose(np.arctan2(sin[1], cos[1]), inverse.double().numpy(), rtol=2e-6)


@pytest.mark.parametrize("name", [None, *SCALINGS])
def test_rotation(name):
    """Their angles are float32, which far out is another angle: so few positions."""
    rotary = LlamaRotaryEmbedding(config(SCALINGS.get(name)))
    rng = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 50, DIM, generator=rng), torch.randn(2, 2, 50, DIM, generator=rng)
    ids = torch.randint(0, 50, (2, 50), generator=rng)
    expected = apply_rotary_pos_emb(query, key, *rotary(query, ids))
    scaling = {"original_max_position_embeddings": 1024, **SCALINGS[name]} if name else None
    tables = swiftattn.rotary_tables(DIM, 50, base=50000.0, scaling=scaling)
    for x, wanted in zip((query, key), expected):
        got = swiftattn.rotary_embedding(x, *tables, position_ids=ids)
        assert isinstance(got, torch.Tensor)
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=3e-5)


SAMPLING = [
    dict(temperature=0.7),
    dict(top_k=5),
    dict(top_p=0.9),
    dict(top_p=0.3, temperature=2.0),
    dict(min_p=0.05),
    dict(repetition_penalty=1.4),
    dict(repetition_penalty=0.6, temperature=1.5, top_k=40, top_p=0.8, min_p=0.03),
]


@pytest.mark.parametrize("number", range(len(SAMPLING)))
@pytest.mark.parametrize("ties", [False, True])
def test_sampling_filters(number, ties):
    """The distribution that generate draws from, by its own processors in its order."""
    options = SAMPLING[number]
    rng = torch.Generator().manual_seed(number)
    logits = 2 * torch.randn(8, 500, generator=rng)
    if ties:
        logits = torch.round(2 * logits) / 2
    tokens = torch.randint(0, 500, (8, 30), generator=rng)
    processors = LogitsProcessorList()
    for name, kind in (
        ("repetition_penalty", RepetitionPenaltyLogitsProcessor),
        ("temperature", TemperatureLogitsWarper),
        ("top_k", TopKLogitsWarper),
        ("top_p", TopPLogitsWarper),
        ("min_p", MinPLogitsWarper),
    ):
        if name in options:
            processors.append(kind(options[name]))
    expected = processors(tokens, logits.clone()).softmax(-1)
    got = swiftattn.sampling_distribution(logits, previous_tokens=tokens, **options)
    if ties:  # which of equal ones top_p takes away is left to their sort
        got, expected = got.sort(-1).values, expected.sort(-1).values
    np.testing.assert_array_equal((got > 0).numpy(), (expected > 0).numpy())
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=3e-6, atol=1e-7)
