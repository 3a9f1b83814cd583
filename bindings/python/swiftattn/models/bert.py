"""Encoders of the BERT family from Hugging Face folders: sentence embeddings, hidden states and attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from .. import nn
from .bert_names import FAMILIES, Family

# Sentences are run in packs of about so many tokens: enough for all threads, and the rows of a layer stay in the caches.
PACK = 2048


class Tokens(NamedTuple):
    """Texts as ids, one sequence behind the other without padding."""

    ids: np.ndarray  # (rows,) int64
    cu_seqlens: np.ndarray  # (B + 1,) int32
    words: list[list[str]]  # the tokens as text


class Attention(NamedTuple):
    """How the tokens of one text look at one another."""

    tokens: list[str]
    weights: np.ndarray  # (L, heads, T, T)


class TextEncoder:
    """An encoder with its tokenizer. Made by swiftattn.models.load.

    Attributes:
        module: the swiftattn.nn.TokenModel: rows of any layer, attention weights.
        config: config.json.
        pooling: "mean" or "first": how a text's rows become one.
        normalize: whether embeddings are scaled to length 1.
        max_length: tokens that a text is cut to.
    """

    def __init__(self, module: nn.TokenModel, config: dict, tokenizer: Any, pooling: str, normalize: bool, max_length: int):
        self.module, self.config = module, config
        self.pooling, self.normalize, self.max_length = pooling, normalize, max_length
        self._tokenizer = tokenizer

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Ids of each text with the model's special tokens, cut to max_length."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("texts: expected a list of strings")
        if self._tokenizer is None:
            raise ValueError("texts: the model's folder has no tokenizer.json; pass ids to module")
        encodings = self._tokenizer.encode_batch(list(texts))
        starts = _starts(len(encoding.ids) for encoding in encodings)
        ids = np.fromiter((id for encoding in encodings for id in encoding.ids), np.int64, int(starts[-1]))
        return Tokens(ids, starts, [encoding.tokens for encoding in encodings])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings (B, E) of B texts, as the model's sentence-transformers configuration says.

        A text's embedding has the same bits whatever else is encoded with it.
        """
        tokens = self.tokenize(texts)
        return self._embed(tokens.ids, tokens.cu_seqlens)

    def embed(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings (B, E) of B sequences of token ids, special tokens included."""
        rows = [np.asarray(row) for row in ids]
        return self._embed(np.concatenate(rows) if rows else np.empty(0, np.int64), _starts(map(len, rows)))

    def _embed(self, ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
        out = np.empty((len(starts) - 1, self.module.d_model), np.float32)
        for first, last in _packs(starts):
            out[first:last] = self.module(
                ids[starts[first] : starts[last]],
                cu_seqlens=starts[first : last + 1] - starts[first],
                pooling=self.pooling,
                normalize=self.normalize,
            )
        return out

    def attend(self, text: str) -> Attention:
        """The attention weights of every layer and head over one text."""
        tokens = self.tokenize([text])
        result = self.module(tokens.ids[None], return_attentions=True)
        return Attention(tokens.words[0], result.attentions[:, 0])


def _starts(lengths: Iterable[int]) -> np.ndarray:
    """Where each sequence begins, and the end."""
    return np.cumsum([0, *lengths], dtype=np.int32)


def _packs(starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of sequences of about PACK tokens each."""
    first = 0
    while first < len(starts) - 1:
        last = max(int(np.searchsorted(starts, starts[first] + PACK, side="right")) - 1, first + 1)
        yield first, last
        first = last


def load(place: Path, *, precision: str = "highest") -> TextEncoder:
    """The encoder in a folder with config.json, model.safetensors, and where there are any tokenizer.json and the files of
    sentence-transformers.

    Args:
        place: the folder.
        precision: of float32 products: "highest", "high" or "medium".

    Raises ValueError for a configuration that is not supported, and for weights that are missing or of another shape;
    ImportError without the packages safetensors or tokenizers.
    """
    config = _json(place / "config.json")
    family = FAMILIES[config["model_type"]]
    module = _module(config, family, precision)
    module.load_state_dict(_renamed(_weights(place), module, family))
    pooling, normalize = _sentence_options(place)
    limit = _json(place / "sentence_bert_config.json").get("max_seq_length") or _longest(config, family)
    max_length = min(int(limit), _longest(config, family))
    return TextEncoder(module, config, _tokenizer(place, max_length), pooling, normalize, max_length)


def _json(file: Path) -> Any:
    """What a JSON file holds; a missing one is empty."""
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"path: {file} is not JSON: {error}") from None


