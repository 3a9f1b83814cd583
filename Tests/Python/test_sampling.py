"""Sampling: the filtered distribution against NumPy, draws against that distribution, reproducibility, hostile logits."""

import numpy as np
import pytest
import swiftattn
from support import DTYPES, run_python, strided


def distribution(
    logits,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    previous_tokens=(),
):
    """The probabilities that one row is drawn by, step by step."""
    x = np.array(logits, np.float64)
    tokens, counts = np.unique([token for token in previous_tokens if token >= 0], return_counts=True)
    for token, count in zip(tokens.astype(int), counts):
        x[token] = x[token] / repetition_penalty if x[token] >= 0 else x[token] * repetition_penalty
        x[token] -= presence_penalty + count * frequency_penalty
    if temperature == 0:
        return np.eye(len(x))[x.argmax()]
    if top_k:
        x[x < np.sort(x)[-min(top_k, len(x))]] = -np.inf
    p = np.exp((x - x.max()) / temperature)
    p /= p.sum()
    if top_p < 1:
        order = np.lexsort((-np.arange(len(p)), p))  # the least likely first, of equal ones the higher index
        gone = np.cumsum(p[order]) <= 1 - top_p
        gone[-1] = False
        p[order[gone]] = 0
    p[p < min_p * p.max()] = 0
    return p / p.sum()


