"""Decoders of the Llama family: opened from GGUF files and safetensors folders, run by the library."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from ctypes import byref, c_char_p, c_double, c_int64, c_void_p
from pathlib import Path
from typing import Any, Optional

import numpy as np

from .. import _ffi
from .._ffi import ModelConfig, ModelOptions
from .._tensor import ArrayLike, borrow, borrow_integers, choice, integer
from ..caches import storage
from . import generation, tokenizer as tokenizers
from .chat import ChatTemplate
from .gguf import GGUFFile, encoded
from .tokenizer import Tokenizer


class Llama:
    """A decoder with room for several sequences, and its tokenizer.

    Where a text is wanted, a list of token ids does as well. Results are NumPy float32 arrays. The tokenizer needs the
    package tokenizers, chat templates jinja2.
    """

    # What the loaders below set.
    _handle: c_void_p
    _tokenizer: Any  # a Tokenizer, or a function that makes one when it is first needed
    chat: Optional[ChatTemplate]
    metadata: Mapping[str, Any]

    def __init__(self, handle: c_void_p, tokenizer: Any, metadata: Mapping[str, Any]) -> None:
        self._handle = handle
        self._tokenizer = tokenizer
        self.metadata = metadata
        config, numbers = ModelConfig(), [c_int64() for _ in range(3)]
        _ffi.model_info(handle, byref(config), *map(byref, numbers))
        self.context, self.sequences, self.window = (number.value for number in numbers)
        self.config = {
            name: getattr(config, name)
            for name, *_ in ModelConfig._fields_
            if name not in ("struct_size", "rotary_pairing", "rotary")
        }
        self.chat = None

    def __del__(self, close=_ffi.model_close) -> None:
        close(getattr(self, "_handle", None))

    # Text

    @property
    def tokenizer(self) -> Tokenizer:
        if not isinstance(self._tokenizer, Tokenizer):
            self._tokenizer = self._tokenizer()
        return self._tokenizer

    def tokenize(self, text: str, bos: bool | None = None) -> list[int]:
        """The ids of a text; bos: whether to begin with that token, None as the model was trained."""
        return self.tokenizer.encode(text, bos)

    def detokenize(self, ids: Sequence[int], special: bool = False) -> str:
        return self.tokenizer.decode(ids, special)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Messages, dicts with "role" and "content", as the text that asks for the answer."""
        if self.chat is None:
            raise ValueError("messages: the model has no chat template")
        return self.chat.render(messages)

    def ids(self, text: str | ArrayLike, name: str = "text") -> np.ndarray:
        """A text, or ids, as an array of ids."""
        if isinstance(text, str):
            return np.array(self.tokenize(text), np.int64)
        array = np.asarray(text)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise TypeError(f"{name}: expected a str or a list of ids, got {type(text).__name__}")
        return array.astype(np.int64)

    # Sequences

    @property
    def lengths(self) -> np.ndarray:
        """Tokens that each sequence has had."""
        out = np.empty(self.sequences, np.int64)
        _ffi.model_lengths(self._handle, borrow(out, "out", True))
        return out

    def prefill(self, ids: ArrayLike, sequence: int = 0) -> np.ndarray:
        """Adds ids (n,) to a sequence and returns the logits (vocabulary,) of what follows them."""
        logits = np.empty(self.config["vocabulary"], np.float32)
        tokens = borrow_integers(ids, "ids")
        _ffi.model_prefill(self._handle, integer(sequence, "sequence"), tokens, borrow(logits, "logits", True))
        return logits

    def step(self, ids: ArrayLike) -> np.ndarray:
        """Adds an id to each sequence, ids (sequences,); -1 leaves one out. Returns logits (sequences, vocabulary)."""
        logits = np.empty((self.sequences, self.config["vocabulary"]), np.float32)
        _ffi.model_step(self._handle, borrow_integers(ids, "ids"), borrow(logits, "logits", True))
        return logits

    def truncate(self, length: int, sequence: int = 0) -> None:
        """Forgets all but the first `length` tokens of a sequence."""
        _ffi.model_truncate(self._handle, integer(sequence, "sequence"), integer(length, "length"))

    def generate(self, prompt: Any, **options: Any) -> Any:
        """Continues a prompt; see `swiftattn.models.generation.generate` for the options and what is returned."""
        return generation.generate(self, prompt, **options)

    # A text by itself

    def logits(self, text: str | ArrayLike) -> np.ndarray:
        """(n, vocabulary): of what follows each token."""
        return self._read(_ffi.model_logits, text, lambda n: (n, self.config["vocabulary"]))

    def log_probabilities(self, text: str | ArrayLike) -> np.ndarray:
        """(n - 1,): ln p of each token but the first, given those before it."""
        return self._read(_ffi.model_log_probabilities, text, lambda n: (max(n - 1, 0),))

    def perplexity(self, text: str | ArrayLike) -> float:
        """exp of the mean of -log_probabilities(text)."""
        result = c_double()
        _ffi.model_perplexity(self._handle, borrow(self.ids(text), "ids"), byref(result))
        return result.value

    def embed(self, text: str | ArrayLike) -> np.ndarray:
        """(n, width): the normalised final state of each token."""
        return self._read(_ffi.model_embed, text, lambda n: (n, self.config["width"]))

    def attention(self, text: str | ArrayLike) -> np.ndarray:
        """(layers, heads, n, n): how much each token attends to each; a text of at most 512 tokens."""
        shape = (self.config["layers"], self.config["heads"])
        return self._read(_trace_attention, text, lambda n: (*shape, n, n))

    def states(self, text: str | ArrayLike) -> np.ndarray:
        """(layers + 1, n, width): the embedding, then the residual stream behind each layer; at most 512 tokens."""
        return self._read(_trace_states, text, lambda n: (self.config["layers"] + 1, n, self.config["width"]))

    def _read(self, function: Any, text: str | ArrayLike, shape: Any) -> np.ndarray:
        ids = self.ids(text)
        out = np.empty(shape(len(ids)), np.float32)
        function(self._handle, borrow(ids, "ids"), borrow(out, "out", True))
        return out


