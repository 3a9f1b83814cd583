"""matmul and linear against the reference."""

import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, assert_accurate, normal, plain


def check(got, function, *arguments, **options):
    like = arguments[0].dtype
    assert got.dtype == like
    assert_accurate(got, function(*arguments, **options), plain(function, *arguments, like=like, **options))


SIZES = [
    (1, 1, 1),
    (1, 7, 5),
    (5, 1, 7),
    (6, 16, 1),
    (13, 17, 19),
    (64, 64, 64),
    (65, 127, 33),
    (3, 1000, 2),
    (130, 40, 260),
    (1, 512, 300),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, inner, columns", SIZES)
def test_matmul_sizes(dtype, rows, inner, columns):
    rng = np.random.default_rng(0)
    a, b = normal(rng, (rows, inner), dtype), normal(rng, (inner, columns), dtype)
    check(swiftattn.matmul(a, b), reference.matmul, a, b)


@pytest.mark.parametrize(
    "a_shape, b_shape",
    [
        ((5,), (5,)),
        ((5,), (5, 3)),
        ((4, 5), (5,)),
        ((5,), (2, 5, 3)),
        ((2, 4, 5), (5,)),
        ((2, 4, 5), (5, 3)),
        ((4, 5), (2, 5, 3)),
        ((2, 4, 5), (2, 5, 3)),
        ((2, 1, 4, 5), (3, 5, 6)),
        ((1, 4, 5), (6, 5, 3)),
        ((2, 2, 2, 2, 2, 2, 3, 4), (2, 2, 2, 2, 2, 2, 4, 3)),
        ((0, 5), (5, 3)),
        ((4, 0), (0, 3)),
        ((4, 5), (5, 0)),
        ((0,), (0,)),
        ((0, 4, 5), (5, 3)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_shapes(dtype, a_shape, b_shape):
    rng = np.random.default_rng(1)
    a, b = normal(rng, a_shape, dtype), normal(rng, b_shape, dtype)
    check(swiftattn.matmul(a, b), reference.matmul, a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, inner, columns", SIZES)
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "gelu_tanh", "silu"])
def test_linear(dtype, rows, inner, columns, activation):
    rng = np.random.default_rng(2)
    x, weight = normal(rng, (rows, inner), dtype), normal(rng, (columns, inner), dtype)
    bias, residual = normal(rng, (columns,), dtype), normal(rng, (rows, columns), dtype)
    for options in ({}, {"bias": bias}, {"residual": residual}, {"bias": bias, "residual": residual}):
        check(
            swiftattn.linear(x, weight, activation=activation, **options),
            reference.linear,
            x,
            weight,
            activation=activation,
            **options,
        )


@pytest.mark.parametrize("x_shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 2, 3, 5), (0, 5), (2, 0, 5)])
def test_linear_shapes(x_shape):
    rng = np.random.default_rng(3)
    x, weight = normal(rng, x_shape), normal(rng, (4, 5))
    for residual_shape in ((4,), (1, 4), (*x_shape[:-1], 4), (1,)):
        residual = normal(rng, residual_shape)
        if len(residual_shape) <= len(x_shape):
            check(swiftattn.linear(x, weight, residual=residual), reference.linear, x, weight, residual=residual)


def test_linear_without_inner_dim_is_its_bias():
    bias = np.array([1, -2, 3], np.float32)
    got = swiftattn.linear(np.zeros((2, 0), np.float32), np.zeros((3, 0), np.float32), bias, activation="relu")
    np.testing.assert_array_equal(got, [[1, 0, 3]] * 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(dtype):
    """x . w + bias + residual is exact in float32 here, and no step of it is in the half type."""
    row = DTYPES[dtype].type
    tiny = 2.0**-9 if dtype == "bfloat16" else 2.0**-12
    x, weight = np.array([[1, tiny]], row), np.array([[1, 1]], row)
    got = swiftattn.linear(x, weight, np.array([-1], row), residual=np.array([[0]], row))
    assert float(got[0, 0]) == tiny


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_sums(dtype):
    rng = np.random.default_rng(4)
    a, b = normal(rng, (3, 20_000), dtype), normal(rng, (20_000, 4), dtype)
    check(swiftattn.matmul(a, b), reference.matmul, a, b)


def test_larger_product_root_mean_square_error():
    rng = np.random.default_rng(5)
    a, b = normal(rng, (256, 384)), normal(rng, (384, 320))
    exact = reference.matmul(a, b)
    error, simple = (np.sqrt(np.mean((got - exact) ** 2)) for got in (swiftattn.matmul(a, b), a @ b))
    assert error <= 2 * simple


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, inner, columns", [*SIZES, (9, 0, 4), (2, 3, 0), (0, 5, 6), (200, 300, 400)])
def test_packed_weight_gives_the_same_bits(dtype, rows, inner, columns):
    rng = np.random.default_rng(8)
    x, weight = normal(rng, (2, rows, inner), dtype), normal(rng, (columns, 2 * inner), dtype)[:, ::2]
    bias, residual = normal(rng, (columns,), dtype), normal(rng, (rows, columns), dtype)
    expected = swiftattn.linear(x, weight, bias, activation="silu", residual=residual)
    packed = swiftattn.PackedWeight(weight.copy())
    assert packed.shape == (columns, inner)
    got = swiftattn.linear(x, packed, bias, activation="silu", residual=residual)
    np.testing.assert_array_equal(got.view(np.uint8), expected.view(np.uint8))


def test_packed_weight_errors():
    packed = swiftattn.PackedWeight(np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"weight: shape is \(3, 4\), x has 5 features"):
        swiftattn.linear(np.ones((2, 5), np.float32), packed)
    with pytest.raises(TypeError, match="weight: dtype is float32, x has float64"):
        swiftattn.linear(np.ones((2, 4)), packed)
    with pytest.raises(ValueError, match="weight: rank is 1"):
        swiftattn.PackedWeight(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="weight: dtype is int64"):
        swiftattn.PackedWeight(np.ones((3, 3), np.int64))
