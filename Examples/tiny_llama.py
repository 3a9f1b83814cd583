"""A small Llama that writes Chinese reviews, trained from scratch by swiftattn and exported to GGUF.

    python Examples/tiny_llama.py train [--epochs N] [--seed N] [--reviews N]
    python Examples/tiny_llama.py sample [TEXT] [--temperature X] [--seed N]
    python -m swiftattn generate out/tiny_llama/tiny_llama.gguf 房间

RMSNorm, rotary positions, grouped heads, SwiGLU, embedding and head tied; byte pairs learned from the same reviews. Reviews are
packed one behind the other, each between two marks. train leaves the model as a GGUF file, which llama.cpp reads as well, and a
picture of loss and accuracy in out/tiny_llama.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import reviews
import training
from swiftattn import cross_entropy, models, nn, optim

WIDTH, LAYERS, HEADS, KV_HEADS, INNER = 128, 4, 4, 2, 352
VOCABULARY = 2048
LENGTH = 128  # tokens of a review that are read
BATCH = 32
EPS = 1e-5
MARK = "<|endoftext|>"  # before and behind each review; token 0
FOLDER = Path(__file__).resolve().parents[1] / "out" / "tiny_llama"


def learn_tokens(texts: list[str]):
    """A byte-level byte-pair tokenizer, split into words as GPT-2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[MARK], initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def build(vocabulary: int, seed: int = 0) -> nn.TokenModel:
    """The model, initialised from a seed."""
    layer = nn.TransformerEncoderLayer(
        *(WIDTH, HEADS, INNER),
        **dict(dropout=0.1, activation="swiglu", layer_norm_eps=EPS, norm_first=True, bias=False),
        **dict(num_kv_heads=KV_HEADS, norm="rms", positions="rope"),
    )
    model = nn.TokenModel(layer, LAYERS, vocabulary, final_norm="rms", head="tied")
    model.dropout_state = seed, 0
    return model.initialize("normal", deviation=0.02, seed=seed)


class Texts:
    """Reviews as ids between marks, and batches of inputs and what follows each of them."""

    def __init__(self, items: list[reviews.Review], tokenizer) -> None:
        found = tokenizer.encode_batch([review.text for review in items])
        self.ids = [np.array([0, *encoding.ids, 0][: LENGTH + 1], np.int32) for encoding in found]

    def batches(self, order: np.ndarray):
        """ids (rows,), where each review begins (B + 1,), and the next ids (rows,)."""
        for first in range(0, len(order), BATCH):
            parts = [self.ids[i] for i in order[first : first + BATCH]]
            starts = np.cumsum([0, *(len(part) - 1 for part in parts)]).astype(np.int32)
            yield np.concatenate([part[:-1] for part in parts]), starts, np.concatenate([part[1:] for part in parts])


def evaluate(model: nn.TokenModel, texts: Texts) -> tuple[float, float]:
    """Mean loss of a token, and how many are the likeliest."""
    model.eval()
    loss, right, count = 0.0, 0, 0
    for ids, starts, following in texts.batches(np.arange(len(texts.ids))):
        logits = model(ids, cu_seqlens=starts, is_causal=True)
        loss += float(cross_entropy(logits, following)) * len(ids)
        right += int((logits.argmax(-1) == following).sum())
        count += len(ids)
    return loss / count, right / count