def _trace_attention(handle: c_void_p, ids: Any, out: Any) -> None:
    _ffi.model_trace(handle, ids, out, None)


def _trace_states(handle: c_void_p, ids: Any, out: Any) -> None:
    _ffi.model_trace(handle, ids, None, out)


def load(
    path: str | os.PathLike,
    *,
    context: int | None = None,
    sequences: int = 8,
    window: int | None = None,
    weights: str = "stored",
    exact_prefill: bool = False,
    kv_dtype: Any = "float32",
) -> Llama:
    """The decoder in a GGUF file of architecture llama or qwen2, or in a folder of Hugging Face's llama, mistral or qwen2.

    Args:
        context: tokens that a sequence may have; None is what the model was trained on. Memory is taken as tokens come.
        sequences: how many can be continued side by side.
        window: tokens that a token sees, itself included; older ones are forgotten, so that a sequence has no end. None: a
            token sees all, and what goes beyond the context is an error.
        weights: "stored": quantised, float16 and bfloat16 ones are used as they are; or "float32".
        exact_prefill: whether prefill computes as step does. Else, on machines with AVX512-VNNI, prompts of 128 tokens and more
            meet quantised weights in 8 bits, which takes half the time. All that is asked of a text by itself is exact.
        kv_dtype: of the sequences' KV caches, float32, float16, bfloat16 or int8 (a scale for each token and head), as
            KVCache stores them. Texts by themselves are read in float32.

    Raises ValueError for a file that is damaged or of another kind; TypeError for tensors of formats that are not read.
    """
    options = ModelOptions(
        struct_size=ctypes.sizeof(ModelOptions),
        weights=choice(_ffi.MODEL_WEIGHTS, weights, "weights"),
        context=_given(context, "context"),
        sequences=integer(sequences, "sequences", 1),
        window=_given(window, "window"),
        exact_prefill=bool(exact_prefill),
        kv_dtype=storage(kv_dtype, "kv_dtype"),
    )
    place = Path(os.fspath(path))
    return _from_folder(place, options) if place.is_dir() else _from_gguf(place, options)


