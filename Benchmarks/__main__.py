"""Times swiftattn beside its peers in one run: python Benchmarks [--quick] [--filter PATTERN]."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import ceilings
import machine
import measure
import report
from bars import Verdict, judge
from cases import Case, all_cases
from contenders import OURS, PEERS
from measure import Result
from team import Worker, WorkerFailure


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python Benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the core cases in three minutes")
    parser.add_argument(
        "--filter", default="", type=re.compile, metavar="PATTERN", help="only cases in whose name this is found"
    )
    parser.add_argument("--threads", type=int, default=2, help="of every contender (default 2)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("out/benchmark.json"),
        help="the tables as text and the plots are put beside it",
    )
    return parser.parse_args()


def assemble(threads: int) -> tuple[list[Worker], dict[str, dict[str, Any]], list[str]]:
    """The contenders that are installed, their versions, and a note on each that is not."""
    team, versions, notes = [], {}, []
    for name in (OURS, *PEERS):
        try:
            worker = Worker(name, threads)
            versions[name] = worker.ask("facts")
            team.append(worker)
        except WorkerFailure as failure:
            notes.append(f"without {name}: {failure}")
    return team, versions, notes


class Limits:
    """The ceilings, measured before and after the cases so that a busy moment does not lower them."""

    def __init__(self, threads: int, cases: list[Case]) -> None:
        self._worker = Worker("ceilings", threads)
        beyond = 1 << (4 * machine.last_level_cache() - 1).bit_length()
        self._sizes = sorted({ceilings.working_set(case, beyond) for case in cases} | {beyond})
        self.measured: dict[str, Any] = {"peaks": {}, "memory": {}, "beyond_cache": beyond}

    def measure(self) -> None:
        """WorkerFailure if that cannot be done here; what is known stays."""
        self._raise("peaks", self.measured["peaks"])
        for size in self._sizes:
            self._raise("memory", self.measured["memory"].setdefault(size, {}), size)
        self._worker.settle()

    def _raise(self, method: str, best: dict[str, float], *arguments: int) -> None:
        for name, speed in self._worker.ask(method, *arguments).items():
            best[name] = max(speed, best.get(name, 0.0))

    def stop(self) -> None:
        self._worker.stop()


def run_cases(cases: list[Case], team: list[Worker], pace: measure.Pace, console: Console) -> list[Result]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    results = []
    examiner = measure.Examiner()
    # Refreshed by hand, between the slices: a thread that draws would disturb what is timed.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:

            def stage(words: str) -> None:
                progress.update(task, description=f"{case.name}: {words}", refresh=True)

            results.append(measure.run(case, team, examiner, pace, stage))
            progress.advance(task)
            progress.print(report.outcome_line(results[-1]))
    return results


def as_json(result: Result, measured: dict[str, Any] | None, isa: str) -> dict[str, Any]:
    case = result.case
    return {
        "name": case.name,
        **{field: getattr(case, field) for field in ("group", "operation", "shape", "dtype", "precision", "causal")},
        "masked": case.mask,
        "flops": case.flops,
        "bytes": case.bytes,
        **report.speed_of(result, measured, isa),
        "best_peer": result.best_peer,
        "ratio": result.ratio(result.best_peer),
        "median_round_ratio": result.round_ratio(result.best_peer),
        "contenders": {name: outcome.as_json() for name, outcome in result.outcomes.items()},
        "skipped": result.skipped,
    }


def save(file: Path, **facts: Any) -> None:
    """Everything measured; dataclasses become objects of their fields."""
    file.write_text(json.dumps(facts, indent=1, default=vars, allow_nan=False) + "\n")


def draw(folder: Path, results: list[Result], console: Console) -> None:
    try:
        import plots
    except ImportError as error:
        console.print(f"no plots: {error}")
        return
    plots.speed_over_length(results, folder / "speed_over_length.png")
    plots.error_over_speed(results, folder / "error_over_speed.png")


def show(
    results: list[Result], verdicts: list[Verdict], measured: dict[str, Any] | None, isa: str, console: Console
) -> None:
    if measured:
        console.print(report.ceilings_table(measured))
    for group in report.TITLES:
        members = [result for result in results if result.case.group == group]
        if members:
            console.print(report.group_table(group, members, measured, isa), *report.remarks(members), sep="\n")
    if verdicts:
        console.print(report.bars_table(verdicts, isa))


def main() -> int:
    words = arguments()
    cases = [case for case in all_cases() if words.filter.search(case.name) and (case.quick or not words.quick)]
    if not cases:
        print(f"no case has {words.filter.pattern!r} in its name", file=sys.stderr)
        return 2
    console = report.console()
    start = time.time()
    team, versions, notes = assemble(words.threads)
    if OURS not in versions:
        print("\n".join(notes), file=sys.stderr)
        return 1
    isa = versions[OURS]["isa"]
    try:
        limits = Limits(words.threads, cases)
        limits.measure()
    except WorkerFailure as failure:
        limits = None
        notes.append(f"without ceilings: {failure}")
    facts = machine.describe()
    header = report.machine_table(facts, versions, notes)
    console.print(header)

    results = run_cases(cases, team, measure.QUICK if words.quick else measure.FULL, console)
    for worker in team:
        worker.stop()
    if limits:
        with contextlib.suppress(WorkerFailure):  # the first measurement stands
            limits.measure()
        limits.stop()
    measured = limits and limits.measured

    verdicts = judge(results, isa, measured, machine.last_level_cache())
    show(results, verdicts, measured, isa, console)
    words.json.parent.mkdir(parents=True, exist_ok=True)
    with words.json.with_suffix(".txt").open("w") as file:
        in_full_width = report.console_of(file)
        in_full_width.print(header)
        show(results, verdicts, measured, isa, in_full_width)
    save(
        words.json,
        machine=facts,
        versions=versions,
        threads=words.threads,
        isa=isa,
        ceilings=measured,
        notes=notes,
        cases=[as_json(result, measured, isa) for result in results],
        bars=verdicts,
    )
    draw(words.json.parent, results, console)
    seconds = time.time() - start
    console.print(f"{words.json}, its text and its plots beside it; {len(results)} cases in {seconds:.0f} seconds")
    return 0 if all(result.ours or result.skipped.get(OURS) == measure.NO_KERNEL for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
