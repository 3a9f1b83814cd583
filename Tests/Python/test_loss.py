"""Cross-entropy and its gradient against float64 NumPy and central differences."""

import numpy as np
import pytest
import swiftattn
from support import DTYPES, normal, strided


def cross_entropy(logits, targets, ignore_index=-100, label_smoothing=0.0):
    """(mean loss, gradient of the logits)."""
    x = np.asarray(logits).astype(np.float64)
    log_p = x - x.max(-1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
    counts = np.asarray(targets) != ignore_index
    q = (1 - label_smoothing) * np.eye(x.shape[-1])[np.where(counts, targets, 0)] + label_smoothing / x.shape[-1]
    number = max(counts.sum(), 1)
    # 0 * inf: a class that counts for nothing costs nothing
    loss = -np.where(q > 0, q * np.where(q > 0, log_p, 0), 0).sum(-1)
    return loss[counts].sum() / number, np.where(counts[..., None], np.exp(log_p) - q, 0) / number


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (1, 1), (4, 7), (2, 3, 16), (3, 2, 100), (2, 2, 2, 1000)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_loss_and_gradient(dtype, shape, smoothing):
    rng = np.random.default_rng(shape[-1])
    logits = normal(rng, shape, dtype) * DTYPES[dtype].type(4)
    targets = rng.integers(0, shape[-1], shape[:-1])
    for ignored in (-100, 0):
        options = dict(ignore_index=ignored, label_smoothing=smoothing)
        loss, gradient = cross_entropy(logits, targets, **options)
        got = swiftattn.cross_entropy(logits, targets, **options)
        assert np.shape(got) == () and got.dtype == (np.float64 if dtype == "float64" else np.float32)
        np.testing.assert_allclose(got, loss, rtol=1e-13 if dtype == "float64" else 1e-6, atol=1e-15)
        same, grad = swiftattn.cross_entropy_backward(logits, targets, **options)
        assert same == got and grad.dtype == logits.dtype
        tolerance = {"float64": 1e-14, "float32": 3e-7, "float16": 1e-3, "bfloat16": 4e-3}[dtype]
        np.testing.assert_allclose(grad.astype(float), gradient, atol=tolerance * (np.abs(gradient).max() + 1e-2))
        twice = swiftattn.cross_entropy_backward(logits, targets, grad_loss=-2.0, **options)[1]
        np.testing.assert_allclose(
            twice.astype(float), -2 * gradient, atol=2 * tolerance * (np.abs(gradient).max() + 1e-2)
        )


def test_central_differences():
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((4, 9)), np.array([1, 8, -1, 0])
    options = dict(ignore_index=-1, label_smoothing=0.2)
    gradient = swiftattn.cross_entropy_backward(logits, targets, **options)[1]
    for index in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-4
        fd = (
            swiftattn.cross_entropy(logits + step, targets, **options)
            - swiftattn.cross_entropy(logits - step, targets, **options)
        ) / 2e-4
        assert abs(fd - gradient[index]) <= 1e-7 * np.abs(gradient).max()


def test_layouts_and_in_place():
    rng = np.random.default_rng(1)
    logits, targets = normal(rng, (3, 5, 33)), rng.integers(-1, 33, (3, 5))
    loss, gradient = swiftattn.cross_entropy_backward(logits, targets, ignore_index=-1)
    for _ in range(5):
        view, ids = strided(rng, logits), strided(rng, targets.astype(np.int32))
        got, grad = swiftattn.cross_entropy_backward(view, ids, ignore_index=-1)
        assert got == loss
        np.testing.assert_array_equal(grad, gradient)
        swiftattn.cross_entropy_backward(view, ids, ignore_index=-1, out=view)
        np.testing.assert_array_equal(view, gradient)


def test_threads_do_not_matter():
    rng = np.random.default_rng(2)
    logits, targets = normal(rng, (300, 900)), rng.integers(0, 900, 300)
    before = swiftattn.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            swiftattn.set_num_threads(threads)
            results.append(swiftattn.cross_entropy_backward(logits, targets, label_smoothing=0.1))
    finally:
        swiftattn.set_num_threads(before)
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(gradient, results[0][1])


def test_rows_that_do_not_count():
    logits = np.full((2, 3), np.nan, np.float32)
    loss, gradient = swiftattn.cross_entropy_backward(logits, [-100, -100])
    assert loss == 0 and not gradient.any()
    loss, gradient = swiftattn.cross_entropy_backward(np.array([[np.nan, 1], [0, 0]], np.float32), [-100, 1])
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(gradient, [[0, 0], [0.5, -0.5]])
    assert swiftattn.cross_entropy(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) == 0


def test_extreme_logits():
    x = np.array([[1e4, -1e4, 0], [-np.inf, 0, 0], [3e38, -3e38, 0]], np.float32)
    for target, expected in ((0, 0), (1, 2e4)):
        np.testing.assert_allclose(swiftattn.cross_entropy(x[:1], [target]), expected, rtol=1e-6)
    loss, gradient = swiftattn.cross_entropy_backward(x[1:2], [1])
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, -0.5, 0.5]])
    assert swiftattn.cross_entropy(x[1:2], [0]) == np.inf
    assert swiftattn.cross_entropy(x[2:], [0]) == 0
    assert np.isnan(swiftattn.cross_entropy(np.array([[np.nan, 0]], np.float32), [1]))


def test_a_sure_target_keeps_its_digits():
    """p - 1 of a nearly certain class is taken in float64, where 1 - p does not cancel to 0."""
    logits = np.array([[20.0, 0, 0]], np.float32)
    gradient = swiftattn.cross_entropy_backward(logits, [0])[1]
    np.testing.assert_allclose(gradient, cross_entropy(logits, [0])[1], rtol=1e-6)


def test_torch_shapes_are_not_taken_for_ours():
    with pytest.raises(ValueError, match="targets"):
        swiftattn.cross_entropy(np.zeros((2, 5, 3), np.float32), np.zeros((2, 3), np.int64))
