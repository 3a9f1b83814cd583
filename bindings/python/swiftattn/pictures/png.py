"""A picture of attention: one head with its tokens in large, beside it all heads of all layers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from .attention_map import AttentionMap

INK, ACCENT = "0.35", "#d1495b"
BOTTOM, HEIGHT = 0.135, 0.715  # of the plots, in parts of the figure
READABLE = 60  # tokens, at most, that have room for their names
NUMBERS = 16  # tokens, at most, whose cells have room for a number
LETTERS = 14  # of a token, at most


def save_png(path: str | Path, picture: AttentionMap) -> None:
    """Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # writes files, needs no display
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    # Weights are many small numbers and a few large ones: the root of a weight lets both be seen.
    style = {"cmap": "Blues", "norm": PowerNorm(0.5, vmin=0, vmax=1), "interpolation": "nearest"}
    figure = Figure(figsize=(17, 8.6), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    large, small = figure.subfigures(1, 2, width_ratios=(1, 1.12))
    image = _one_head(large, picture, style)
    _all_heads(small, picture, style)
    bar = small.colorbar(
        image, cax=small.add_axes((0.945, BOTTOM, 0.014, HEIGHT)), ticks=(0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, length=0)
    figure.suptitle(_shortened(picture.text, 110), fontsize=16, y=0.97, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for what the font lacks
        figure.savefig(path, format="png")


def _one_head(figure, picture: AttentionMap, style: dict):
    from matplotlib.patches import Rectangle

    layer, head, token = picture.start
    weights, size = picture.weights[layer, head], len(picture.tokens)
    labels = [_shortened(label, LETTERS) for label in picture.labels]
    axes = figure.add_axes((0.15, BOTTOM, 0.83, HEIGHT))
    image = axes.imshow(_visible(picture, weights), aspect="auto", **style)
    axes.set_xlabel("key: the token that is looked at", fontsize=11, color=INK)
    axes.set_ylabel("query: the token that looks", fontsize=11, color=INK)
    if size <= READABLE:
        font = {"fontsize": max(5, min(12, 330 // size)), "parse_math": False}
        axes.set_xticks(range(size), labels, rotation=40, ha="right", rotation_mode="anchor", **font)
        axes.set_yticks(range(size), labels, **font)
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
    for query, key in zip(*np.where(weights >= 0.05)) if size <= NUMBERS else ():
        weight = weights[query, key]
        shade = {"ha": "center", "va": "center", "fontsize": 9, "color": "white" if weight > 0.3 else "0.25"}
        axes.text(key, query, f"{weight:.2f}".lstrip("0"), **shade)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    end = token + 1 if picture.causal else size
    frame = {"fill": False, "edgecolor": ACCENT, "linewidth": 2.2, "zorder": 3, "clip_on": False}
    axes.add_patch(Rectangle((-0.5, token - 0.5), end, 1, **frame))
    title = f"Layer {layer + 1}, head {head + 1}: “{labels[token]}” looks at “{labels[int(weights[token].argmax())]}”"
    axes.set_title(title, fontsize=14, pad=10, parse_math=False)
    return image


def _all_heads(figure, picture: AttentionMap, style: dict) -> None:
    """A row for each layer, or a column where the layers are many."""
    layers, heads = picture.weights.shape[:2]
    upright = layers <= 1.5 * heads
    plots = figure.subplots(*((layers, heads) if upright else (heads, layers)), squeeze=False)
    left, right = 0.07, 0.92
    figure.subplots_adjust(left, BOTTOM, right, BOTTOM + HEIGHT, wspace=0.1, hspace=0.1)
    for row, line in enumerate(plots):
        for column, axes in enumerate(line):
            layer, head = (row, column) if upright else (column, row)
            axes.imshow(_visible(picture, picture.weights[layer, head]), aspect="auto", **style)
            axes.set(xticks=[], yticks=[])
            chosen = (layer, head) == picture.start[:2]
            axes.spines[:].set(color=ACCENT if chosen else "0.8", linewidth=2.2 if chosen else 0.6)
            if row == 0:
                axes.set_title(str(column + 1), fontsize=10, pad=4)
            if column == 0:
                axes.set_ylabel(str(row + 1), fontsize=10, rotation=0, ha="right", va="center")
    across, down = ("heads", "layers") if upright else ("layers", "heads")
    figure.text(
        (left + right) / 2,
        BOTTOM + HEIGHT + 0.045,
        f"All heads: {across} across, {down} down",
        ha="center",
        fontsize=14,
    )


def _visible(picture: AttentionMap, weights: np.ndarray) -> np.ndarray:
    """Later tokens, which a causal model does not see, stay white."""
    hidden = np.triu(np.ones(weights.shape, bool), 1) if picture.causal else np.zeros(weights.shape, bool)
    return np.ma.masked_array(weights, hidden)


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