def train(seed: int = 0, epochs: int = 3, count: int | None = None, quiet: bool = False):
    """Trains a model: the model, its tokenizer, its history, and the loss of a token of the validation reviews."""
    split = reviews.load()
    items = split.train[:count]
    tokenizer = learn_tokens([review.text for review in items])
    texts, validation = Texts(items, tokenizer), Texts(split.validation[:count], tokenizer)
    model = build(tokenizer.get_vocab_size(), seed)
    steps = epochs * -(-len(items) // BATCH)
    optimizer = optim.AdamW(
        *(model, 3e-3),
        **dict(betas=(0.9, 0.95), weight_decay=0.05, clip_norm=1.0),
        **dict(schedule="cosine", warmup=steps // 20, total_steps=steps, final_lr=3e-4),
    )
    history, loss_of_validation = training.History(), float("nan")
    tokens = epochs * sum(len(ids) - 1 for ids in texts.ids)
    with training.Progress(f"tiny Llama, seed {seed}", tokens, "tokens", quiet) as progress:
        for epoch in range(epochs):
            model.train()
            for ids, starts, following in texts.batches(np.random.default_rng((seed, epoch)).permutation(len(items))):
                logits = model(ids, cu_seqlens=starts, is_causal=True)
                measured = training.learn(model, optimizer, logits, following)
                history.step(measured["loss"])
                progress.advance(len(ids), **measured)
            history.rate = progress.rate
            loss_of_validation, right = evaluate(model, validation)
            history.validation.append(right)
            progress.resume()
    model.eval()
    return model, tokenizer, history, loss_of_validation


def export(path: Path, model: nn.TokenModel, tokenizer) -> None:
    """Writes a GGUF file of architecture llama with float32 weights."""
    import gguf

    state = model.state_dict()
    described = json.loads(tokenizer.to_str())["model"]
    words = sorted(described["vocab"], key=described["vocab"].get)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny Llama of Chinese reviews")
    writer.add_vocab_size(len(words))
    writer.add_context_length(LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL if word == MARK else gguf.TokenType.NORMAL for word in words])
    writer.add_token_merges([" ".join(pair) for pair in described["merges"]])
    writer.add_bos_token_id(words.index(MARK))
    writer.add_eos_token_id(words.index(MARK))
    writer.add_add_bos_token(True)
    writer.add_tensor("token_embd.weight", state["embedding.weight"])
    for n in range(LAYERS):
        own = {name.removeprefix(f"layers.{n}."): array for name, array in state.items() if name.startswith(f"layers.{n}.")}
        kv = KV_HEADS * WIDTH // HEADS
        q, k, v = np.split(own["self_attn.in_proj_weight"], [WIDTH, WIDTH + kv])
        parts = {
            "attn_norm": own["norm1.weight"],
            "attn_q": neighbours(q, HEADS),
            "attn_k": neighbours(k, KV_HEADS),
            "attn_v": v,
            "attn_output": own["self_attn.out_proj.weight"],
            "ffn_norm": own["norm2.weight"],
            "ffn_gate": own["linear_gate.weight"],
            "ffn_up": own["linear1.weight"],
            "ffn_down": own["linear2.weight"],
        }
        for name, array in parts.items():
            writer.add_tensor(f"blk.{n}.{name}.weight", np.ascontiguousarray(array))
    writer.add_tensor("output_norm.weight", state["norm.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def neighbours(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows whose rotary pairs are (i, i + D/2) of each head in an order where they are (2i, 2i + 1), as GGUF files have them."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    learn, ask = commands.add_parser("train", help="train, draw, export"), commands.add_parser("sample", help="go on with a text")
    learn.add_argument("--epochs", type=int, default=3)
    learn.add_argument("--reviews", type=int, help="how many of each part are used; default: all")
    ask.add_argument("text", nargs="?", default="", metavar="TEXT")
    ask.add_argument("--temperature", type=float, default=0.8)
    for command in (learn, ask):
        command.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    path = FOLDER / "tiny_llama.gguf"
    if given.command == "train":
        model, tokenizer, history, loss = train(given.seed, given.epochs, given.reviews)
        FOLDER.mkdir(parents=True, exist_ok=True)
        export(path, model, tokenizer)
        training.draw_curves(FOLDER / "curves.png", "Tiny Llama", history)
        print(f"validation: loss {loss:.3f} a token, {history.validation[-1]:.1%} of the next tokens; {history.rate:.0f} tokens/s")
        print(f"the model and its curves are in {FOLDER}")
        texts, temperature = ("", "房间", "这本书", "电脑"), 0.8
    else:
        if not path.exists():
            raise SystemExit(f"{path.name} is not there yet: python Examples/tiny_llama.py train")
        texts, temperature = (given.text,), given.temperature
    writer = models.load(path)
    for text in texts:
        room = LENGTH - len(writer.tokenize(text))
        print(text + writer.generate(text, max_tokens=min(60, room), temperature=temperature, top_p=0.95, seed=given.seed))


if __name__ == "__main__":
    main()