def _longest(config: dict, family: Family) -> int:
    return config["max_position_embeddings"] - family.first_position(config)


def _module(config: dict, family: Family, precision: str) -> nn.TokenModel:
    for name, only in (("position_embedding_type", "absolute"), ("num_hidden_groups", 1), ("inner_group_num", 1)):
        if config.get(name, only) not in (only, None):
            raise ValueError(f"config.json: {name} is {config[name]!r}, expected {only!r}")
    try:
        size = {name: config[key] for name, key in family.sizes.items() if key in config or name != "types"}
        activation = config[family.activation]
        positions = config["max_position_embeddings"]
    except KeyError as error:
        raise ValueError(f"config.json: lacks {error.args[0]}") from None
    if family.shared_layers and config.get("embedding_size", size["width"]) == size["width"]:
        raise ValueError(f"config.json: embedding_size is {size['width']} as hidden_size, expected another")
    words = {"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "gelu_new": "gelu_tanh"}
    words["gelu_pytorch_tanh"] = "gelu_tanh"
    if activation not in words:
        raise ValueError(f"config.json: {family.activation} is {activation!r}, expected one of {', '.join(words)}")
    layer = nn.TransformerEncoderLayer(
        *(size["width"], size["heads"], size["inner"]),
        activation=words[activation],
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        precision=precision,
    )
    return nn.TokenModel(
        *(layer, size["layers"], config["vocab_size"]),
        embedding_dim=config.get("embedding_size"),
        token_positions="learned",
        max_positions=positions,
        first_position=family.first_position(config),
        type_vocab_size=size.get("types", 0),
        embedding_norm=True,
        shared_layers=family.shared_layers,
    )


def _weights(place: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise ImportError("folders of safetensors need the package safetensors: pip install safetensors") from None
    files = sorted(place.glob("*.safetensors"))
    if not files:
        raise ValueError(f"path: {place} has no .safetensors file")
    weights: dict[str, np.ndarray] = {}
    for file in files:
        try:
            weights.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"path: {file} cannot be read: {error}") from None
    return weights


def _renamed(weights: dict[str, np.ndarray], module: nn.TokenModel, family: Family) -> dict[str, np.ndarray]:
    """The file's weights by the names of nn.TokenModel; query, key and value below one another."""
    prefix = next((p for p in family.prefixes if any(name.startswith(p + "embeddings.") for name in weights)), "")

    def weight(name: str) -> np.ndarray:
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        for candidate in (prefix + name, prefix + old):
            if candidate in weights:
                return weights[candidate]
        raise ValueError(f"safetensors: lacks {prefix + name}")

    state = {}
    for name in module.state_dict():
        theirs = family.names(name)
        state[name] = weight(theirs[0]) if len(theirs) == 1 else np.concatenate([weight(part) for part in theirs])
    return state


def _sentence_options(place: Path) -> tuple[str, bool]:
    """(pooling, normalize) of sentence-transformers' modules.json; without one the mean, not scaled."""
    pooling, normalize = "mean", False
    for module in _json(place / "modules.json") or []:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Normalize":
            normalize = True
        elif kind == "Pooling":
            modes = {name for name, on in _json(place / module["path"] / "config.json").items() if on is True}
            known = {"pooling_mode_cls_token": "first", "pooling_mode_mean_tokens": "mean"}
            chosen = [known.get(mode) for mode in sorted(modes) if mode.startswith("pooling_mode")]
            if len(chosen) != 1 or chosen[0] is None:
                raise ValueError(f"{module['path']}/config.json: pooling is {sorted(modes)}, expected one of {sorted(known)}")
            pooling = chosen[0]
        elif kind != "Transformer":
            raise ValueError(f"modules.json: {kind} is not supported, expected Transformer, Pooling and Normalize")
    return pooling, normalize


def _tokenizer(place: Path, max_length: int) -> Any:
    """tokenizer.json, cutting texts and never padding; None without the file."""
    if not (place / "tokenizer.json").exists():
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError("text needs the package tokenizers: pip install tokenizers") from None
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer
