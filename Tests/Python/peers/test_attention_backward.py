"""Gradients of attention next to PyTorch's autograd: the same, and no more error."""

import numpy as np
import pytest
import swiftattn
import torch
import torch.nn.functional as F

ROUNDING = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2, torch.float64: 1e-11}


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def problem(batch, q_heads, kv_heads, q_len, k_len, dim, dtype=torch.float32):
    shapes = [(q_heads, q_len), (kv_heads, k_len), (kv_heads, k_len), (q_heads, q_len)]
    return [numbers(batch, heads, length, dim, dtype=dtype, seed=i) for i, (heads, length) in enumerate(shapes)]


def of_torch(q, k, v, grad_out, mask=None, **options):
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v) + ((mask,) if mask is not None else ())]
    out = F.scaled_dot_product_attention(*leaves[:3], attn_mask=leaves[3] if mask is not None else None, **options)
    return torch.autograd.grad(out, leaves, grad_out)


def ours(q, k, v, grad_out, mask=None, **options):
    options.pop("enable_gqa", None)
    out, lse = swiftattn.scaled_dot_product_attention(q, k, v, mask, return_lse=True, **options)
    bias = mask is not None
    return swiftattn.scaled_dot_product_attention_backward(grad_out, q, k, v, out, lse, mask, bias_grad=bias, **options)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}], ids=str)
def test_gradients_are_autograds(dtype, kv_heads, options):
    inputs = problem(2, 4, kv_heads, 70, 70, 24, dtype)
    expected = of_torch(*inputs, enable_gqa=kv_heads != 4, **options)
    for got, wanted in zip(ours(*inputs, **options), expected):
        assert isinstance(got, torch.Tensor) and got.dtype == dtype
        torch.testing.assert_close(got, wanted, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


@pytest.mark.parametrize("shape", [(2, 4, 30, 50), (4, 1, 50), (30, 50), (2, 1, 1, 50)], ids=str)
def test_bias_gradients_are_autograds(shape):
    inputs = problem(2, 4, 4, 30, 50, 16)
    mask = numbers(*shape, seed=9)
    for got, wanted in zip(ours(*inputs, mask), of_torch(*inputs, mask)):
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 2, 2, 512, 512, 64), (2, 3, 3, 300, 400, 64), (1, 4, 1, 512, 512, 128)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_rms_error_is_at_most_torchs(shape, causal):
    inputs = problem(*shape)
    options = {"is_causal": causal, "enable_gqa": shape[1] != shape[2]}
    exact = of_torch(*(x.double() for x in inputs), **options)
    for name, got, theirs, truth in zip(("dq", "dk", "dv"), ours(*inputs, **options), of_torch(*inputs, **options), exact):
        errors = [np.sqrt(np.mean(np.square((x.double() - truth).numpy()))) for x in (got, theirs)]
        assert errors[0] <= errors[1], f"{name}: RMS error {errors[0]:.3g}, torch's {errors[1]:.3g}"