OPTIONS = [
    {},
    dict(temperature=0.7),
    dict(temperature=0),
    dict(top_k=1),
    dict(top_k=5),
    dict(top_k=10**6),
    dict(top_p=0.9),
    dict(top_p=0.5, temperature=3.0),
    dict(top_p=0.0),
    dict(min_p=0.1),
    dict(min_p=1.0),
    dict(top_k=20, top_p=0.8, min_p=0.05, temperature=1.3),
    dict(repetition_penalty=1.7, previous_tokens=[3, 3, 5, -1, 0]),
    dict(repetition_penalty=0.5, previous_tokens=[3, 3, 5, -1, 0], temperature=0),
    dict(presence_penalty=1.5, frequency_penalty=0.25, previous_tokens=[3, -1, 3, 5]),
    dict(frequency_penalty=-2.0, previous_tokens=[1, 1, 1, 2], top_k=3),
    dict(
        temperature=0.8,
        top_k=30,
        top_p=0.95,
        min_p=0.02,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=0.1,
        previous_tokens=[0, 1, 2, 2, 9, -1],
    ),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_distribution(dtype, number):
    rng = np.random.default_rng(number)
    options = OPTIONS[number]
    for vocabulary in (11, 64, 1001):
        logits = (rng.standard_normal((3, vocabulary)) * 3).astype(DTYPES[dtype])
        got = swiftattn.sampling_distribution(logits, **options)
        assert got.dtype == logits.dtype and got.shape == logits.shape
        exact = np.array([distribution(row.astype(np.float64), **options) for row in logits])
        np.testing.assert_array_equal(got > 0, exact.astype(got.dtype) > 0)
        tolerance = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
        np.testing.assert_allclose(got.astype(np.float64), exact, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("seed", range(40))
def test_random_options(seed):
    rng = np.random.default_rng(seed)
    vocabulary = int(rng.integers(1, 400))
    logits = rng.standard_normal((2, vocabulary)) * rng.choice([0.1, 1, 5])
    if rng.random() < 0.3:
        logits[rng.random(logits.shape) < 0.5] = -np.inf
        logits[:, rng.integers(vocabulary)] = 1
    options = dict(
        temperature=float(rng.choice([0, 0.3, 1, 2])),
        top_k=int(rng.choice([0, 1, 3, 50])),
        top_p=float(rng.choice([1, 0.95, 0.6, 0.1])),
        min_p=float(rng.choice([0, 0.01, 0.3])),
        repetition_penalty=float(rng.choice([1, 0.8, 1.3])),
        presence_penalty=float(rng.choice([0, 0.4, -0.4])),
        frequency_penalty=float(rng.choice([0, 0.2])),
    )
    tokens = rng.integers(-1, vocabulary, (2, 7))
    got = swiftattn.sampling_distribution(logits, previous_tokens=tokens, **options)
    for row in range(2):
        exact = distribution(logits[row], previous_tokens=tokens[row], **options)
        np.testing.assert_allclose(got[row], exact, atol=1e-12)


def test_ties():
    logits = np.array([1, 3, 3, 0, 3, 2], np.float32)
    assert swiftattn.sample(logits, temperature=0) == 1  # the lowest index
    kept = swiftattn.sampling_distribution(logits, top_k=2)
    assert kept.nonzero()[0].tolist() == [1, 2, 4]  # all that equal the second
    # From the least likely up, of equal ones the higher index first, so that what stays last is greedy's choice.
    kept = swiftattn.sampling_distribution(np.zeros(4, np.float32), top_p=0.6)
    assert kept.nonzero()[0].tolist() == [0, 1, 2]
    assert swiftattn.sampling_distribution(np.zeros(4, np.float32), top_p=1e-9).tolist() == [1, 0, 0, 0]
    assert (swiftattn.sampling_distribution(np.zeros(4, np.float32), min_p=1) == 0.25).all()


CHI_SQUARE = [
    {},
    dict(temperature=0.6, top_k=12),
    dict(temperature=1.5, top_p=0.9),
    dict(min_p=0.01, repetition_penalty=1.5, previous_tokens=[0, 4, 4]),
    dict(
        temperature=0.9,
        top_k=25,
        top_p=0.8,
        min_p=0.02,
        presence_penalty=0.3,
        frequency_penalty=0.2,
        previous_tokens=[1, 1],
    ),
]


@pytest.mark.parametrize("number", range(len(CHI_SQUARE)))
@pytest.mark.parametrize("over", ["rows", "draws", "seeds"])
def test_draws_follow_the_distribution(number, over):
    """Pearson's statistic over rows of one call, and over the draw and seed numbers of single rows."""
    options = CHI_SQUARE[number]
    logits = np.random.default_rng(number).standard_normal(40).astype(np.float32) * 2
    expected = distribution(logits, **options)
    if over == "rows":
        draws = 100_000
        tokens = swiftattn.sample(np.broadcast_to(logits, (draws, 40)), seed=number + 5, **options)
    else:
        draws = 4_000
        varied = [dict(seed=7, draw=i) if over == "draws" else dict(seed=i) for i in range(draws)]
        tokens = np.array([swiftattn.sample(logits, **options, **which) for which in varied])
    counts = np.bincount(tokens, minlength=40)
    assert not counts[expected == 0].any()
    often = expected * draws >= 5
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * draws
    if wanted[-1] < 5:
        observed, wanted = observed[:-1], wanted[:-1]
    degrees = len(wanted) - 1
    assert degrees >= 4
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    # Wilson-Hilferty: the cube root is nearly normal. Beyond 4.5 deviations once in 300,000 seeds; the seeds are fixed.
    deviation = ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / (2 / (9 * degrees)) ** 0.5
    assert abs(deviation) < 4.5, (statistic, degrees)


def test_same_seed_same_tokens():
    logits = np.random.default_rng(0).standard_normal((64, 3000)).astype(np.float32)
    before = swiftattn.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 16):
            swiftattn.set_num_threads(threads)
            results.append(swiftattn.sample(logits, seed=11, top_p=0.9))
    finally:
        swiftattn.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    np.testing.assert_array_equal(swiftattn.sample(logits[:5], seed=11, top_p=0.9), results[0][:5])
    assert (swiftattn.sample(logits, seed=12, top_p=0.9) != results[0]).any()
    assert (swiftattn.sample(logits, seed=11, draw=1, top_p=0.9) != results[0]).any()
    assert len(set(results[0].tolist())) > 40  # rows draw on their own


def test_philox():
    """The first token of a known counter: words 0 and 1 of Philox4x32-10 with all bits 0 are 6627e8d5 e169c58d."""
    u = (0x6627E8D5E169C58D >> 11) * 2.0**-53
    logits = np.zeros(1 << 16, np.float64)
    assert swiftattn.sample(logits, seed=0) == int(u * (1 << 16))


@pytest.mark.once
def test_no_seed_is_another_one_each_time():
    code = "import numpy, swiftattn; print(swiftattn.sample(numpy.zeros((4, 10**6), 'f4')))"
    assert run_python(code) != run_python(code)


def test_shapes_and_layouts():
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((2, 3, 50)).astype(np.float32)
    tokens = rng.integers(-1, 50, (3, 4))
    options = dict(seed=3, repetition_penalty=2.0, top_k=9)
    expected = swiftattn.sample(logits, previous_tokens=tokens, **options)
    assert expected.shape == (2, 3) and expected.dtype == np.int64
    for _ in range(5):
        got = swiftattn.sample(strided(rng, logits), previous_tokens=strided(rng, tokens.astype(np.int32)), **options)
        np.testing.assert_array_equal(got, expected)
    assert swiftattn.sample(logits[0, 0]).shape == ()
    assert swiftattn.sample(logits[:0]).shape == (0, 3)
    assert swiftattn.sample(np.zeros((0, 0), np.float32)).shape == (0,)
    nothing = np.zeros((3, 0), np.int64)
    np.testing.assert_array_equal(
        swiftattn.sample(logits, previous_tokens=nothing, seed=1), swiftattn.sample(logits, seed=1)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_hostile_logits(dtype):
    def of(*values):
        return np.array(values, DTYPES[dtype])

    one = swiftattn.sampling_distribution(of(-np.inf, 2, -np.inf))
    assert one.tolist() == [0, 1, 0]
    shared = swiftattn.sampling_distribution(of(1, np.inf, 5, np.inf), temperature=0.5, top_p=0.99, min_p=0.1)
    assert shared.tolist() == [0, 0.5, 0, 0.5]
    assert swiftattn.sample(of(1, np.inf, 5, np.inf), temperature=0) == 1
    assert swiftattn.sampling_distribution(of(0, 1, 2), temperature=1e-300).tolist() == [0, 0, 1]
    flat = swiftattn.sampling_distribution(of(0, 1, -np.inf, 2), temperature=1e300).astype(float)
    np.testing.assert_allclose(flat, [1 / 3, 1 / 3, 0, 1 / 3], rtol=4e-3)
    # A penalty cannot turn a number into an infinity, or the only token into none.
    assert swiftattn.sampling_distribution(of(-60000), repetition_penalty=1e308, previous_tokens=[0]).tolist() == [1]
    assert swiftattn.sampling_distribution(of(0.5, -np.inf), repetition_penalty=1e-300, previous_tokens=[0, 1])[0] == 1
    for row, word in ((of(1, np.nan), "NaN"), (of(-np.inf, -np.inf), "-inf"), (of(np.inf, np.nan), "NaN")):
        for temperature in (0, 1):
            with pytest.raises(ValueError, match=f"row 1 .*{word}"):
                swiftattn.sample(np.stack([of(0, 1), row]), temperature=temperature)


WRONG = [
    (dict(temperature=-1), ValueError),
    (dict(temperature=float("nan")), ValueError),
    (dict(temperature=float("inf")), ValueError),
    (dict(temperature="hot"), TypeError),
    (dict(top_k=-1), ValueError),
    (dict(top_k=1.5), TypeError),
    (dict(top_p=1.1), ValueError),
    (dict(top_p=-0.1), ValueError),
    (dict(top_p=float("nan")), ValueError),
    (dict(min_p=2), ValueError),
    (dict(repetition_penalty=0), ValueError),
    (dict(repetition_penalty=-1), ValueError),
    (dict(presence_penalty=float("inf")), ValueError),
    (dict(frequency_penalty=float("nan")), ValueError),
    (dict(previous_tokens=[4]), ValueError),
    (dict(previous_tokens=[-2]), ValueError),
    (dict(previous_tokens=[0.5]), TypeError),
    (dict(previous_tokens=3), ValueError),
    (dict(previous_tokens=[[1], [2]]), ValueError),
    (dict(seed=-1), ValueError),
    (dict(draw=2**64), ValueError),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_options(number):
    options, exception = WRONG[number]
    with pytest.raises(exception, match=list(options)[0]):
        swiftattn.sample(np.zeros(4, np.float32), **options)


def test_wrong_logits():
    with pytest.raises(ValueError, match="logits"):
        swiftattn.sample(np.zeros((2, 0), np.float32))
    with pytest.raises(ValueError, match="logits"):
        swiftattn.sample(np.float32(1))
    with pytest.raises(TypeError, match="logits"):
        swiftattn.sample(np.zeros(3, np.int64))
