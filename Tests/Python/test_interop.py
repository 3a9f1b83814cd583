"""Arrays of other libraries, the import, and the command line."""

import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import swiftattn
from support import DTYPES, normal, run_python
from swiftattn import _ffi, _tensor


@pytest.fixture(autouse=True)
def wide_jax():
    with jax.enable_x64(True):
        yield


def same(got, expected):
    assert isinstance(got, np.ndarray) and got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_jax_arrays(dtype):
    rng = np.random.default_rng(0)
    q, k, v = (normal(rng, (2, 3, 5, 8), dtype) for _ in range(3))
    mask = rng.random((5, 5)) < 0.7
    lengths = np.array([3, 5], np.int32)
    same(
        swiftattn.scaled_dot_product_attention(
            *map(jnp.asarray, (q, k, v)), jnp.asarray(mask), kv_lengths=jnp.asarray(lengths)
        ),
        swiftattn.scaled_dot_product_attention(q, k, v, mask, kv_lengths=lengths),
    )
    same(swiftattn.linear(jnp.asarray(q), jnp.asarray(k[0, 0])), swiftattn.linear(q, k[0, 0]))
    same(swiftattn.embedding(jnp.asarray([2, 0], jnp.int8), jnp.asarray(q[0, 0])), q[0, 0, [2, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_jax_arrays_are_not_copied(dtype):
    x = jnp.ones((4, 5), DTYPES[dtype])
    tensor = _tensor.borrow(x, "x")
    assert tensor.data == x.unsafe_buffer_pointer()
    assert tensor.dims == (4, 5) and list(tensor.strides[:2]) == [5, 1]


def test_jax_array_is_no_output():
    q = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="out: the array is read-only"):
        swiftattn.scaled_dot_product_attention(q, q, q, out=jnp.zeros((2, 3)))


class Capsule:
    """An object that has nothing but DLPack's protocol, in its old or its new version."""

    def __init__(self, array, versioned, device=(1, 0)):
        self.array, self.versioned, self.device = array, versioned, device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, **options):
        if not self.versioned and options:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        return self.array.__dlpack__(**options)


@pytest.mark.parametrize("versioned", [False, True])
def test_dlpack_protocols(versioned):
    x = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)[::-2, 1:]
    tensor = _tensor.borrow(Capsule(x, versioned), "x")
    assert tensor.data == x.ctypes.data and list(tensor.strides[:2]) == [-16, 1]
    same(swiftattn.silu(Capsule(x, versioned)), swiftattn.silu(x))
    out = np.zeros((3, 7), np.float32)
    if versioned:
        swiftattn.scaled_dot_product_attention(x, x, x, out=Capsule(out, versioned))
        same(out, swiftattn.scaled_dot_product_attention(x, x, x))
    else:
        with pytest.raises(ValueError, match="read-only"):
            swiftattn.scaled_dot_product_attention(x, x, x, out=Capsule(out, versioned))


@pytest.mark.parametrize("versioned", [False, True])
def test_dlpack_memory_is_given_back(versioned):
    """The producer's deleter runs when the call is over."""
    x = np.ones((3, 4), np.float32)
    gone = weakref.ref(base := type("Array", (np.ndarray,), {})((3, 4), np.float32, x))
    swiftattn.silu(Capsule(base.view(), versioned))
    del base
    assert gone() is None


def test_dlpack_of_another_device():
    with pytest.raises(ValueError, match="query: expected an array in CPU memory"):
        swiftattn.scaled_dot_product_attention(Capsule(np.zeros((2, 3)), True, (2, 0)), [[1.0]], [[1.0]])


def test_read_only_arrays_are_inputs():
    rng = np.random.default_rng(2)
    x = normal(rng, (3, 4))
    expected = swiftattn.softmax(x)
    x.flags.writeable = False
    same(swiftattn.softmax(x), expected)
    with pytest.raises(ValueError, match="out: the array is read-only"):
        swiftattn.scaled_dot_product_attention(x.copy(), x, x, out=x)


def test_misaligned_arrays():
    expected = swiftattn.silu(np.arange(4, dtype=np.float32))
    memory = np.zeros(17, np.uint8)
    x = memory[1:].view(np.float32)
    x[...] = np.arange(4)
    same(swiftattn.silu(x), expected)
    y = np.zeros((1, 4), np.float32)
    with pytest.raises(ValueError, match="out: the data is not aligned"):
        swiftattn.scaled_dot_product_attention(y, y, y, out=x[None])


def test_fields_of_structured_arrays():
    packed = np.zeros(5, [("tag", np.uint8), ("x", np.float32)])
    padded = np.zeros(5, [("tag", np.float32), ("x", np.float32)])
    for record in (packed, padded):
        record["x"] = np.arange(5)
        same(swiftattn.relu(record["x"]), np.arange(5, dtype=np.float32))


