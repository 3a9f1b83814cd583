"""Rotary positions against Hugging Face transformers' own: the frequencies of every scaling, and Llama's rotation."""

import numpy as np
import pytest
import swiftattn
import torch
from transformers import LlamaConfig
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
