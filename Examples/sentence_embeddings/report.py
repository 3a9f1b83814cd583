"""What the demo prints."""

from __future__ import annotations

from typing import Sequence

import numpy as np
import swiftattn
from rich import box
from rich.console import Console
from rich.table import Table

from checkpoint import Batch, Checkpoint
from checks import Check
from comparison import Row


def heading(console: Console, model: Checkpoint, sentences: Sequence[str], batch: Batch) -> None:
    info, config = swiftattn.cpu_info(), model.config
    parameters = sum(array.size for array in model.weights.values() if array.dtype == np.float32)
    console.print(f"[bold]swiftattn {info['version']}[/], {info['isa']} kernels, up to {info['threads']} threads")
    console.print(
        f"[bold]all-MiniLM-L6-v2[/], {config['num_hidden_layers']} layers, {config['num_attention_heads']} heads, "
        f"{config['hidden_size']} wide, {parameters / 1e6:.1f} million parameters\n"
    )
    table = _table(f"{len(sentences)} sentences, one batch padded to {batch.ids.shape[1]} tokens")
    table.add_column("", justify="right")
    table.add_column("sentence")
    table.add_column("tokens", justify="right")
    for number, (sentence, length) in enumerate(zip(sentences, batch.lengths), 1):
        table.add_row(str(number), sentence, str(length))
    console.print(table, "")


def layers(console: Console, rows: Sequence[Row]) -> None:
    table = _table("Largest error, against NumPy in float64 on each sentence alone, without padding")
    table.add_column("after")
    for column in ("|error|", "relative", "NumPy float32, relative", "attention weights, |error|"):
        table.add_column(column, justify="right")

    for stage, ours, plain, weights in rows:
        numbers = (ours.absolute, ours.relative, plain.relative, *((weights.absolute,) if weights else ()))
        table.add_row(stage, *(f"{number:.1e}" for number in numbers))
    console.print(table)
    console.print("relative: |x - reference| / |reference| of a token's vector\n", style="dim")


def similarities(console: Console, sentences: Sequence[str], cosines: np.ndarray) -> None:
    table = _table("Cosine similarity", padding=0)
    table.add_column("", justify="right", width=3)
    table.add_column("sentence", no_wrap=True, width=29)
    table.add_column("closest", justify="center", width=7)
    for number in range(1, len(sentences) + 1):
        table.add_column(str(number), justify="right", width=4)
    for number, (sentence, row) in enumerate(zip(sentences, cosines)):
        closest = max((other for other in range(len(row)) if other != number), key=row.__getitem__)
        cells = [f"{round(float(cosine), 2) + 0.0:.2f}".replace("0.", ".") for cosine in row]  # + 0.0: no -.00
        cells[closest] = f"[bold green]{cells[closest]}[/]"
        table.add_row(str(number + 1), sentence, f"[bold green]{closest + 1}[/]", *cells)
    console.print(table, "")


def times(console: Console, tokens: int, ours: float, others: dict[str, float]) -> None:
    """Seconds for the whole batch; others by their names."""
    table = _table("Time for all sentences, shortest run")
    table.add_column("")
    for column in ("ms", "tokens/s", "speed-up"):
        table.add_column(column, justify="right")
    table.add_row("swiftattn float32, one padded batch", f"{ours * 1e3:.1f}", f"{tokens / ours:,.0f}", "", style="bold")
    for name, seconds in others.items():
        table.add_row(name, f"{seconds * 1e3:.1f}", f"{tokens / seconds:,.0f}", f"[bold]{seconds / ours:.1f} x[/]")
    console.print(table, "")


def checks(console: Console, made: Sequence[Check]) -> None:
    table = _table("Checks")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_column("bound", justify="right")
    table.add_column("")
    for check in made:
        verdict = "[green]passed[/]" if check.passed else "[bold red]FAILED[/]"
        table.add_row(check.what, check.measured, check.bound, verdict)
    console.print(table, "")


def _table(title: str, **options) -> Table:
    style = {"title_style": "bold", "title_justify": "left", "box": box.SIMPLE_HEAD, "show_edge": False}
    return Table(title=title, **style, **options)
