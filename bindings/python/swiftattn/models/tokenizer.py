"""Tokenizers from the metadata of GGUF files and from tokenizer.json, through the package tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Types of tokens in GGUF files.
_CONTROL = 3
_USER_DEFINED = 4

_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
_WORDS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
_GPT2 = ("gpt-2", "default")


def _package() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "text needs the package tokenizers: pip install tokenizers; token ids work without it"
        ) from None
    return tokenizers


class Tokenizer:
    """Text to token ids and back.

    `bos` and `eos` are ids or None; `ends` are all ids that end an answer; `adds_bos` says whether the model was trained on
    texts that begin with bos.
    """

    def __init__(self, encoder: Any, *, bos: int | None, ends: Sequence[int], adds_bos: bool) -> None:
        self._encoder = encoder
        self.bos = bos
        self.ends = tuple(ends)
        self.adds_bos = adds_bos

    @property
    def size(self) -> int:
        return self._encoder.get_vocab_size()

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        """The ids of a text; words of special tokens in it become these tokens. bos: whether to begin with bos, as trained."""
        if not isinstance(text, str):
            raise TypeError(f"text: expected a str, got {type(text).__name__}")
        ids = self._encoder.encode(text, add_special_tokens=False).ids
        begin = self.adds_bos if bos is None else bos
        return [self.bos, *ids] if begin and self.bos is not None and ids[:1] != [self.bos] else ids

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """The text of ids, with the words of special tokens or without."""
        return self._encoder.decode([int(i) for i in ids], skip_special_tokens=not special)

    def word(self, id: int) -> str:
        """What one token stands for, as it is stored."""
        return self._encoder.id_to_token(int(id)) or ""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds to what came before; characters of several ids come with the last of them."""
        stream, texts = TextStream(self), []
        for id in ids:
            texts.append(stream.add(id))
        return texts


class TextStream:
    """Text of ids that come one by one. Characters of several bytes are held back until they are whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._done = 0  # ids before it have been said, and are kept for the spaces between words
        self._kept = 0

    def add(self, id: int) -> str:
        self._ids.append(int(id))
        before = self._tokenizer.decode(self._ids[self._kept : self._done])
        now = self._tokenizer.decode(self._ids[self._kept :])
        if now.endswith("\ufffd") or len(now) <= len(before):
            return ""
        self._kept, self._done = self._done, len(self._ids)
        return now[len(before) :]

    def rest(self) -> str:
        """What was held back at the end."""
        before = self._tokenizer.decode(self._ids[self._kept : self._done])
        return self._tokenizer.decode(self._ids[self._kept :])[len(before) :]


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file describes. Raises ValueError for a kind that is not known here."""
    kind = metadata.get("tokenizer.ggml.model")
    words = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(words, list):
        raise ValueError("file: has no tokenizer.ggml.tokens, expected a tokenizer")
    types = metadata.get("tokenizer.ggml.token_type")
    types = [1] * len(words) if types is None else list(types)
    if len(types) != len(words):
        raise ValueError(f"file: tokenizer.ggml.token_type has {len(types)} entries, expected {len(words)}")
    if kind == "gpt2":
        encoder = _byte_level(metadata, words)
    elif kind == "llama":
        encoder = _sentencepiece(metadata, words)
    else:
        raise ValueError(f"file: tokenizer.ggml.model is {kind!r}, expected 'gpt2' or 'llama'")
    added = _package().AddedToken
    encoder.add_special_tokens([added(w, normalized=False, special=True) for w, t in zip(words, types) if t == _CONTROL])
    encoder.add_tokens([added(w, normalized=False) for w, t in zip(words, types) if t == _USER_DEFINED])
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    ends = {metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
    ends |= {words.index(word) for word in ("<|im_end|>", "<|eot_id|>", "<|end|>") if word in words}
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")
    return Tokenizer(encoder, bos=bos, ends=sorted(ends - {None}), adds_bos=bool(adds_bos))


def _byte_level(metadata: Mapping[str, Any], words: list[str]) -> Any:
    """Byte pairs over bytes that are written as characters, as GPT-2's."""
    t = _package()
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise ValueError("file: has no tokenizer.ggml.merges, expected those of a byte-pair tokenizer")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("file: tokenizer.ggml.merges has an entry that is not two words")
    try:
        encoder = t.Tokenizer(t.models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=pairs, ignore_merges=True))
    except Exception as error:  # the package raises plain Exception: a merge of words that are not there
        raise ValueError(f"file: the tokenizer's words and merges do not fit: {error}") from None
    split = t.pre_tokenizers
    name = metadata.get("tokenizer.ggml.pre", "default")
    if name in _DIGITS_APART:
        steps = [split.Digits(individual_digits=True), split.ByteLevel(add_prefix_space=False, use_regex=True)]
    elif name in _WORDS:
        steps = [
            split.Split(t.Regex(_WORDS[name]), behavior="isolated"),
            split.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    elif name in _GPT2:
        steps = [split.ByteLevel(add_prefix_space=False, use_regex=True)]
    else:
        known = ", ".join(sorted((*_DIGITS_APART, *_WORDS, *_GPT2)))
        raise ValueError(f"file: tokenizer.ggml.pre is {name!r}, expected one of {known}")
    encoder.pre_tokenizer = split.Sequence(steps)
    encoder.decoder = t.decoders.ByteLevel()
    return encoder


def _sentencepiece(metadata: Mapping[str, Any], words: list[str]) -> Any:
    """Pairs of pieces merged by their scores, the best first; characters without a piece as bytes."""
    t = _package()
    scores = metadata.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(words):
        raise ValueError(f"file: expected tokenizer.ggml.scores with {len(words)} entries")
    ids = {word: i for i, word in enumerate(words)}
    merges = []
    for word, i in ids.items():
        parts = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
        own = [part for part in parts if part[0] in ids and part[1] in ids]
        merges += [(-scores[i], ids[left], ids[right], left, right) for left, right in own]
    merges.sort()
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    encoder = t.Tokenizer(
        t.models.BPE(
            vocab=ids,
            merges=[merge[3:] for merge in merges],
            unk_token=None if unknown is None or not 0 <= unknown < len(words) else words[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    begins = metadata.get("tokenizer.ggml.add_space_prefix", True)
    steps = [t.normalizers.Prepend("\u2581")] if begins else []
    encoder.normalizer = t.normalizers.Sequence([*steps, t.normalizers.Replace(" ", "\u2581")])
    ends = [t.decoders.Strip(" ", 1, 0)] if begins else []
    encoder.decoder = t.decoders.Sequence(
        [t.decoders.Replace("\u2581", " "), t.decoders.ByteFallback(), t.decoders.Fuse(), *ends]
    )
    return encoder


def from_folder(folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer.json of a Hugging Face folder; settings are those of tokenizer_config.json."""
    encoder = _package().Tokenizer.from_file(str(folder / "tokenizer.json"))

    def of_token(value: Any) -> int | None:
        word = value.get("content") if isinstance(value, Mapping) else value
        return encoder.token_to_id(word) if isinstance(word, str) else None

    bos = of_token(settings.get("bos_token"))
    eos = config.get("eos_token_id")
    ends = {of_token(settings.get("eos_token")), *(eos if isinstance(eos, list) else [eos])}
    ends |= {encoder.token_to_id(word) for word in ("<|im_end|>", "<|eot_id|>")}
    return Tokenizer(encoder, bos=bos, ends=sorted(ends - {None}), adds_bos=bool(settings.get("add_bos_token", False)))
