"""The pictures of a run: speed over sequence length for each dtype, error over speed for the precisions."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from cases import DTYPES, FORWARD, LENGTHS, LINEAR, of_length
from contenders import OURS, PEERS
from measure import Result

COLOURS = dict(zip((OURS, *PEERS), ("#d1495b", "#30638e", "#8a8d91", "#edae49")))
MARKERS = {
    ("float32", "highest"): "o",
    ("float32", "high"): "s",
    ("float32", "medium"): "D",
    ("bfloat16", "highest"): "^",
    ("float16", "highest"): "v",
}


def _gflops(result: Result, name: str) -> float | None:
    outcome = result.agreeing(name)
    return result.case.flops / outcome.seconds / 1e9 if outcome else None


def speed_over_length(results: list[Result], file: Path) -> None:
    """Attention with 8 heads of 64, not causal: swiftattn and torch."""
    lines = {(dtype, name): _line(results, dtype, name) for dtype in DTYPES for name in (OURS, "torch")}
    if not any(lines.values()):
        return
    figure, panels = plt.subplots(1, len(DTYPES), figsize=(13, 4), sharey=True, layout="constrained")
    for panel, dtype in zip(panels, DTYPES):
        for name in (OURS, "torch"):
            if lines[dtype, name]:
                panel.plot(*zip(*lines[dtype, name]), "o-", color=COLOURS[name], label=name)
                panel.set_xscale("log", base=2)
                panel.set_xticks(LENGTHS, map(str, LENGTHS))
                panel.legend()
        panel.set(title=dtype, xlabel="sequence length", ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("GFLOP/s")
    figure.suptitle("Attention, 8 heads of 64, every key visible")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _line(results: list[Result], dtype: str, name: str) -> list[tuple[int, float]]:
    """Sequence length and speed."""
    wanted = {of_length(length, dtype).data for length in LENGTHS}
    return sorted(
        (result.case.shape[3], _gflops(result, name))
        for result in results
        if result.case.data in wanted and result.case.precision == "highest" and result.agreeing(name)
    )


def error_over_speed(results: list[Result], file: Path) -> None:
    """All contenders in every precision; the best corner is at the lower right."""
    problems = (("attention", FORWARD[0][0]), ("linear", LINEAR[0]))
    points = {
        problem: [
            (_gflops(result, name), result.outcomes[name].rms_error, name, (result.case.dtype, result.case.precision))
            for result in results
            for name in (OURS, *PEERS)
            if (result.case.group, result.case.shape, result.case.causal) == (*problem, False) and result.agreeing(name)
        ]
        for problem in problems
    }
    problems = [problem for problem in problems if points[problem]]
    if not problems:
        return
    figure, panels = plt.subplots(1, len(problems), figsize=(13, 5), sharey=True, squeeze=False, layout="constrained")
    panels = panels[0]
    for panel, (group, shape) in zip(panels, problems):
        for speed, error, name, arithmetic in points[group, shape]:
            panel.scatter(speed, error, color=COLOURS[name], marker=MARKERS[arithmetic], s=60)
        panel.set(title=f"{group} {'x'.join(map(str, shape))}", xlabel="GFLOP/s", yscale="log", xlim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("RMS error, relative")
    for name, colour in COLOURS.items():
        panels[-1].scatter([], [], color=colour, label=name)
    for (dtype, precision), marker in MARKERS.items():
        words = dtype if dtype != "float32" else f"{dtype} {precision}"
        panels[-1].scatter([], [], color="black", marker=marker, label=words)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=150)
    plt.close(figure)
