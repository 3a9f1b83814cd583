"""What a run prints: the machine, one table per group, the bars."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

import ceilings
from bars import Verdict
from contenders import OURS, PEERS
from measure import NO_KERNEL, Result

WIDTH_IN_A_FILE = 170

TITLES = {
    "attention": "Attention: batch x query heads x key heads x queries x keys x head dim",
    "training": "Attention forward and backward: batch x query heads x key heads x queries x keys x head dim",
    "length": "Attention over the sequence length",
    "decode": "Decode: batch x query heads x key heads x queries x keys x head dim",
    "cache": "Decode from a cache: batch x query heads x key heads x queries x keys x head dim",
    "linear": "Linear: m x n x k",
    "rows": "Row kernels: rows x width, embedding tokens x vocabulary x width",
    "gradients": "Gradients: rows x width, linear m x n x k, embedding tokens x vocabulary x width",
    "tokens": "Around the model: rotary heads x positions x head dim, others rows x vocabulary",
    "small": "Calls with next to no work",
}


def console() -> Console:
    made = Console(highlight=False)
    return made if made.is_terminal else console_of(sys.stdout)


def console_of(file: TextIO) -> Console:
    return Console(file=file, highlight=False, width=WIDTH_IN_A_FILE)


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 100 * scale else f"{seconds / scale:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def outcome_line(result: Result) -> Text:
    """What is said of a case as soon as it is done."""
    line = Text(f"{result.case.name}  ")
    if not result.ours:
        return line.append(_why_not(result, OURS), "red")
    line.append(duration(result.ours.seconds), "bold")
    ratio = result.ratio(result.best_peer)
    return line.append(f"  {ratio:.2f} times as fast as {result.best_peer}" if ratio else "  no peer")


def _why_not(result: Result, name: str) -> str:
    outcome = result.outcomes.get(name)
    if outcome and not outcome.right:
        return f"wrong (error {outcome.rms_error:.1e})"
    return result.skipped.get(name, "not here")


def machine_table(facts: dict[str, Any], versions: dict[str, dict[str, Any]], notes: list[str]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    caches = ", ".join(f"{name} {size >> 10} KiB" for name, size in facts["caches"].items())
    table.add_row("machine", f"{facts['architecture']}, {facts['processors']} processors, {caches}")
    table.add_row("features", " ".join(facts["features"]))
    for name, version in versions.items():
        table.add_row(name, ", ".join(str(value) for value in version.values()))
    for note in notes:
        table.add_row("note", Text(note, "yellow"))
    return table


def ceilings_table(measured: dict[str, Any]) -> Table:
    table = Table(title="Ceilings", title_justify="left")
    table.add_column("")
    table.add_column("all threads", justify="right")
    names = {
        "fma": "float32 FMA",
        "fma_256": "float32 FMA, 256-bit vectors",
        "bf16_dot": "bfloat16 dot product",
        "amx": "bfloat16 AMX tiles",
    }
    for unit, name in names.items():
        if measured["peaks"][unit]:
            table.add_row(name, f"{measured['peaks'][unit] / 1e9:.0f} GFLOP/s")
    for size, speeds in measured["memory"].items():
        for kind, speed in speeds.items():
            table.add_row(f"{kind}, {size >> 20} MiB", f"{speed / 1e9:.1f} GB/s")
    return table


def group_table(group: str, results: list[Result], measured: dict[str, Any] | None, isa: str) -> Table:
    table = Table(title=TITLES[group], title_justify="left")
    table.add_column("case", overflow="fold")
    for name in (OURS, *PEERS, "speed", "of ceiling", "/ best peer", "median", "error", "torch's"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result.case.name.removeprefix(group + " "),
            *(_time(result, name) for name in (OURS, *PEERS)),
            *_speed(result, measured, isa),
            *map(_ratio, (result.ratio(result.best_peer), result.round_ratio(result.best_peer))),
            *(_error(result, name) for name in (OURS, "torch")),
        )
    return table


def _time(result: Result, name: str) -> Text:
    outcome = result.outcomes.get(name)
    if outcome is None:
        return Text("–", "dim")
    if not outcome.right:
        return Text("wrong", "red")
    best = name == OURS or name == result.best_peer
    return Text(duration(outcome.seconds), "bold" if best else "")


def speed_of(result: Result, measured: dict[str, Any] | None, isa: str) -> dict[str, Any]:
    """GFLOP/s or GB/s, whichever the ceiling is of, and the fraction of it; empty where neither means anything."""
    if not result.ours or result.case.group == "small" or measured is None:
        return {}
    seconds, bound = ceilings.floor(result.case, measured, isa)
    amount = result.case.flops if bound == "flop" else result.case.bytes
    return {
        "speed": amount / result.ours.seconds / 1e9,
        "unit": "GFLOP/s" if bound == "flop" else "GB/s",
        "bound": bound,
        "fraction": seconds / result.ours.seconds,
    }


def _speed(result: Result, measured: dict[str, Any] | None, isa: str) -> tuple[str, str]:
    speed = speed_of(result, measured, isa)
    if not speed:
        return "", ""
    digits = 0 if speed["speed"] >= 100 else 1
    return f"{speed['speed']:.{digits}f} {speed['unit']}", f"{speed['fraction']:.0%} {speed['bound']}"


def _ratio(ratio: float | None) -> Text:
    if ratio is None:
        return Text("–", "dim")
    return Text(f"{ratio:.2f}", "green" if ratio >= 1 else "red")


def _error(result: Result, name: str) -> str:
    return f"{result.outcomes[name].rms_error:.1e}" if name in result.outcomes else ""


def remarks(results: list[Result]) -> list[Text]:
    """Below a table: peers that were asked in another way than their plainest, and why contenders are missing."""
    found = Counter()
    for result in results:
        for name, outcome in result.outcomes.items():
            if outcome.formulation != next(iter(outcome.tried)):
                found[f"{name} by {outcome.formulation}"] += 1
        for name, reason in result.skipped.items():
            if reason != NO_KERNEL:
                found[f"without {name}: {reason}"] += 1
    return [Text(f"  {remark} ({count} case{'s' * (count > 1)})", "dim") for remark, count in found.items()]


def bars_table(verdicts: list[Verdict], isa: str) -> Table:
    table = Table(title=f"Bars, kernels for {isa}", title_justify="left")
    for name in ("bar", "required", "reached", ""):
        table.add_column(name)
    for verdict in verdicts:
        word = Text("met", "green") if verdict.met else Text("missed", "red")
        if verdict.isa:
            word = Text(f"stated for {verdict.isa}", "dim")
        table.add_row(verdict.bar, verdict.required, verdict.reached, word)
    return table
