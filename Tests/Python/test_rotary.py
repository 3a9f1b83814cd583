"""Rotary tables and rotation against their formulas: every scaling, both pairings, partial dims, positions, layouts."""

import numpy as np
import pytest
import reference
import swiftattn
from support import DTYPES, assert_accurate, normal, plain, strided

FACTORS = [1.0 + 0.3 * i for i in range(32)]
SCALINGS = {
    "none": None,
    "default": {"rope_type": "default", "rope_theta": 5e5},
    "linear": {"type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 100},
    "dynamic, short": {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 1000},
    "ntk": {"rope_type": "ntk", "factor": 8.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "llama3, defaults": {"rope_type": "llama3", "factor": 32, "original_max_position_embeddings": 512},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
    "yarn, fractions": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 20,
        "beta_slow": 2,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "truncate": False,
    },
    "yarn, one dim": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 64.0,
        "beta_slow": 64.0,
        "attention_factor": 1.5,
    },
    "yarn, mscale of none": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "mscale": 0.0,
        "mscale_all_dim": 0.7,
        "attention_factor": None,
    },
    "longrope": {
        "type": "longrope",
        "factor": 16.0,
        "original_max_position_embeddings": 128,
        "short_factor": FACTORS,
        "long_factor": FACTORS[::-1],
    },
    "longrope, short": {
        "type": "longrope",
        "attention_factor": 1.0,
        "original_max_position_embeddings": 4096,
        "short_factor": np.array(FACTORS, np.float32),
        "long_factor": FACTORS[::-1],
    },
}


@pytest.mark.parametrize("name", SCALINGS)
def test_tables(name):
    scaling = SCALINGS[name]
    base = (scaling or {}).get("rope_theta", 10000.0)
    for dtype in DTYPES:
        cos, sin = swiftattn.rotary_tables(64, 300, scaling=scaling, dtype=dtype)
        for got, exact in zip((cos, sin), reference.rotary_tables(64, 300, base, scaling)):
            assert got.shape == (300, 32) and got.dtype == DTYPES[dtype]
            tolerance = {"float64": 1e-12, "float32": 1e-7, "float16": 6e-4, "bfloat16": 5e-3}[dtype]
            np.testing.assert_allclose(got.astype(float), exact, atol=tolerance * np.abs(exact).max())


def test_scalings_differ():
    """Otherwise the cases above would compare the same numbers."""
    tables = [swiftattn.rotary_tables(64, 300, scaling=SCALINGS[name])[0].tobytes() for name in SCALINGS]
    same = [name for i, name in enumerate(SCALINGS) if tables[i] in tables[:i]]
    assert same == ["dynamic, short"]  # within what was trained on it is no scaling


