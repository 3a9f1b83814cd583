"""How each model of the BERT family names its weights and its configuration."""

from __future__ import annotations

import re
from typing import Callable, NamedTuple


class Family(NamedTuple):
    """What tells one family from the others."""

    prefixes: tuple[str, ...]  # of weights in files of a model with a head
    sizes: dict[str, str]  # width, heads, layers, inner, types -> config.json
    activation: str
    first_position: Callable[[dict], int]
    embeddings: dict[str, str]  # nn.TokenModel's names -> the file's
    layer: str  # before the names of layer N's weights
    layers: dict[str, tuple[str, ...]]  # nn.TokenModel's names in a layer, without .weight and .bias -> the file's
    shared_layers: bool = False

    def names(self, name: str) -> tuple[str, ...]:
        """The weights of the file that one parameter of nn.TokenModel is made of."""
        match = re.fullmatch(r"layers\.(\d+)\.(.*)[._](weight|bias)", name)
        if match is None:
            return (self.embeddings[name],)
        n, part, kind = match.groups()
        return tuple(f"{self.layer.format(n)}{theirs}.{kind}" for theirs in self.layers[part])


_BERT_SIZES = {
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
    "inner": "intermediate_size",
    "types": "type_vocab_size",
}

_EMBEDDINGS = {
    "embedding.weight": "embeddings.word_embeddings.weight",
    "embedding.positions.weight": "embeddings.position_embeddings.weight",
    "embedding.types.weight": "embeddings.token_type_embeddings.weight",
    "embedding.norm.weight": "embeddings.LayerNorm.weight",
    "embedding.norm.bias": "embeddings.LayerNorm.bias",
}

_BERT = Family(
    prefixes=("bert.",),
    sizes=_BERT_SIZES,
    activation="hidden_act",
    first_position=lambda config: 0,
    embeddings=_EMBEDDINGS,
    layer="encoder.layer.{}.",
    layers={
        "self_attn.in_proj": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "self_attn.out_proj": ("attention.output.dense",),
        "norm1": ("attention.output.LayerNorm",),
        "linear1": ("intermediate.dense",),
        "linear2": ("output.dense",),
        "norm2": ("output.LayerNorm",),
    },
)

_ROBERTA = _BERT._replace(
    prefixes=("roberta.",),
    first_position=lambda config: config.get("pad_token_id", 1) + 1,  # padding's own row, and those before it, are not used
)

_PROJECTION = {
    "embedding.projection.weight": "embeddings_project.weight",
    "embedding.projection.bias": "embeddings_project.bias",
}

FAMILIES = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": _BERT._replace(prefixes=("electra.",), embeddings={**_EMBEDDINGS, **_PROJECTION}),
    "distilbert": Family(
        prefixes=("distilbert.",),
        sizes={"width": "dim", "heads": "n_heads", "layers": "n_layers", "inner": "hidden_dim", "types": "no types"},
        activation="activation",
        first_position=lambda config: 0,
        embeddings=_EMBEDDINGS,
        layer="transformer.layer.{}.",
        layers={
            "self_attn.in_proj": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
            "self_attn.out_proj": ("attention.out_lin",),
            "norm1": ("sa_layer_norm",),
            "linear1": ("ffn.lin1",),
            "linear2": ("ffn.lin2",),
            "norm2": ("output_layer_norm",),
        },
    ),
    "albert": Family(
        prefixes=("albert.",),
        sizes=_BERT_SIZES,
        activation="hidden_act",
        first_position=lambda config: 0,
        embeddings={
            **_EMBEDDINGS,
            "embedding.projection.weight": "encoder.embedding_hidden_mapping_in.weight",
            "embedding.projection.bias": "encoder.embedding_hidden_mapping_in.bias",
        },
        layer="encoder.albert_layer_groups.{}.albert_layers.0.",
        layers={
            "self_attn.in_proj": ("attention.query", "attention.key", "attention.value"),
            "self_attn.out_proj": ("attention.dense",),
            "norm1": ("attention.LayerNorm",),
            "linear1": ("ffn",),
            "linear2": ("ffn_output",),
            "norm2": ("full_layer_layer_norm",),
        },
        shared_layers=True,
    ),
}
