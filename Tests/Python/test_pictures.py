"""Pictures of attention: what is in the page and in the image. Tests/Browser looks at the page in a browser."""

import base64
import hashlib
import html.parser
import importlib.util
import json
import re
import struct
import zlib

import numpy as np
import pytest
from swiftattn.pictures import AttentionMap, Place, save_html, save_png

pytestmark = pytest.mark.once

HOSTILE = (
    " plain",
    "</script><script>alert(1)</script>",
    "<!--",
    "{{script}}",
    "&amp;",
    "\"'`",
    "\u2028\u202e",
    "\ud800",
    "\x00",
    "$x_1$ \\frac",
    "]]>",
    "",
    "  ",
    ".\n",
    "日本",
    "👩\u200d👩",
)


def picture(tokens=HOSTILE, layers=2, heads=3, causal=True, start=Place(1, 2, 3), model="a <b>model</b>"):
    size = len(tokens)
    powers = np.exp(np.random.default_rng(0).normal(0, 2, (layers, heads, size, size)))
    powers *= np.tri(size) if causal else 1
    return AttentionMap(tokens, (powers / powers.sum(-1, keepdims=True)).astype(np.float32), causal, start, model)


class Page(html.parser.HTMLParser):
    """Elements with their attributes, and what is inside script, style and title."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.inside, self.open = [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside.append("")
        self.open = True

    def handle_endtag(self, tag):
        self.open = False

    def handle_data(self, data):
        if self.open:
            self.inside[-1] += data

    def all(self, tag):
        return [(attributes, text) for (name, attributes), text in zip(self.elements, self.inside) if name == tag]


@pytest.fixture
def page(tmp_path):
    save_html(tmp_path / "page.html", picture())
    return Page((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_the_page_holds_the_weights_and_the_tokens(page):
    data = json.loads(next(text for attributes, text in page.all("script") if attributes.get("id") == "data"))
    shown = picture()
    steps = np.frombuffer(zlib.decompress(base64.b64decode(data["weights"])), "<u2").reshape(shown.weights.shape)
    assert np.abs(steps / data["steps"] - shown.weights).max() <= 0.5001 / data["steps"]
    assert (data["layers"], data["heads"], data["causal"], data["model"]) == (2, 3, True, "a <b>model</b>")
    assert data["start"] == {"layer": 1, "head": 2, "token": 3}
    assert [token["label"] for token in data["tokens"]] == shown.labels
    assert [n for n, token in enumerate(data["tokens"]) if token["gap"]] == [0, 12]
    assert [n for n, token in enumerate(data["tokens"]) if token["ends"]] == [13]


def test_labels_show_what_cannot_be_seen():
    labels = dict(zip(HOSTILE, picture().labels))
    assert labels[" plain"] == "plain" and labels[""] == "∅" and labels["  "] == "␣␣" and labels[".\n"] == ".↵"
    assert labels["\u2028\u202e"] == "⟨2028⟩⟨202E⟩" and labels["\x00"] == "⟨0⟩" and labels["\ud800"] == "⟨D800⟩"
    assert labels["日本"] == "日本" and labels["👩\u200d👩"] == "👩\u200d👩"


def test_hostile_tokens_add_no_element(page, tmp_path):
    save_html(tmp_path / "plain.html", picture(tokens=[f"t{n}" for n in range(len(HOSTILE))]))
    plain = Page((tmp_path / "plain.html").read_text(encoding="utf-8"))
    assert [name for name, _ in page.elements] == [name for name, _ in plain.elements]
    assert [text for attributes, text in page.all("script")][1] == [text for attributes, text in plain.all("script")][1]


def test_the_page_asks_for_nothing(page):
    references = ("src", "href", "srcset", "action", "formaction", "data", "poster", "background")
    for name, attributes in page.elements:
        assert not attributes.keys() & set(references) and not any(key.startswith("on") for key in attributes)
        assert name not in ("link", "iframe", "img", "object", "embed", "base")
    (_, style), (_, script) = page.all("style")[0], page.all("script")[1]
    assert not re.search(
        r"url\(|@import|https?:|//[a-z]|\bfetch\b|XMLHttp|innerHTML|outerHTML|insertAdjacent|\beval\b", style + script
    )
    policy = next(a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for rule, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"


def test_what_is_no_attention_is_refused():
    good = picture()
    for tokens, weights, start in (
        (good.tokens, good.weights[0], good.start),
        (good.tokens[1:], good.weights, good.start),
        (good.tokens, np.where(good.weights > 0.5, np.nan, good.weights), good.start),
        (good.tokens, good.weights - 0.5, good.start),
        (good.tokens, good.weights * 2, good.start),
        (good.tokens, good.weights, Place(2, 0, 0)),
        (good.tokens, good.weights, Place(0, -1, 0)),
        ([], np.zeros((2, 3, 0, 0)), Place(0, 0, 0)),
    ):
        with pytest.raises(ValueError, match="^(weights|start): "):
            AttentionMap(tokens, weights, True, start)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers, heads, size, causal", [(1, 1, 1, True), (2, 3, 16, False), (12, 2, 70, True)])
def test_the_image(tmp_path, layers, heads, size, causal):
    import matplotlib.image

    shown = picture(
        [HOSTILE[n % len(HOSTILE)] for n in range(size)], layers, heads, causal, Place(layers - 1, 0, size - 1)
    )
    save_png(tmp_path / "image.png", shown)
    pixels = matplotlib.image.imread(tmp_path / "image.png")
    assert struct.unpack(">II", (tmp_path / "image.png").read_bytes()[16:24]) == (2040, 1032) == pixels.shape[1::-1]
    assert 0.5 < pixels[..., :3].mean() < 0.999