def _given(value: int | None, name: str) -> int:
    """A number of which 0 means the default in C."""
    return 0 if value is None else integer(value, name, 1)


def _from_gguf(path: Path, options: ModelOptions) -> Llama:
    file, handle = GGUFFile(path), c_void_p()
    _ffi.model_open(encoded(path), options, byref(handle))
    model = Llama(handle, lambda: tokenizers.from_gguf(file), file)
    source = file.get("tokenizer.chat_template")
    if isinstance(source, str):
        model.chat = ChatTemplate(source, *(_word(file, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")))
    return model


def _word(file: GGUFFile, key: str) -> str:
    words, id = file.get("tokenizer.ggml.tokens"), file.get(key)
    return words[id] if isinstance(words, list) and isinstance(id, int) and 0 <= id < len(words) else ""


# ---- Hugging Face's folders


def _from_folder(folder: Path, options: ModelOptions) -> Llama:
    config, settings = _json(folder / "config.json"), _json(folder / "tokenizer_config.json", {})
    tensors = _tensors(folder)
    names, borrowed = list(tensors), [borrow(tensor, name) for name, tensor in tensors.items()]
    handle = c_void_p()
    _ffi.model_create(
        _sizes(config),
        (c_char_p * len(names))(*(name.encode() for name in names)),
        (_ffi.Tensor * len(names))(*borrowed),
        len(names),
        options,
        byref(handle),
    )
    model = Llama(handle, lambda: tokenizers.from_folder(folder, config, settings), config)
    source = settings.get("chat_template")
    if (folder / "chat_template.jinja").exists():
        source = (folder / "chat_template.jinja").read_text()
    if isinstance(source, str):
        words = (settings.get(f"{name}_token") or "" for name in ("bos", "eos"))
        model.chat = ChatTemplate(source, *(word["content"] if isinstance(word, Mapping) else word for word in words))
    return model


def _json(path: Path, default: Any = None) -> Any:
    if default is not None and not path.exists():
        return default
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"path: {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"path: {path} holds no object")
    return content


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ImportError("folders of safetensors need the package safetensors: pip install safetensors") from None
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"path: {folder} has no .safetensors file")
    tensors = {}
    for file in files:
        try:
            with safe_open(str(file), framework="np") as content:
                for name in content.keys():
                    tensors[name] = content.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"path: {file} cannot be read: {error}") from None
    return tensors


def _sizes(config: Mapping[str, Any]) -> ModelConfig:
    from ..rotary import _options as rotary_options

    def size(name: str, default: int | None = None) -> int:
        value = config.get(name)
        if value is None and default is None:
            raise ValueError(f"config.json: has no {name}")
        return integer(default if value is None else value, f"config.json: {name}", 0)

    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"config.json: hidden_act is {config['hidden_act']!r}, expected 'silu'")
    scaling = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "rope_theta" not in scaling and config.get("rope_theta") is not None:
        scaling["rope_theta"] = config["rope_theta"]
    rotary = rotary_options(10000.0, scaling)
    heads = size("num_attention_heads")
    return ModelConfig(
        struct_size=ctypes.sizeof(ModelConfig),
        vocabulary=size("vocab_size"),
        width=size("hidden_size"),
        layers=size("num_hidden_layers"),
        heads=heads,
        kv_heads=size("num_key_value_heads", heads),
        head_dim=size("head_dim", 0),
        hidden=size("intermediate_size"),
        context=size("max_position_embeddings"),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rotary=ctypes.pointer(rotary),
    )
