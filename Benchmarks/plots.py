"""The pictures of a run: speed over sequence length for each dtype, error over speed for the precisions."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from cases import DTYPES, FORWARD, LINEAR
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
    figure, panels = plt.subplots(1, len(DTYPES), figsize=(13, 4), sharey=True, constrained_layout=True)
    for panel, dtype in zip(panels, DTYPES):
        for name in (OURS, "torch"):
            points = sorted(
                (result.case.shape[3], _gflops(result, name))
                for result in results
                if result.case.group in ("attention", "length")
                and result.case.shape[:3] == (1, 8, 8)
                and result.case.shape[5] == 64
                and not result.case.causal
                and (result.case.dtype, result.case.precision) == (dtype, "highest")
                and result.agreeing(name)
            )
            if points:
                panel.plot(*zip(*points), "o-", color=COLOURS[name], label=name)
        panel.set(title=dtype, xlabel="sequence length", ylim=(0, None))
        panel.set_xscale("log", base=2)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("GFLOP/s")
    panels[0].legend()
    figure.suptitle("Attention, 1 x 8 heads of 64")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def error_over_speed(results: list[Result], file: Path) -> None:
    """All contenders in every precision; the best corner is at the lower right."""
    problems = (("attention", FORWARD[0][0]), ("linear", LINEAR[0]))
    figure, panels = plt.subplots(1, 2, figsize=(13, 5), sharey=True, constrained_layout=True)
    for panel, (group, shape) in zip(panels, problems):
        for result in results:
            case = result.case
            if (case.group, case.shape, case.causal) != (group, shape, False):
                continue
            for name in (OURS, *PEERS):
                if result.agreeing(name):
                    panel.scatter(
                        _gflops(result, name),
                        result.outcomes[name].rms_error,
                        color=COLOURS[name],
                        marker=MARKERS[case.dtype, case.precision],
                        s=60,
                    )
        panel.set(title=f"{group} {'x'.join(map(str, shape))}", xlabel="GFLOP/s", yscale="log", xlim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("RMS error, relative")
    for name, colour in COLOURS.items():
        panels[1].scatter([], [], color=colour, label=name)
    for (dtype, precision), marker in MARKERS.items():
        words = dtype if dtype != "float32" else f"{dtype} {precision}"
        panels[1].scatter([], [], color="black", marker=marker, label=words)
    panels[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=150)
    plt.close(figure)