def test_anything_numpy_takes():
    expected = swiftattn.softmax(np.array([[1.0, 2.0], [3.0, 5.0]]))
    same(swiftattn.softmax([[1.0, 2.0], [3.0, 5.0]]), expected)
    same(swiftattn.softmax(((1.0, 2.0), (3.0, 5.0))), expected)
    same(swiftattn.softmax(np.ma.array([[1.0, 2.0], [3.0, 5.0]])), expected)
    same(swiftattn.softmax(memoryview(np.array([[1.0, 2.0], [3.0, 5.0]]))), expected)

    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return np.array([[1.0, 2.0], [3.0, 5.0]])

    same(swiftattn.softmax(Wrapped()), expected)
    assert swiftattn.silu(np.float32(0)).shape == ()


def test_memory_mapped_file(tmp_path):
    x = np.random.default_rng(3).standard_normal((5, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    same(swiftattn.softmax(np.load(tmp_path / "x.npy", mmap_mode="r")), swiftattn.softmax(x))


def test_bfloat16_is_that_of_ml_dtypes():
    x = np.ones((2, 3), ml_dtypes.bfloat16)
    assert swiftattn.softmax(x).dtype == ml_dtypes.bfloat16
    assert swiftattn.scaled_dot_product_attention(x, x, x, return_lse=True)[1].dtype == np.float32


def test_public_names():
    assert sorted(swiftattn.__all__) == swiftattn.__all__
    for name in swiftattn.__all__:
        assert getattr(swiftattn, name).__doc__, name


def test_info():
    info = swiftattn.cpu_info()
    assert set(info) == {"isa", "threads", "version", "features"}
    assert info["isa"] == os.environ.get("SWIFTATTN_ISA", info["isa"])
    assert info["version"] == swiftattn.__version__
    assert info["threads"] == swiftattn.get_num_threads() >= 1
    assert info["isa"] in [*info["features"], "portable"]


HEADER = Path(__file__).parents[2] / "include" / "swiftattn.h"


@pytest.mark.once
def test_declarations_follow_the_header():
    """Every function of the header is declared, in its order, with as many arguments."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    functions = re.findall(r"^(?:int32_t|void|const char \*)\s*swiftattn_(\w+)\(([^)]*)\);", text, flags=re.M)
    source = Path(_ffi.__file__).read_text()
    declared = re.findall(r"^(\w+) = _(?:computing|declare)\(", source, flags=re.M)
    assert declared == [name for name, _ in functions]
    for name, arguments in functions:
        expected = 0 if arguments == "void" else arguments.count(",") + 1
        assert len(getattr(_ffi, name).argtypes) == expected, name


@pytest.mark.once
def test_structs_follow_the_header():
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    for structure, name in (
        (_ffi.DType, "dtype"),
        (_ffi.Tensor, "tensor"),
        (_ffi.AttentionOptions, "attention_options"),
        (_ffi.LinearOptions, "linear_options"),
    ):
        body = re.search(rf"typedef struct swiftattn_{name} {{(.*?)}}", text, flags=re.S)[1]
        fields = re.findall(r"(\w+)(?:\[\w+\])?;", body)
        assert [field for field, _ in structure._fields_] == fields


@pytest.mark.once
def test_import_error_says_what_was_tried():
    code = "try:\n import swiftattn\nexcept ImportError as error:\n print(error)"
    text = run_python(code, SWIFTATTN_LIBRARY="/nowhere/libswiftattn.so")
    assert "/nowhere/libswiftattn.so" in text and "make build" in text and "SWIFTATTN_LIBRARY" in text


@pytest.mark.once
def test_import_error_without_openmp():
    """What the loader says where the OpenMP runtime is not installed."""
    code = """
import ctypes
def missing(path):
    raise OSError("libomp.so.5: cannot open shared object file: No such file or directory")
ctypes.CDLL = missing
try:
    import swiftattn
except ImportError as error:
    print(error)
"""
    text = run_python(code)
    assert "libomp.so.5: cannot open" in text and "apt install libomp5" in text


@pytest.mark.once
def test_import_error_of_another_library(tmp_path):
    import _ctypes

    text = run_python(
        "try:\n import swiftattn\nexcept ImportError as error:\n print(error)", SWIFTATTN_LIBRARY=_ctypes.__file__
    )
    assert "has no function swiftattn_last_error" in text


@pytest.mark.once
def test_unknown_isa_is_an_error_of_every_call():
    code = (
        "import swiftattn\nassert swiftattn.cpu_info()['isa'] == 'unsupported'\n"
        "for call in (lambda: swiftattn.silu([1.0]), lambda: swiftattn.alibi_slopes(4)):\n"
        " try:\n  call()\n except ValueError as error:\n  print(error)"
    )
    assert run_python(code, SWIFTATTN_ISA="z80").count("SWIFTATTN_ISA") == 2


@pytest.mark.once
def test_import_needs_numpy_alone():
    """And brings neither torch nor jax nor ml_dtypes with it."""
    code = "import sys, swiftattn\nprint([name for name in ('torch', 'jax', 'ml_dtypes') if name in sys.modules])"
    assert run_python(code) == "[]"
