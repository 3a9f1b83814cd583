"""One case: every contender prepared and checked, then timed in interleaved rounds."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np

import inputs
import reference
from cases import Case
from contenders import OURS, PEERS
from team import Worker, WorkerFailure


@dataclass(frozen=True)
class Pace:
    """How long a case may take."""

    rounds: int
    slice_seconds: float  # of one contender in one round
    budget_seconds: float  # after which no further round begins, if MIN_ROUNDS are done


FULL = Pace(rounds=7, slice_seconds=0.1, budget_seconds=8.0)
QUICK = Pace(rounds=5, slice_seconds=0.06, budget_seconds=3.0)
MIN_ROUNDS = 3

NO_KERNEL = "no kernel"


@dataclass
class Outcome:
    """What one contender did at one case. Its fastest formulation with a right result stands for it."""

    tried: dict[str, float]  # seconds of a first trial, by formulation
    refused: dict[str, str]
    errors: dict[str, float]  # relative RMS, of the formulations that play
    right: set[str]  # those with the right result
    times: list[dict[str, float]] = field(default_factory=list)  # by round: the fastest call of each in seconds

    @property
    def formulation(self) -> str:
        candidates = self.right or self.errors
        return min(candidates, key=lambda label: min([times[label] for times in self.times] or [self.tried[label]]))

    @property
    def rms_error(self) -> float:
        return self.errors[self.formulation]

    @property
    def rounds(self) -> list[float]:
        return [times[self.formulation] for times in self.times]

    @property
    def seconds(self) -> float:
        return min(self.rounds)

    def as_json(self) -> dict[str, Any]:
        return {
            "formulation": self.formulation,
            "right": bool(self.right),
            "seconds": self.seconds if self.times else None,
            "errors": {label: error if math.isfinite(error) else None for label, error in self.errors.items()},
            "rounds": self.times,
            "tried": self.tried,
            "refused": self.refused,
        }


@dataclass
class Result:
    case: Case
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # reason by contender

    def agreeing(self, name: str) -> Outcome | None:
        """The contender's outcome if it may be compared: timed, with a right result."""
        outcome = self.outcomes.get(name)
        return outcome if outcome and outcome.right and outcome.times else None

    @property
    def ours(self) -> Outcome | None:
        return self.agreeing(OURS)

    @property
    def best_peer(self) -> str | None:
        timed = [name for name in PEERS if self.agreeing(name)]
        return min(timed, key=lambda name: self.outcomes[name].seconds, default=None)

    def ratio(self, peer: str | None) -> float | None:
        """How many times longer the peer takes, minimum by minimum."""
        theirs = self.agreeing(peer) if peer else None
        return theirs.seconds / self.ours.seconds if theirs and self.ours else None

    def round_ratio(self, peer: str | None) -> float | None:
        """The same as the median over the rounds, each against its own neighbour in time."""
        theirs = self.agreeing(peer) if peer else None
        if not (theirs and self.ours):
            return None
        return statistics.median(b / a for a, b in zip(self.ours.rounds, theirs.rounds))


class Examiner:
    """The exact result, kept for the next case if that has the same inputs."""

    def __init__(self) -> None:
        self._data: Case | None = None
        self._exact = np.empty(0)

    def exact(self, case: Case) -> np.ndarray:
        if self._data != case.data:
            self._exact = reference.exact(case, inputs.make(case))
            self._data = case.data
        return self._exact


def run(case: Case, team: list[Worker], examiner: Examiner, pace: Pace, stage: Callable[[str], None]) -> Result:
    """`stage` is told what goes on."""
    result = Result(case)
    stage("exact result")
    exact = examiner.exact(case)
    for worker in team:
        stage(worker.name)
        try:
            outcome = _prepare(case, worker, exact)
        except WorkerFailure as failure:
            result.skipped[worker.name] = str(failure)
            continue
        if isinstance(outcome, str):
            result.skipped[worker.name] = outcome
        else:
            result.outcomes[worker.name] = outcome
        worker.settle()
    _time(result, team, pace, stage)
    return result


def _prepare(case: Case, worker: Worker, exact: np.ndarray) -> Outcome | str:
    """The outcome without times, or why there is none."""
    answer = worker.ask("prepare", case)
    if not answer["playing"]:
        return "; ".join(answer["refused"].values()) or NO_KERNEL
    errors = {
        label: reference.rms_error(worker.ask("result", label, case.check_step, case.width), exact)
        for label in answer["playing"]
    }
    right = {label for label, error in errors.items() if error <= case.agreement}
    return Outcome(answer["tried"], answer["refused"], errors, right)


def _time(result: Result, team: list[Worker], pace: Pace, stage: Callable[[str], None]) -> None:
    playing = [worker for worker in team if worker.name in result.outcomes and result.outcomes[worker.name].right]
    end = time.perf_counter() + pace.budget_seconds
    for round_ in range(pace.rounds):
        if round_ >= MIN_ROUNDS and time.perf_counter() > end:
            return
        stage(f"round {round_ + 1}")
        for worker in list(playing):
            try:
                times = worker.ask("fastest", pace.slice_seconds)
            except WorkerFailure as failure:
                result.skipped[worker.name] = str(failure)
                del result.outcomes[worker.name]
                playing.remove(worker)
                continue
            result.outcomes[worker.name].times.append(times)
            worker.settle()
