"""What the training examples share: a step, progress, learning curves, attention over a text."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from swiftattn import cross_entropy_backward, nn, optim


@dataclass
class History:
    """What a training saw."""

    loss: list[float] = field(default_factory=list)  # of each step
    validation: list[float] = field(default_factory=list)  # accuracy after each epoch
    test: float = 0.0  # accuracy of the epoch that was best in validation
    rate: float = 0.0  # items a second

    def step(self, loss: float) -> None:
        self.loss.append(loss)


class Progress:
    """A bar with running means of loss and accuracy, and items a second; what passed before `resume` does not count."""

    def __init__(self, title: str, total: int, unit: str, quiet: bool = False) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        text = TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.1%}  {task.fields[rate]:.0f} " + unit + "/s")
        self._bar = Bar(TextColumn(title), BarColumn(), text, TimeRemainingColumn(), disable=quiet)
        self._task = self._bar.add_task(title, total=total, loss=0.0, accuracy=0.0, rate=0.0)
        self._means: dict[str, float] = {}
        self._done = 0
        self._seconds = 0.0

    def __enter__(self) -> Progress:
        self._bar.start()
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    @property
    def rate(self) -> float:
        return self._done / max(self._seconds, 1e-9)

    def resume(self) -> None:
        """What passed since the last step was no training."""
        self._since = time.perf_counter()

    def advance(self, items: int, **measured: float) -> None:
        now = time.perf_counter()
        self._seconds += now - self._since
        self._since = now
        self._done += items
        for name, value in measured.items():
            self._means[name] = 0.95 * self._means.get(name, value) + 0.05 * value
        self._bar.update(self._task, advance=items, rate=self.rate, **self._means)


def learn(model: nn.Module, optimizer: optim.Optimizer, logits: np.ndarray, targets: np.ndarray, **options) -> dict[str, float]:
    """The step that follows from a model's logits; loss and accuracy of the batch. Options are those of cross_entropy."""
    loss, gradient = cross_entropy_backward(logits, targets, **options)
    model.zero_grad()
    model.backward(gradient)
    optimizer.step()
    return dict(loss=float(loss), accuracy=float((logits.argmax(-1) == targets).mean()))


def table_rows(path: Path, *tables: str) -> list[int]:
    """How many tokens each table in a checkpoint has."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return [file.get_slice(f"module.{table}.weight").get_shape()[0] for table in tables]


def draw_curves(path: Path, title: str, history: History) -> None:
    """Loss of each step, smoothed, and validation accuracy of each epoch, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    window = max(len(history.loss) // 50, 1)
    smooth = np.convolve(history.loss, np.full(window, 1 / window), "valid")
    left.plot(history.loss, color="0.85", linewidth=0.7)
    left.plot(np.arange(len(smooth)) + window // 2, smooth, color="#1f5fa8")
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    right.plot(np.arange(1, len(history.validation) + 1), [100 * value for value in history.validation], "o-", color="#d1495b")
    right.set(xlabel="epoch", ylabel="validation accuracy, %")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path)


def draw_attention(path: Path, text: str, weights: np.ndarray, rows: list[str] | None = None) -> None:
    """Weights (layers, heads, T, S) of the last layer from rows to the characters of a text, as a PNG with a plot for each head.

    Rows are the text's characters too unless they have names of their own.
    """
    from matplotlib.figure import Figure

    heads = weights[-1]
    names, fonts = list(text) if rows is None else rows, _fonts()
    figure = Figure(figsize=(4 * len(heads), 4.4), dpi=120, layout="constrained")
    for head, axes in enumerate(np.atleast_1d(figure.subplots(1, len(heads)))):
        axes.imshow(heads[head] ** 0.5, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(text)), text, fontfamily=fonts)
        axes.set_yticks(range(len(names)), names, fontfamily=fonts)
        axes.tick_params(length=0, labelsize=8)
        axes.set_title(f"head {head + 1}", fontsize=10)
    figure.savefig(path)


def _fonts() -> list[str]:
    """The default font, which has pinyin's accents, then those with Chinese characters that this machine has."""
    from matplotlib import font_manager

    names = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback")
    fonts = font_manager.fontManager
    known = {font.fname for font in fonts.ttflist}  # a list on disk, perhaps older than a font
    for path in font_manager.findSystemFonts():
        if path not in known and any(word in path.lower() for word in ("cjk", "wqy", "droidsansfallback")):
            fonts.addfont(path)
    installed = {font.name for font in fonts.ttflist}
    return ["DejaVu Sans"] + [name for name in names if name in installed]
