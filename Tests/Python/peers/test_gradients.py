"""Losses and gradients against torch: close, and in float32 no further from float64 than torch's own."""

import numpy as np
import pytest
import swiftattn
import torch


def rms(got, exact):
    return float((got.double() - exact.double()).square().mean().sqrt())


def assert_as_close_as(got, theirs, exact, what, slack=1.0):
    """RMS error against float64 no larger than torch's in float32."""
    ours, bound = rms(got, exact), rms(theirs, exact)
    assert ours <= slack * bound, f"{what}: RMS error {ours:.3g}, torch's {bound:.3g}"


@pytest.mark.parametrize("shape", [(64, 50), (300, 5000)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(shape, smoothing):
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(shape, generator=rng)
    targets = torch.randint(0, shape[1], shape[:1], generator=rng)
    targets[::7] = -100

    def torch_loss(x):
        x = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(x, targets, label_smoothing=smoothing)
        loss.backward()
        return loss.detach(), x.grad

    exact_loss, exact = torch_loss(logits.double())
    their_loss, theirs = torch_loss(logits)
    loss, gradient = swiftattn.cross_entropy_backward(logits, targets, label_smoothing=smoothing)
    np.testing.assert_allclose(float(loss), float(exact_loss), rtol=1e-6)
    assert_as_close_as(gradient, theirs, exact, "grad_logits")


def of_torch(function, inputs, grad_out):
    """Gradients of the floating inputs in torch."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    function(*leaves).backward(grad_out)
    return [leaf.grad for leaf in leaves]


def additive(q, k, v, wq, wk, vs):
    scores = torch.tanh((q @ wq.T)[..., :, None, :] + (k @ wk.T)[..., None, :, :]) @ vs
    return scores.softmax(-1) @ v


F = torch.nn.functional
N = 768
IDS = torch.randint(0, 50, (600,), generator=torch.Generator().manual_seed(9))
# name: (torch's function, our gradients, shapes of the inputs, which of the gradients are compared)
CASES = {
    "linear": (F.linear, swiftattn.linear_backward, [(500, N), (300, N), (300,)]),
    "linear, gelu": (
        lambda x, w, b: F.gelu(F.linear(x, w, b)),
        lambda g, x, w, b: swiftattn.linear_backward(g, x, w, b, activation="gelu"),
        [(500, N), (300, N), (300,)],
    ),
    "softmax": (
        lambda x: x.softmax(-1),
        lambda g, x: (swiftattn.softmax_backward(g, swiftattn.softmax(x)),),
        [(500, 1000)],
    ),
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, (N,), w, b),
        lambda g, x, w, b: swiftattn.layer_norm_backward(g, x, w),
        [(1000, N), (N,), (N,)],
    ),
    "rms_norm": (
        lambda x, w: F.rms_norm(x, (N,), w, 1e-6),
        swiftattn.rms_norm_backward,
        [(1000, N), (N,)],
    ),
    "gelu": (F.gelu, lambda g, x: (swiftattn.gelu_backward(g, x),), [(500, N)]),
    "gelu, tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda g, x: (swiftattn.gelu_backward(g, x, "tanh"),),
        [(500, N)],
    ),
    "silu": (F.silu, lambda g, x: (swiftattn.silu_backward(g, x),), [(500, N)]),
    "swiglu": (lambda a, b: F.silu(a) * b, swiftattn.swiglu_backward, [(500, N), (500, N)]),
    "geglu": (lambda a, b: F.gelu(a) * b, swiftattn.geglu_backward, [(500, N), (500, N)]),
    "embedding": (
        lambda table: F.embedding(IDS, table),
        lambda g, table: (swiftattn.embedding_backward(g, IDS, 50),),
        [(50, N)],
    ),
    "additive_attention": (
        additive,
        swiftattn.additive_attention_backward,
        [(2, 60, 64), (2, 80, 48), (2, 80, 32), (128, 64), (128, 48), (128,)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    function, backward, shapes = CASES[name]
    rng = torch.Generator().manual_seed(1)
    inputs = [torch.randn(shape, generator=rng) * (0.2 if name == "additive_attention" else 1) for shape in shapes]
    grad_out = torch.randn(function(*inputs).shape, generator=rng)
    exact = of_torch(function, [x.double() for x in inputs], grad_out.double())
    theirs = of_torch(function, inputs, grad_out)
    for number, (got, their, wanted) in enumerate(zip(backward(grad_out, *inputs), theirs, exact)):
        print(f"{name} {number}: ours {rms(got, wanted):.3e}, torch's {rms(their, wanted):.3e}")
        assert_as_close_as(got, their, wanted, f"gradient {number}")
