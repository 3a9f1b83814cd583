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
