"""A picture of attention: one head with its tokens in large, beside it all heads of all layers."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import matplotlib

matplotlib.use("Agg")  # writes files; there may be no display

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

ACCENT = "#d1495b"
# Weights are many small numbers and a few large ones: the root of a weight lets both be seen.
STYLE = {"cmap": "Blues", "norm": PowerNorm(0.5, vmin=0, vmax=1), "aspect": "auto"}
BOTTOM, HEIGHT = 0.135, 0.725  # of the plots, in parts of the figure


def draw(
    path: Path,
    sentence: str,
    tokens: Sequence[str],
    weights: Sequence[np.ndarray],
    chosen: tuple[int, int],
    word: str,
    caption: str,
) -> None:
    """weights[layer] (H, T, T); chosen is the large one, (layer, head) from 0; the row of `word` is pointed out."""
    figure = plt.figure(figsize=(17, 8.6), dpi=120, facecolor="white")
    large, small = figure.subfigures(1, 2, width_ratios=(1, 1.12))
    image = _one_head(large, tokens, weights[chosen[0]][chosen[1]], chosen, word)
    _all_heads(small, weights, chosen)
    small.text(0.07, 0.04, caption, fontsize=11, color="0.35", linespacing=1.5)
    place = small.add_axes((0.94, BOTTOM, 0.016, HEIGHT))
    bar = small.colorbar(image, cax=place, ticks=(0, 0.01, 0.05, 0.1, 0.25, 0.5, 1))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=9, length=0)
    figure.suptitle(f"\u201c{sentence}\u201d", fontsize=17)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def _one_head(figure, tokens: Sequence[str], weights: np.ndarray, chosen: tuple[int, int], word: str):
    axes = figure.add_axes((0.15, BOTTOM, 0.83, HEIGHT))
    image = axes.imshow(weights, **STYLE)
    size = len(tokens)
    axes.set_xticks(range(size), tokens, rotation=40, ha="right", rotation_mode="anchor", fontsize=12)
    axes.set_yticks(range(size), tokens, fontsize=12)
    axes.set_xlabel("key: the token that is looked at", fontsize=11, color="0.35")
    axes.set_ylabel("query: the token that looks", fontsize=11, color="0.35")
    for query, key in zip(*np.where(weights >= 0.05)):
        weight = weights[query, key]
        style = {"ha": "center", "va": "center", "fontsize": 9, "color": "white" if weight > 0.3 else "0.25"}
        axes.text(key, query, f"{weight:.2f}".lstrip("0"), **style)
    _separate_cells(axes, size)
    row = list(tokens).index(word)
    frame = {"fill": False, "edgecolor": ACCENT, "linewidth": 2.2, "zorder": 3, "clip_on": False}
    axes.add_patch(Rectangle((-0.5, row - 0.5), size, 1, **frame))
    seen = tokens[int(weights[row].argmax())]
    name = f"Layer {chosen[0] + 1}, head {chosen[1] + 1}"
    axes.set_title(f"{name}: \u201c{word}\u201d looks at \u201c{seen}\u201d", fontsize=14, pad=10)
    return image


def _separate_cells(axes, size: int) -> None:
    """Thin white lines between the cells instead of a frame."""
    edges = np.arange(size + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _all_heads(figure, weights: Sequence[np.ndarray], chosen: tuple[int, int]) -> None:
    plots = figure.subplots(len(weights), len(weights[0]), squeeze=False)
    left, right = 0.07, 0.92
    figure.subplots_adjust(left, BOTTOM, right, BOTTOM + HEIGHT, wspace=0.1, hspace=0.1)
    for layer, row in enumerate(plots):
        row[0].set_ylabel(f"layer {layer + 1}", fontsize=11)
        for head, axes in enumerate(row):
            axes.imshow(weights[layer][head], **STYLE)
            axes.set(xticks=[], yticks=[])
            picked = (layer, head) == chosen
            for spine in axes.spines.values():
                spine.set(color=ACCENT if picked else "0.8", linewidth=2.2 if picked else 0.6)
            if layer == 0:
                axes.set_title(str(head + 1), fontsize=11, pad=4)
    figure.text((left + right) / 2, BOTTOM + HEIGHT + 0.04, "All heads of all layers", ha="center", fontsize=14)
