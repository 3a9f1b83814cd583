"""One HTML page with all it needs inside: it asks for nothing from elsewhere, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

from .attention_map import AttentionMap

STEPS = 65535  # a weight is a whole number of 1/65535


def save_html(path: str | Path, picture: AttentionMap) -> None:
    Path(path).write_text(page(picture), encoding="utf-8")


def page(picture: AttentionMap) -> str:
    script, style = _part("page.js"), _part("page.css")
    return _fill(
        _part("page.html"),
        title=html.escape(picture.text[:80]),
        script_hash=_hash(script),
        style_hash=_hash(style),
        style=style,
        data=_data(picture),
        script=script,
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _fill(template: str, **parts: str) -> str:
    """Every {{name}} of the template replaced, in one pass: what a part contains is not looked at."""
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled += parts[name], rest
    return "".join(filled)


def _hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(picture: AttentionMap) -> str:
    """JSON in ASCII, without the characters that mean something in HTML."""
    layers, heads = picture.weights.shape[:2]
    steps = np.rint(np.clip(picture.weights, 0, 1) * STEPS).astype("<u2")
    tokens = [
        {"label": label, "gap": token.startswith(" "), "ends": token.endswith("\n")}
        for label, token in zip(picture.labels, picture.tokens)
    ]
    data = {
        "model": picture.model,
        "layers": layers,
        "heads": heads,
        "causal": picture.causal,
        "start": picture.start._asdict(),
        "tokens": tokens,
        "steps": STEPS,
        "weights": base64.b64encode(zlib.compress(steps.tobytes(), 6)).decode(),
    }
    text = json.dumps(data)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
