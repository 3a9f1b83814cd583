"""nn.EncoderDecoder against float64 NumPy: logits, cross-attention, greedy decoding and beam search."""

import itertools

import nn_reference
import numpy as np
import pytest
import reference
from swiftattn import nn

WIDTH, HEADS, INNER, SOURCES, TARGETS = 24, 4, 32, 11, 7
START, END = 0, 1


def make(norm_first=False, dtype="float32", positions="none", kv_heads=None, scale=1.0, **options):
    layer = nn.TransformerEncoderLayer(
        *(WIDTH, HEADS, INNER), norm_first=norm_first, dtype=dtype, positions=positions, num_kv_heads=kv_heads
    )
    module = nn.EncoderDecoder(layer, 2, 2, SOURCES, TARGETS, **options)
    state = nn_reference.random_state(np.random.default_rng(1), module)
    if "head.weight" in state:  # sharper distributions
        state["head.weight"] *= scale
        module.load_state_dict(state)
        state = {name: array.astype(np.float64) for name, array in module.state_dict().items()}
    return module, state


def embed(state, name, ids):
    x = state.get(f"{name}.weight", state["src_embedding.weight"])[ids]
    return x + reference.sinusoidal_positions(ids.shape[1], x.shape[-1])


def logits(state, src, tgt, hidden=None, **options):
    bias = None if hidden is None else np.where(hidden, -np.inf, 0)[:, None, None]
    encoder, decoder = (nn_reference.part(state, f"{side}coder.") for side in ("en", "de"))
    memory = nn_reference.stack(
        encoder, embed(state, "src_embedding", src), nn_reference.encoder_layer, heads=HEADS, bias=bias, **options
    )
    rows = nn_reference.stack(
        *(decoder, embed(state, "tgt_embedding", tgt), nn_reference.decoder_layer),
        **dict(memory=memory, heads=HEADS, bias=nn_reference.causal(tgt.shape[1]), memory_bias=bias, **options),
    )
    weight = state.get("head.weight", state.get("tgt_embedding.weight", state["src_embedding.weight"]))
    return rows @ weight.T + state.get("head.bias", 0)


def problem():
    rng = np.random.default_rng(2)
    src = rng.integers(0, SOURCES, (3, 6))
    return src, rng.integers(0, TARGETS, (3, 5)), np.arange(6) >= np.array([6, 2, 4])[:, None]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [{}, {"norm_first": True, "head_bias": True}, {"tied_head": True}, {"shared_embedding": True, "tied_head": True}],
    ids=str,
)
def test_logits(options, dtype):
    module, state = make(dtype=dtype, **options)
    src, tgt, hidden = problem()
    exact = logits(state, src, tgt, hidden, norm_first=options.get("norm_first", False))
    got, attentions = module(src, tgt, src_key_padding_mask=hidden, return_attentions=True)
    assert np.abs(got - exact).max() <= (1e-5 if dtype == "float32" else 1e-12) * np.abs(exact).max()
    assert attentions.shape == (2, 3, HEADS, 5, 6)
    np.testing.assert_allclose(attentions.sum(-1), 1, rtol=1e-6)
    assert (attentions.transpose(1, 5 - 1, 0, 2, 3)[hidden] == 0).all()
    later = tgt.copy()
    later[:, 3:] = 0
    assert module(src, later, src_key_padding_mask=hidden)[:, :3].tobytes() == got[:, :3].tobytes()


def beam_search(state, src, hidden, beams, length, penalty, **options):
    """The definition in the header, with a full pass for every step. src (S,)."""
    going, finished = [((), 0.0)], []
    for n in range(1, length + 1):
        tgt = np.array([[START, *tokens] for tokens, _ in going])
        many = np.repeat(src[None], len(going), axis=0)
        rows = logits(state, many, tgt, np.repeat(hidden[None], len(going), axis=0), **options)[:, -1]
        rows = rows - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True)) - rows.max(-1, keepdims=True)
        found = [(total + row[v], tokens + (v,)) for (tokens, total), row in zip(going, rows) for v in range(TARGETS)]
        found.sort(key=lambda entry: -entry[0])
        going = []
        for rank, (total, tokens) in enumerate(found[: 2 * beams]):
            if tokens[-1] == END:
                if rank < beams:
                    finished.append((total / n**penalty, tokens))
            elif len(going) < beams:
                going.append((tokens, total))
        finished = sorted(finished, reverse=True)[:beams]
        if len(finished) == beams and finished[-1][0] >= going[0][1] / n**penalty:
            break
    else:
        finished += [(total / length**penalty, tokens) for tokens, total in going]
    return max(finished)


