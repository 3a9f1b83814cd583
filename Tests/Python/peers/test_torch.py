"""Next to PyTorch: tensors in and out without copies, the same results, and no more error."""

import itertools

import numpy as np
import pytest
import reference
import swiftattn
import torch
import torch.nn.functional as F
from support import run_python
from swiftattn import _tensor

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
ROUNDING = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-12}


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def problem(dtype=torch.float32, q_len=7, k_len=11, heads=4, kv_heads=4):
    return (
        numbers(2, heads, q_len, 16, dtype=dtype, seed=1),
        numbers(2, kv_heads, k_len, 16, dtype=dtype, seed=2),
        numbers(2, kv_heads, k_len, 16, dtype=dtype, seed=3),
    )


def close(got, expected):
    assert isinstance(got, torch.Tensor) and got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=ROUNDING[got.dtype], atol=ROUNDING[got.dtype])


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int32, torch.int64, torch.bool], ids=str)
def test_tensors_are_borrowed(dtype):
    x = torch.zeros(4, 6, dtype=dtype)
    for view in (x, x.T, x[1:, ::2], x.expand(3, 4, 6), x[0, 0]):
        tensor = _tensor.borrow(view, "x")
        assert tensor.data == view.data_ptr()
        assert tuple(tensor.shape[: tensor.ndim]) == tuple(view.shape)
        assert tuple(tensor.strides[: tensor.ndim]) == view.stride()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_torch_in_gives_torch_out(dtype):
    q, k, v = problem(dtype)
    out, lse, weights = swiftattn.scaled_dot_product_attention(q, k, v, return_lse=True, return_weights=True)
    close(out, F.scaled_dot_product_attention(q, k, v))
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert weights.dtype == dtype and weights.shape == (2, 4, 7, 11)
    target = torch.empty_like(out)
    assert swiftattn.scaled_dot_product_attention(q, k, v, out=target) is target
    assert torch.equal(target, out)
    starts = torch.tensor([0, 3, 7], dtype=torch.int32)
    packed = swiftattn.attention_varlen(
        q[0].transpose(0, 1), *(x[0, :, :7].transpose(0, 1) for x in (k, v)), starts, starts
    )
    assert isinstance(packed, torch.Tensor) and packed.shape == (7, 4, 16)
    merged, total = swiftattn.merge_attention_states([out, out], [lse, lse])
    close(merged, out)
    assert total.dtype == lse.dtype


def test_torch_with_numpy_arguments():
    q, k, v = problem()
    expected = swiftattn.scaled_dot_product_attention(q, k, v)
    assert torch.equal(swiftattn.scaled_dot_product_attention(q, k.numpy(), v.numpy()), expected)
    got = swiftattn.scaled_dot_product_attention(q.numpy(), k, v)
    assert isinstance(got, np.ndarray) and (got == expected.numpy()).all()