@pytest.mark.parametrize("dim, length", [(0, 5), (2, 3), (4, 0), (8, 1), (130, 7), (6000, 2)])
def test_table_shapes(dim, length):
    for scaling in (None, {"rope_type": "ntk", "factor": 2.0}):
        for got, exact in zip(
            swiftattn.rotary_tables(dim, length, base=500.0, scaling=scaling),
            reference.rotary_tables(dim, length, 500.0, scaling),
        ):
            assert got.shape == (length, dim // 2)
            np.testing.assert_allclose(got, exact, atol=1e-7)


def test_angles_far_out():
    cos, sin = swiftattn.rotary_tables(8, 1_000_001)
    exact = reference.rotary_tables(8, 1_000_001)
    np.testing.assert_allclose(cos[-1], exact[0][-1], atol=1e-7)
    np.testing.assert_allclose(sin[-1], exact[1][-1], atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    "dim, turning", [(1, 0), (2, 2), (16, 16), (17, 10), (64, 32), (66, 66), (80, 62), (1100, 1090)]
)
def test_rotation(dtype, interleaved, dim, turning):
    rng = np.random.default_rng(dim)
    x = normal(rng, (2, 3, 5, dim), dtype)
    kind = np.float64 if dtype == "float64" else np.float32
    cos, sin = (normal(rng, (9, turning // 2)).astype(kind) for _ in range(2))  # any numbers: the formula is linear
    for ids in (None, rng.integers(0, 9, (2, 5)), rng.integers(0, 9, 5).astype(np.int32), rng.integers(0, 9, (2, 1))):
        for tables in (
            (cos, sin),
            (strided(rng, cos), strided(rng, sin)),
            (cos.astype(DTYPES[dtype]), sin.astype(DTYPES[dtype])),
        ):
            options = dict(position_ids=ids, interleaved=interleaved)
            got = swiftattn.rotary_embedding(x, *tables, rotary_dim=turning, **options)
            assert got.dtype == x.dtype
            wide = None if ids is None else np.broadcast_to(ids, (2, 5))
            options["position_ids"] = wide
            exact = reference.rotary_embedding(x, *tables, **options)
            simple = plain(reference.rotary_embedding, x, *tables, like=x.dtype, **options)
            assert_accurate(got, exact, simple)
            np.testing.assert_array_equal(got[..., turning:], x[..., turning:])


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6), (2, 1, 4, 6), (2, 2, 3, 4, 6)])
def test_ranks_and_layouts(shape):
    rng = np.random.default_rng(0)
    x = normal(rng, shape)
    cos, sin = swiftattn.rotary_tables(6, 40)
    ids = rng.integers(0, 40, (*shape[:-3], shape[-2]))
    for interleaved in (False, True):
        options = dict(position_ids=ids, interleaved=interleaved)
        expected = swiftattn.rotary_embedding(x, cos, sin, **options)
        exact = reference.rotary_embedding(x, cos, sin, ids, interleaved)
        np.testing.assert_allclose(expected, exact, atol=1e-6)
        for _ in range(5):
            view = strided(rng, x)
            np.testing.assert_array_equal(swiftattn.rotary_embedding(view, cos, sin, **options), expected)
            out = strided(rng, x)
            assert swiftattn.rotary_embedding(x, cos, sin, out=out, **options) is out
            np.testing.assert_array_equal(out, expected)
            swiftattn.rotary_embedding(view, cos, sin, out=view, **options)  # in place
            np.testing.assert_array_equal(view, expected)


def test_broadcast_and_empty_inputs():
    cos, sin = swiftattn.rotary_tables(4, 3)
    x = np.broadcast_to(np.float32(1), (2, 3, 4))
    np.testing.assert_array_equal(
        swiftattn.rotary_embedding(x, cos, sin), swiftattn.rotary_embedding(x.copy(), cos, sin)
    )
    for shape in ((0, 3, 4), (2, 0, 4), (0, 4)):
        assert swiftattn.rotary_embedding(np.zeros(shape, np.float32), cos, sin).shape == shape
    nothing = np.zeros((3, 0), np.float32)
    np.testing.assert_array_equal(swiftattn.rotary_embedding(x, nothing, nothing), x)


def test_nan_stays_in_its_pair():
    x = np.ones((1, 8), np.float32)
    x[0, 2] = np.nan
    cos, sin = swiftattn.rotary_tables(8, 1)
    assert np.isnan(swiftattn.rotary_embedding(x, cos, sin))[0].nonzero()[0].tolist() == [2, 6]
    assert np.isnan(swiftattn.rotary_embedding(x, cos, sin, interleaved=True))[0].nonzero()[0].tolist() == [2, 3]


@pytest.mark.parametrize("interleaved", [False, True])
def test_backward_is_the_transpose(interleaved):
    """<turn(x), g> = <x, back(g)> for all x and g, also where the tables are no rotation."""
    rng = np.random.default_rng(1)
    cos, sin = rng.standard_normal((2, 7, 5))
    x, g = rng.standard_normal((2, 3, 7, 13))
    options = dict(position_ids=rng.integers(0, 7, 7), interleaved=interleaved)
    turned, back = (
        swiftattn.rotary_embedding(x, cos, sin, **options),
        swiftattn.rotary_embedding_backward(g, cos, sin, **options),
    )
    assert abs((turned * g).sum() - (x * back).sum()) < 1e-12 * np.abs(x * back).sum()


def test_backward_turns_back():
    x = normal(np.random.default_rng(2), (2, 4, 50, 64))
    tables = swiftattn.rotary_tables(64, 50)
    back = swiftattn.rotary_embedding_backward(swiftattn.rotary_embedding(x, *tables), *tables)
    np.testing.assert_allclose(back, x, atol=1e-6)


def test_bits_of_a_row_depend_on_nothing_else():
    rng = np.random.default_rng(3)
    x = normal(rng, (2, 3, 400, 70))
    cos, sin = swiftattn.rotary_tables(70, 400)
    whole = swiftattn.rotary_embedding(x, cos, sin)
    before = swiftattn.get_num_threads()
    try:
        for threads in (1, 3):
            swiftattn.set_num_threads(threads)
            np.testing.assert_array_equal(swiftattn.rotary_embedding(x, cos, sin), whole)
    finally:
        swiftattn.set_num_threads(before)
    for t in (0, 17, 399):
        alone = swiftattn.rotary_embedding(x[1, 2, t : t + 1], cos, sin, position_ids=[t])
        np.testing.assert_array_equal(alone[0], whole[1, 2, t])


WRONG_SCALINGS = [
    ({"rope_type": "linear"}, ValueError, "factor"),
    ({"rope_type": "linear", "factor": 0}, ValueError, "factor"),
    ({"rope_type": "linear", "factor": -1.0}, ValueError, "factor"),
    ({"rope_type": "linear", "factor": float("nan")}, ValueError, "factor"),
    ({"rope_type": "linear", "factor": 2.0, "attention_factor": 2.0}, ValueError, "attention_factor"),
    ({"rope_type": "mystery"}, ValueError, "rope_type"),
    ({"rope_type": "dynamic", "factor": 2.0}, ValueError, "original_length"),
    ({"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": -4}, ValueError, "original_max"),
    (
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "mscale": -1.0},
        ValueError,
        "mscale",
    ),
    ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1.5}, TypeError, "original_max"),
    (
        {"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 9, "low_freq_factor": 4.0},
        ValueError,
        "high_freq",
    ),
    ({"rope_type": "longrope", "factor": 2.0, "original_max_position_embeddings": 9}, ValueError, "short_factors"),
    (
        {
            "rope_type": "longrope",
            "factor": 2.0,
            "original_max_position_embeddings": 9,
            "short_factor": [1.0] * 4,
            "long_factor": [0.0] * 4,
        },
        ValueError,
        "long_factors: entry 0",
    ),
    ({"rope_type": "longrope", "short_factor": [[1.0]], "factor": 2.0}, ValueError, "short_factors"),
    ({"rope_type": "longrope", "short_factor": ["a"], "factor": 2.0}, TypeError, "short_factors"),
    ({"mrope_section": [1]}, ValueError, "mrope_section"),
    ({"rope_theta": 1.0}, ValueError, "base"),
    ([], TypeError, "scaling"),
]


@pytest.mark.parametrize("number", range(len(WRONG_SCALINGS)))
def test_wrong_scalings(number):
    scaling, exception, word = WRONG_SCALINGS[number]
    with pytest.raises(exception, match=word):
        swiftattn.rotary_tables(8, 2, scaling=scaling)


def test_wrong_sizes():
    for dim, length, exception in ((3, 4, ValueError), (-2, 4, ValueError), (4, 1.5, TypeError)):
        with pytest.raises(exception):
            swiftattn.rotary_tables(dim, length)
    with pytest.raises(TypeError, match="dtype"):
        swiftattn.rotary_tables(4, 4, dtype="int32")
    cos, sin = swiftattn.rotary_tables(4, 3)
    with pytest.raises(ValueError, match="rotary_dim"):
        swiftattn.rotary_embedding(np.zeros((3, 8), np.float32), cos, sin, rotary_dim=8)
