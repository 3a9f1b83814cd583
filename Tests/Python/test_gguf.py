"""The GGUF reader: values and tensors against the package gguf, and files that lie."""

from __future__ import annotations

import struct

import gguf
import gguf_files
import llama_oracle
import numpy as np
import pytest
from support import run_python
from swiftattn.models import GGUFFile, load

pytestmark = pytest.mark.once


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key, kind, value):
    return string(key) + struct.pack("<I", kind) + value


def header(name, shape, kind=0, offset=0):
    return string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)


def assemble(entries=(), tensors=(), data=b"", *, magic=b"GGUF", version=3, counts=None):
    count_t, count_k = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, count_t, count_k) + b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


@pytest.fixture
def opened(tmp_path):
    def open_bytes(content):
        path = tmp_path / "file.gguf"
        path.write_bytes(content)
        return GGUFFile(path)

    return open_bytes


def test_values_of_every_type(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "values.gguf", "none")
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -128)
    writer.add_uint16("u16", 65535)
    writer.add_int16("i16", -32768)
    writer.add_uint32("u32", 2**32 - 1)
    writer.add_int32("i32", -(2**31))
    writer.add_uint64("u64", 2**63 - 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", -1e300)
    writer.add_bool("yes", True)
    writer.add_string("text", "na\u00efve \u4f60\u597d")
    writer.add_array("words", ["a", "", "\u00e9"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("reals", [0.5, 1.5])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "values.gguf")
    expected = dict(u8=255, i8=-128, u16=65535, i16=-32768, u32=2**32 - 1, i32=-(2**31), u64=2**63 - 1, i64=-(2**63))
    for key, value in expected.items():
        assert file[key] == value and isinstance(file[key], int), key
    assert file["f32"] == 0.5 and file["f64"] == -1e300 and file["yes"] is True
    assert file["text"] == "na\u00efve \u4f60\u597d" and file["words"] == ["a", "", "\u00e9"]
    assert file["numbers"].tolist() == [1, -2, 3] and file["reals"].tolist() == [0.5, 1.5]
    assert "missing" not in file and file.get("missing") is None
    with pytest.raises(KeyError):
        file["missing"]


@pytest.mark.parametrize("name", gguf_files.FORMATS)
def test_tensors_of_every_format(tmp_path, name):
    rng, kind = np.random.default_rng(3), gguf_files.FORMATS[name]
    writer = gguf.GGUFWriter(tmp_path / "tensor.gguf", "none")
    raw = gguf_files.stored(rng, (5, 512), name)
    writer.add_tensor("a", raw, raw_dtype=None if name in ("F32", "F16") else kind)
    writer.add_tensor("b", np.arange(6, dtype=np.float32).reshape(1, 2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader(tmp_path / "tensor.gguf")
    file = GGUFFile(tmp_path / "tensor.gguf")
    assert file.tensors == {"a": (5, 512), "b": (1, 2, 3)} and file.tensor_format("a") == int(kind)
    np.testing.assert_array_equal(file.tensor("a"), llama_oracle.dequantise(reader.tensors[0]))
    np.testing.assert_array_equal(file.tensor("a"), gguf.dequantize(raw, kind).reshape(5, 512))
    np.testing.assert_array_equal(file.tensor("b").ravel(), np.arange(6))


def test_formats_that_are_not_read_are_named(opened):
    file = opened(assemble(tensors=[header("t", [32], kind=10)], data=b"\0" * 64))
    with pytest.raises(TypeError, match="t: GGUF tensor type 10 is not supported"):
        file.tensor("t")


U32, STRING, ARRAY = 4, 8, 9
LIES = {
    "empty": (b"", "magic at byte 0 reaches beyond the end"),
    "magic": (assemble(magic=b"GGML"), "expected the letters GGUF"),
    "version": (assemble(version=1), "version is 1, expected 2 or 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "expected 2 or 3 in little-endian order"),
    "no counts": (b"GGUF" + struct.pack("<I", 3), "number of tensors at byte 8"),
    "keys": (assemble(counts=(0, 2**62)), "number of keys at byte 16 is 4611686018427387904"),
    "tensors": (assemble(counts=(2**63, 0)), "number of tensors is 9223372036854775808"),
    "key length": (assemble([struct.pack("<Q", 2**64 - 1)], counts=(0, 1)), "number of keys|length of key"),
    "key text": (assemble([entry(b"\xff\xfe", U32, struct.pack("<I", 1))]), "key at byte 32 is not UTF-8"),
    "key zero": (assemble([entry("a\0b", U32, struct.pack("<I", 1))]), "contains a zero"),
    "key empty": (assemble([entry("", U32, struct.pack("<I", 1))]), "is empty"),
    "type": (assemble([entry("k", 99, b"")], data=b"\0" * 32), "k has the unknown type 99"),
    "string length": (assemble([entry("k", STRING, struct.pack("<Q", 2**63))]), "length of k at byte"),
    "array length": (assemble([entry("k", ARRAY, struct.pack("<IQ", U32, 2**61))]), "length of k at byte"),
    "array overflow": (assemble([entry("k", ARRAY, struct.pack("<IQ", 10, 2**61 + 1))]), "length of k at byte"),
    "deep": (assemble([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9 + struct.pack("<IQ", U32, 0))]), "more than 4 deep"),
    "twice": (assemble([entry("k", U32, b"\0" * 4)] * 2), "the key k comes twice"),
    "alignment": (assemble([entry("general.alignment", U32, struct.pack("<I", 33))]), "general.alignment is 33"),
    "alignment 0": (assemble([entry("general.alignment", U32, struct.pack("<I", 0))]), "general.alignment is 0"),
    "alignment type": (assemble([entry("general.alignment", STRING, string("32"))]), "general.alignment is not a single uint32"),
    "rank": (assemble(tensors=[header("t", [1] * 5)]), "t: rank is 5"),
    "rank 0": (assemble(tensors=[header("t", [])], data=b"\0" * 32), "t: rank is 0"),
    "zero dim": (assemble(tensors=[header("t", [4, 0])], data=b"\0" * 64), "t: dim 1 of the file's shape is 0"),
    "huge dims": (assemble(tensors=[header("t", [2**40, 2**40])], data=b"\0" * 64), "which no memory can hold"),
    "beyond": (assemble(tensors=[header("t", [1000])], data=b"\0" * 64), "needs 4000 bytes, the file has 64"),
    "offset": (assemble(tensors=[header("t", [4], offset=2**63)], data=b"\0" * 64), "t: offset is 9223372036854775808"),
    "misaligned": (assemble(tensors=[header("t", [4], offset=4)], data=b"\0" * 64), "a multiple of the alignment 32"),
    "block": (assemble(tensors=[header("t", [33], kind=8)], data=b"\0" * 640), "a multiple of 32"),
    "overlap": (assemble(tensors=[header("t", [16]), header("u", [4], offset=32)], data=b"\0" * 64), "u: begins .* inside t"),
    "same name": (assemble(tensors=[header("t", [4]), header("t", [4], offset=32)], data=b"\0" * 64), "t comes twice"),
    "tensor name": (assemble(tensors=[header(b"\xc0\x80", [4])], data=b"\0" * 64), "is not UTF-8"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_clear_errors(opened, lie):
    content, message = LIES[lie]
    with pytest.raises(ValueError, match=message) as error:
        opened(content)
    assert "\n" not in str(error.value)


def test_bad_text_in_values_is_an_error_when_it_is_read(opened):
    file = opened(assemble([entry("k", ARRAY, struct.pack("<IQ", STRING, 2) + string("ok") + string(b"\xff"))]))
    with pytest.raises(ValueError, match="k is not UTF-8 in string 1"):
        file["k"]


def test_nested_arrays_have_no_value(opened):
    inner = struct.pack("<IQ", U32, 1) + struct.pack("<I", 7)
    file = opened(assemble([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 2) + inner * 2), entry("n", U32, b"\1\0\0\0")]))
    assert file["k"] is None and file["n"] == 1


def test_paths(tmp_path):
    for path, message in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "is not a regular file|neither"),
        ("/dev/zero", "is not a regular file"),
        ("a\0b", "zero byte"),
    ):
        with pytest.raises(ValueError, match=message):
            GGUFFile(path)


MUTATIONS = """
import random, sys, resource
from swiftattn.models import GGUFFile, load
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
whole, path, seed = open(sys.argv[1], "rb").read(), sys.argv[2], int(sys.argv[3])
rng, refused = random.Random(seed), 0
extremes = [0, 1, 0x7F, 0x80, 0xFF]
metadata = whole.index(b"token_embd") + 1500
for trial in range(250):
    content = bytearray(whole)
    if trial % 5 == 0:
        del content[rng.randrange(len(content)):]
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(min(len(content), metadata) or 1)
        width = rng.choice([1, 1, 4, 8])
        if rng.random() < 0.1:
            del content[at : at + width]
        else:
            content[at : at + width] = bytes(rng.choice([rng.randrange(256), rng.choice(extremes)]) for _ in range(width))
    open(path, "wb").write(content)
    try:
        file = GGUFFile(path)
        for key in file:
            file[key]
        for name in file.tensors:
            file.tensor(name)
        model = load(path, sequences=1, context=8)
        model.prefill([0, 1, 2])
        model.tokenize("hello")
    except (ValueError, TypeError, MemoryError) as error:
        refused += 1
        assert "\\n" not in str(error), error
print(refused)
"""


@pytest.mark.parametrize("seed", range(3))
def test_mutations_never_crash(tmp_path, seed):
    whole = gguf_files.write_model(
        tmp_path / "whole.gguf", format="Q4_1", table="Q8_0", layers=1, heads=2, kv_heads=1, hidden=32, tokenizer=True
    )
    code = MUTATIONS.replace("sys.argv[1]", repr(whole)).replace("sys.argv[2]", repr(str(tmp_path / "changed.gguf")))
    refused = int(run_python(code.replace("sys.argv[3]", str(seed))))
    assert 50 < refused < 250  # some changes are harmless


def test_every_truncation_is_an_error(tmp_path):
    whole = open(gguf_files.write_model(tmp_path / "whole.gguf", layers=1, heads=2, kv_heads=1, hidden=32), "rb").read()
    path = tmp_path / "cut.gguf"
    for length in [*range(0, 400, 7), *range(400, len(whole), 911), len(whole) - 40]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError):
            load(path)