OPTIONS = [
    dict(zip(("is_causal", "scale", "mask", "kv_heads"), choice))
    for choice in itertools.product([False, True], [None, 0.3, -0.5], [None, "bool", "float"], [4, 2, 1])
    # torch takes no mask with is_causal, and multiplies its causal -inf by the scale: NaN unless that is positive
    if not (choice[0] and (choice[2] or choice[1] == -0.5))
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_same_as_torch(dtype, options):
    q, k, v = problem(dtype, kv_heads=options["kv_heads"])
    mask = None
    if options["mask"]:
        mask = numbers(2, 1, 7, 11, dtype=dtype, seed=4)
        mask = mask > -0.5 if options["mask"] == "bool" else mask
    common = dict(is_causal=options["is_causal"], scale=options["scale"], enable_gqa=True)
    close(
        swiftattn.scaled_dot_product_attention(q, k, v, mask, **common),
        F.scaled_dot_product_attention(q, k, v, mask, **common),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_other_functions_are_the_same_as_torch(dtype):
    x, y = numbers(5, 24, dtype=dtype), numbers(5, 24, dtype=dtype, seed=1)
    weight, bias = numbers(10, 24, dtype=dtype, seed=2), numbers(10, dtype=dtype, seed=3)
    close(swiftattn.softmax(x), F.softmax(x, -1))
    close(swiftattn.softmax(x, 0), F.softmax(x, 0))
    close(swiftattn.layer_norm(x, y[0], y[1]), F.layer_norm(x, (24,), y[0], y[1]))
    close(swiftattn.rms_norm(x, y[0], 1e-6), F.rms_norm(x, (24,), y[0], 1e-6))
    close(swiftattn.relu(x), F.relu(x))
    close(swiftattn.gelu(x), F.gelu(x))
    close(swiftattn.gelu(x, "tanh"), F.gelu(x, approximate="tanh"))
    close(swiftattn.silu(x), F.silu(x))
    close(swiftattn.swiglu(x, y), F.silu(x) * y)
    close(swiftattn.geglu(x, y), F.gelu(x) * y)
    close(swiftattn.embedding(torch.tensor([[3, 0], [1, 1]]), x), F.embedding(torch.tensor([[3, 0], [1, 1]]), x))
    size = x.abs().amax() * 24
    close(swiftattn.linear(x, weight, bias) / size, F.linear(x, weight, bias) / size)
    close(swiftattn.matmul(x, weight.T) / size, x @ weight.T / size)


SHAPES = [
    # B, H, Tq, Tk, D
    (1, 8, 256, 256, 64),
    (8, 12, 128, 128, 64),
    (2, 4, 100, 300, 128),
    (4, 8, 1, 1000, 64),
    (1, 2, 65, 65, 33),
    (2, 2, 64, 200, 256),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_more_error_than_torch(shape, causal):
    """Root mean square error of float32 against float64 on the same inputs."""
    batch, heads, q_len, k_len, head_dim = shape
    q = numbers(batch, heads, q_len, head_dim, seed=5)
    k, v = (numbers(batch, heads, k_len, head_dim, seed=seed) for seed in (6, 7))
    exact = reference.attention(q, k, v, is_causal=causal).out

    def error(out):
        return np.sqrt(np.mean((out.numpy() - exact) ** 2))

    ours = error(swiftattn.scaled_dot_product_attention(q, k, v, is_causal=causal))
    theirs = error(F.scaled_dot_product_attention(q, k, v, is_causal=causal))
    assert ours <= theirs, f"{ours:.3g} against torch's {theirs:.3g}"


def test_tensors_that_require_grad():
    x = torch.ones(3, 4, requires_grad=True)
    with pytest.raises(ValueError, match="x: the tensor requires grad"):
        swiftattn.softmax(x)
    assert torch.equal(swiftattn.softmax(x.detach()), torch.full((3, 4), 0.25))
    with torch.no_grad():
        assert not swiftattn.softmax(x).requires_grad
    with torch.inference_mode():
        assert torch.equal(swiftattn.softmax(torch.nn.Parameter(torch.ones(3, 4))), torch.full((3, 4), 0.25))


@pytest.mark.parametrize(
    "make, exception",
    [
        (lambda: torch.zeros(3, device="meta"), ValueError),
        (lambda: torch.zeros(3).to_sparse(), ValueError),
        (lambda: torch.zeros(3, dtype=torch.complex64), TypeError),
        (lambda: torch.zeros(3, dtype=torch.int64), TypeError),
        (lambda: torch.zeros(3, dtype=torch.float8_e4m3fn), TypeError),
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), ValueError),
    ],
)
def test_tensors_that_do_not_fit(make, exception):
    with pytest.raises(exception, match="x: "):
        swiftattn.silu(make())


def test_lazy_negation_is_resolved():
    negative = torch.imag(torch.complex(numbers(4), numbers(4, seed=1)).conj())
    assert negative.is_neg()
    close(swiftattn.silu(negative), F.silu(negative))
    x = numbers(1, 4)
    with pytest.raises(ValueError, match="out: the tensor is a lazily negated view"):
        swiftattn.scaled_dot_product_attention(x, x, x, out=negative[None])


def test_integer_arguments():
    q, k, v = problem()
    expected = swiftattn.scaled_dot_product_attention(q, k, v, kv_lengths=[5, 9], query_offset=2, is_causal=True)
    for dtype in (torch.int32, torch.int64, torch.uint8, torch.int16):
        lengths, offset = torch.tensor([5, 9], dtype=dtype), torch.tensor(2, dtype=dtype)
        got = swiftattn.scaled_dot_product_attention(q, k, v, kv_lengths=lengths, query_offset=offset, is_causal=True)
        assert torch.equal(got, expected)
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625], dtype=torch.bfloat16)
    assert torch.equal(
        swiftattn.scaled_dot_product_attention(q, k, v, alibi_slopes=slopes),
        swiftattn.scaled_dot_product_attention(q, k, v, alibi_slopes=slopes.tolist()),
    )


def test_misaligned_tensor():
    x = torch.frombuffer(bytearray(np.arange(5, dtype=np.float32).tobytes() + b"0"), dtype=torch.uint8)
    shifted = torch.empty(21, dtype=torch.uint8)[1:]
    shifted.copy_(x[:20])
    aligned = torch.from_numpy(shifted.numpy().view(np.float32))
    close(swiftattn.relu(aligned), torch.arange(5.0))


CALL = """
x = rng.standard_normal((1, 2, 300, 64)).astype(np.float32)
def call():
    return swiftattn.scaled_dot_product_attention(x, x, x, is_causal=True)
"""
TORCH = """
y = torch.nn.functional.scaled_dot_product_attention(*[torch.ones(1, 2, 300, 64)] * 3)
"""


@pytest.mark.parametrize("first", ["swiftattn", "torch"])
def test_import_order(first):
    """Two OpenMP runtimes in one process, in either order, also after a fork."""
    second = "torch" if first == "swiftattn" else "swiftattn"
    code = f"import {first}, {second}, os\nimport numpy as np\nrng = np.random.default_rng(0)\n" + CALL
    code += f"""
expected = call()
{TORCH}
assert (call() == expected).all()
if os.fork() == 0:
    os._exit(0 if (call() == expected).all() else 1)
assert os.wait()[1] == 0
print(torch.get_num_threads(), swiftattn.get_num_threads())
"""
    run_python(code)


def test_torch_imported_between_calls():
    code = "import sys, swiftattn\nimport numpy as np\nrng = np.random.default_rng(0)\n" + CALL
    code += f"""
expected = call()
assert "torch" not in sys.modules
import torch
{TORCH}
assert (call() == expected).all()
assert isinstance(swiftattn.scaled_dot_product_attention(y, y, y), torch.Tensor)
"""
    run_python(code)
