"""softmax, the norms, activations and embeddings against the reference."""

import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, assert_accurate, normal, plain

LENGTHS = [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 257, 1000]


def check(name, *arguments, **options):
    like = arguments[0].dtype
    got = getattr(swiftattn, name)(*arguments, **options)
    assert got.dtype == like
    function = getattr(reference, name)
    assert_accurate(got, function(*arguments, **options), plain(function, *arguments, like=like, **options), name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_softmax(dtype, length):
    rng = np.random.default_rng(length)
    for scale in (1, 30):
        check("softmax", (normal(rng, (5, length), "float64") * scale).astype(DTYPES[dtype]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (2, 3, 1, 4), (1, 2, 1, 2, 1, 2, 1, 3)])
def test_softmax_axes(dtype, shape):
    x = normal(np.random.default_rng(0), shape, dtype)
    for axis in range(-x.ndim, x.ndim):
        check("softmax", x, axis=axis)


def test_softmax_of_large_scores():
    x = np.array([[1e4, 1e4 - 1, -1e4], [-3e38, -3e38, 3e38], [-1e4, -1e4 - 2, -1e4]], np.float32)
    check("softmax", x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("affine", [False, True, "float32"])
def test_norms(dtype, length, affine):
    rng = np.random.default_rng(length)
    x = normal(rng, (2, 3, length), dtype)
    if affine is False:
        check("layer_norm", x)
        check("rms_norm", x)
        return
    parameters = dtype if affine is True else "float32"
    weight, bias = normal(rng, (length,), parameters), normal(rng, (length,), parameters)
    if parameters == "float32" and dtype == "float64":
        weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    check("layer_norm", x, weight, bias, 1e-3)
    check("layer_norm", x, weight)
    check("layer_norm", x, None, bias)
    check("rms_norm", x, weight, 1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_layer_norm_far_from_zero(dtype):
    """The variance is taken of what is left after the mean: 1000 +- 1 keeps its digits."""
    x = (1000 + 8 * np.random.default_rng(1).integers(-3, 4, (4, 64))).astype(DTYPES[dtype])
    check("layer_norm", x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_of_constant_rows(dtype):
    x = np.full((2, 24), 3, DTYPES[dtype])
    assert not swiftattn.layer_norm(x).any()
    np.testing.assert_allclose(swiftattn.rms_norm(x).astype(float), 1, rtol=1e-3)
    zeros = np.zeros((2, 24), DTYPES[dtype])
    assert not swiftattn.rms_norm(zeros).any() and not swiftattn.layer_norm(zeros).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_without_elements(dtype):
    for shape in ((0, 5), (3, 0), (0,), (2, 0, 4)):
        x = np.zeros(shape, DTYPES[dtype])
        for function in (swiftattn.softmax, swiftattn.layer_norm, swiftattn.rms_norm, swiftattn.silu, swiftattn.relu):
            assert function(x).shape == shape
        assert swiftattn.swiglu(x, x).shape == shape
    assert swiftattn.softmax(np.zeros((2, 0, 4), DTYPES[dtype]), 1).shape == (2, 0, 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (17,), (3, 5, 7), (2, 1000)])
def test_activations(dtype, shape):
    rng = np.random.default_rng(2)
    x, up = (np.asarray(rng.standard_normal(shape) * 3).astype(DTYPES[dtype]) for _ in range(2))
    for name in ("relu", "gelu", "silu"):
        check(name, x)
    check("gelu", x, approximate="tanh")
    check("swiglu", x, up)
    check("geglu", x, up)
    check("geglu", x, up, approximate="tanh")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name, options", [("gelu", {}), ("gelu", {"approximate": "tanh"}), ("silu", {}), ("relu", {})]
)
def test_activations_over_their_range(dtype, name, options):
    """Piece by piece, so that the error in the small tail is not hidden by the large end."""
    for low, high in ((-20, -8), (-8, -4), (-4, -1), (-1, 1), (-1e-3, 1e-3), (1, 8), (8, 100)):
        x = np.linspace(low, high, 999).astype(DTYPES[dtype])
        if dtype == "float64":  # what the formula as written loses to the cancellation of its sum
            error = np.abs(getattr(swiftattn, name)(x, **options) - getattr(reference, name)(x, **options))
            assert (error <= 1e-15 * np.abs(x)).all()
        else:
            check(name, x, **options)
    tail = getattr(swiftattn, name)(np.linspace(-1000, -20, 999).astype(DTYPES[dtype]), **options).astype(np.float64)
    assert (tail <= 0).all() and (tail >= (-1e-7 if name == "silu" else -1e-36)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, list])
def test_embedding(dtype, kind):
    rng = np.random.default_rng(3)
    table = normal(rng, (11, 6), dtype)
    for shape in ((), (5,), (2, 3), (0,), (1, 2, 1, 3)):
        ids = rng.integers(0, 11, shape)
        given = (
            np.asarray(ids).tolist()
            if kind is list and shape
            else np.asarray(ids).astype(kind if kind is not list else int)
        )
        np.testing.assert_array_equal(swiftattn.embedding(given, table), table[ids])
        for residual in (normal(rng, (*shape, 6), dtype), normal(rng, (6,), dtype)):
            got = swiftattn.embedding(given, table, residual=residual)
            exact = reference.embedding(ids, table, residual)
            assert_accurate(got, exact, plain(reference.embedding, ids, table, residual, like=table.dtype))


@pytest.mark.parametrize("length, dim", [(0, 4), (1, 1), (5, 0), (7, 5), (50, 16), (3, 513), (5000, 8)])
def test_sinusoidal_positions(length, dim):
    got = swiftattn.sinusoidal_positions(length, dim)
    assert got.shape == (length, dim) and got.dtype == np.float32
    np.testing.assert_allclose(got, reference.sinusoidal_positions(length, dim), atol=1.2e-7)
