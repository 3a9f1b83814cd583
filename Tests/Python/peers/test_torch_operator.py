"""swiftattn.torch: gradcheck, opcheck, autograd, and models of transformers beside their own sdpa."""

import pytest
import swiftattn
import torch
import torch.nn.functional as F
from swiftattn.torch import _attention, scaled_dot_product_attention, use_in_transformers


def numbers(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


OPTIONS = {
    "plain": {},
    "causal": dict(is_causal=True),
    "lower right, window": dict(is_causal="lower_right", window=(3, None)),
    "softcap and scale": dict(softcap=2.0, scale=0.7),
    "dropout": dict(dropout_p=0.3, seed=7),
    "lengths": dict(q_lengths=torch.tensor([5, 2]), kv_lengths=torch.tensor([4, 7]), query_offset=torch.tensor([0, 3])),
    "alibi": dict(alibi_slopes=torch.rand(4, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_gradcheck(name):
    q, k, v = numbers(2, 4, 5, 3, seed=1), numbers(2, 2, 7, 3, seed=2), numbers(2, 2, 7, 4, seed=3)
    bias, sinks = numbers(4, 1, 7, seed=4), numbers(4, seed=5)

    def attend(q, k, v, bias, sinks):
        return scaled_dot_product_attention(q, k, v, bias, sinks=sinks, **OPTIONS[name])

    assert torch.autograd.gradcheck(attend, (q, k, v, bias, sinks), eps=1e-5, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("mask", [None, torch.ones(5, 7, dtype=torch.bool), numbers(5, 7, dtype=torch.float32)], ids=type)
def test_opcheck(mask):
    q, k, v = (numbers(2, 4, length, 8, dtype=torch.float32) for length in (5, 7, 7))
    sinks = numbers(4, dtype=torch.float32)
    arguments = (q, k, v, mask, 0.2, "upper_left", None, None, None, None, None, 0.0, None, sinks, None, None, 3, "highest")
    torch.library.opcheck(_attention, arguments)


def test_values_and_gradients_are_the_functions_and_share_memory():
    q, k, v = (numbers(1, 2, 9, 16, dtype=torch.float32, seed=i) for i in range(3))
    out, lse = scaled_dot_product_attention(q, k, v, is_causal=True, return_lse=True)
    assert out.requires_grad and not lse.requires_grad
    plain = [x.detach() for x in (q, k, v)]
    expected = swiftattn.scaled_dot_product_attention(*plain, is_causal=True, return_lse=True)
    assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])
    grads = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    wanted = swiftattn.scaled_dot_product_attention_backward(torch.ones_like(out), *plain, *expected, is_causal=True)
    assert all(torch.equal(a, b) for a, b in zip(grads, wanted))


def test_only_what_is_asked_for_gets_a_gradient():
    q, k, v = (numbers(1, 2, 9, 16, dtype=torch.float32) for _ in range(3))
    scaled_dot_product_attention(q, k.detach(), v.detach()).sum().backward()
    assert q.grad is not None and k.grad is None and v.grad is None
    with torch.no_grad():
        assert not scaled_dot_product_attention(q, k, v).requires_grad


def test_sinks_of_a_model_in_bfloat16():
    q, k, v = (numbers(1, 4, 9, 16, dtype=torch.bfloat16, seed=i) for i in range(3))
    sinks = numbers(4, dtype=torch.bfloat16)
    scaled_dot_product_attention(q, k, v, sinks=sinks).sum().backward()
    assert sinks.grad.dtype == torch.bfloat16 and sinks.grad.any()


def test_dropout_follows_torchs_generator():
    q = numbers(1, 2, 9, 16, dtype=torch.float32)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(scaled_dot_product_attention(q, q, q, dropout_p=0.5))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_errors_are_the_librarys():
    q = numbers(1, 2, 9, 16, dtype=torch.float32)
    with pytest.raises(ValueError, match="key: head_dim is 8, query has 16"):
        scaled_dot_product_attention(q, q[..., :8], q)
    with pytest.raises(ValueError, match="is_causal"):
        scaled_dot_product_attention(q, q, q, is_causal="sideways")


def test_compiled_without_breaks():
    q, k, v = (numbers(1, 2, 9, 16, dtype=torch.float32, seed=i) for i in range(3))
    compiled = torch.compile(lambda *x: scaled_dot_product_attention(*x, is_causal=True), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(q, k, v), scaled_dot_product_attention(q, k, v, is_causal=True))


# Models of transformers, their weights at random.

transformers = pytest.importorskip("transformers")
use_in_transformers()
SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=97)


def llama(implementation):
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=2, attn_implementation=implementation)
    return transformers.LlamaForCausalLM(config)


def bert(implementation):
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, attn_implementation=implementation))


def gpt2(implementation):
    config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=97, attn_implementation=implementation)
    return transformers.GPT2LMHeadModel(config)


FAMILIES = {"llama": llama, "bert": bert, "gpt2": gpt2}


def pair(family):
    """The same model twice: with torch's attention and with ours."""
    torch.manual_seed(0)
    theirs, ours = FAMILIES[family]("sdpa"), FAMILIES[family]("swiftattn")
    ours.load_state_dict(theirs.state_dict())
    assert ours.config._attn_implementation == "swiftattn"
    return theirs.eval(), ours.eval()


def batch():
    ids = torch.randint(97, (3, 11), generator=torch.Generator().manual_seed(1))
    attention_mask = torch.ones_like(ids)
    attention_mask[1, :4] = 0  # padding before, as generation wants it
    return {"input_ids": ids, "attention_mask": attention_mask}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_models_say_the_same(family, masked):
    theirs, ours = pair(family)
    inputs = batch() if masked else {"input_ids": batch()["input_ids"]}
    real = batch()["attention_mask"].bool() if masked else torch.ones(3, 11, dtype=torch.bool)
    torch.testing.assert_close(ours(**inputs).logits[real], theirs(**inputs).logits[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_generation_with_a_cache(family, cache):
    theirs, ours = pair(family)
    options = dict(max_new_tokens=12, do_sample=False, pad_token_id=0, cache_implementation=cache, disable_compile=True)
    assert torch.equal(ours.generate(**batch(), **options), theirs.generate(**batch(), **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_steps(family):
    losses = []
    for model in pair(family):
        for module in model.modules():  # dropout draws other numbers on either side
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for name in ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout"):
            if hasattr(model.config, name):
                setattr(model.config, name, 0.0)
        for module in model.modules():
            for name in ("attention_dropout", "attn_dropout", "dropout_prob"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        inputs = batch()
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(**inputs, labels=inputs["input_ids"]).loss
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=2e-5)


def test_training_with_dropout():
    model = llama("swiftattn").train()
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.2
    first, second = (model(**batch(), labels=batch()["input_ids"]).loss for _ in range(2))
    assert first != second
    first.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