@pytest.mark.parametrize("beams, penalty", [(1, 1.0), (2, 0.0), (3, 1.0), (5, 2.0)])
@pytest.mark.parametrize("norm_first", [False, True])
def test_greedy_and_beams(beams, penalty, norm_first):
    module, state = make(norm_first=norm_first, scale=4.0)
    src, _, hidden = problem()
    written = module.write(
        src, start=START, end=END, max_length=8, src_key_padding_mask=hidden, beams=beams, length_penalty=penalty
    )
    for b in range(len(src)):
        score, tokens = beam_search(state, src[b], hidden[b], beams, 8, penalty, norm_first=norm_first)
        assert written.ids[b] == list(tokens)
        assert abs(written.scores[b] - score) < 1e-4
        alone = module.write(
            src[b : b + 1, : (~hidden[b]).sum()], start=START, end=END, max_length=8, beams=beams, length_penalty=penalty
        )
        assert alone.ids[0] == written.ids[b]


def test_many_beams_find_the_best_of_all():
    module, state = make(scale=4.0)
    src, _, hidden = problem()
    length = 3
    written = module.write(src, start=START, end=END, max_length=length, src_key_padding_mask=hidden, beams=60)
    words = [v for v in range(TARGETS) if v != END]
    complete = [(*head, END) for n in range(length) for head in itertools.product(words, repeat=n)]
    complete += list(itertools.product(words, repeat=length))
    for b in range(len(src)):
        tgt = np.array([[START, *tokens[:-1], *[0] * (length - len(tokens))] for tokens in complete])
        many = np.repeat(src[b : b + 1], len(tgt), axis=0)
        rows = logits(state, many, tgt, np.repeat(hidden[b : b + 1], len(tgt), axis=0))
        rows = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
        scores = [sum(row[t, v] for t, v in enumerate(tokens)) / len(tokens) for row, tokens in zip(rows, complete)]
        assert written.ids[b] == list(complete[int(np.argmax(scores))])


@pytest.mark.parametrize("positions, kv_heads", [("rope", 2), ("alibi", 1), ("rope", None)])
def test_decoding_through_the_cache_is_the_full_pass(positions, kv_heads):
    module, _ = make(positions=positions, kv_heads=kv_heads, scale=4.0)
    src, _, hidden = problem()
    written = module.write(src, start=START, end=END, max_length=9, src_key_padding_mask=hidden)
    for b, ids in enumerate(written.ids):
        rows = module(src[b : b + 1], np.array([[START, *ids[:-1]]]), src_key_padding_mask=hidden[b : b + 1])[0]
        assert rows.argmax(-1).tolist() == ids
        logs = rows.astype(np.float64) - np.log(np.exp(rows.astype(np.float64)).sum(-1, keepdims=True))
        assert abs(logs.max(-1).mean() - written.scores[b]) < 1e-5


@pytest.mark.once
def test_errors():
    module, _ = make()
    src, tgt, hidden = problem()
    for run, error, words in (
        (lambda: module(src, tgt[:2]), ValueError, "tgt: batch is 2, src has 3"),
        (lambda: module(src[0], tgt), ValueError, "src: rank is 1"),
        (lambda: module(src + SOURCES, tgt), ValueError, "ids: entry 0 is"),
        (lambda: module(src, tgt, src_key_padding_mask=hidden[:, 1:]), ValueError, "src.key_padding_mask: shape"),
        (lambda: module.write(src, start=7, end=1, max_length=3), ValueError, "start: expected 0 to 6, got 7"),
        (lambda: module.write(src, start=0, end=-1, max_length=3), ValueError, "end: expected 0 to 6"),
        (lambda: module.write(src, start=0, end=1, max_length=0), ValueError, "max_length"),
        (lambda: module.write(src, start=0, end=1, max_length=3, beams=0), ValueError, "beams"),
        (lambda: module.write(src, start=0, end=1, max_length=3, length_penalty=np.nan), ValueError, "length_penalty"),
        (lambda: module.write(src, start=0, end=1, max_length=3, src_key_padding_mask=hidden[1:]), ValueError, "mask: shape"),
        (lambda: module.write(src[0], start=0, end=1, max_length=3), ValueError, "rank is 1"),
        (lambda: make(dtype="float64")[0].write(src, start=0, end=1, max_length=3), TypeError, "float64"),
    ):
        with pytest.raises(error, match=words):
            run()
    assert module.write(np.zeros((0, 4), int), start=0, end=1, max_length=3).ids == []
