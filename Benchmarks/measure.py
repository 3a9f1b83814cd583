"""One case: every contender prepared and checked, then timed in interleaved rounds."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import Callable

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
    """What one contender did at one case."""

    formulation: str
    tried: dict[str, float]
    refused: dict[str, str]
    rms_error: float
    agrees: bool
    rounds: list[float] = field(default_factory=list)  # the fastest call of each round, in seconds

    @property
    def seconds(self) -> float:
        return min(self.rounds, default=math.nan)


@dataclass
class Result:
    case: Case
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # reason by contender

    def agreeing(self, name: str) -> Outcome | None:
        """The contender's outcome if it may be compared: timed, with a right result."""
        outcome = self.outcomes.get(name)
        return outcome if outcome and outcome.agrees and outcome.rounds else None

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
    if answer["chosen"] is None:
        return "; ".join(answer["refused"].values()) or NO_KERNEL
    error = reference.rms_error(worker.ask("result", case.check_step, case.width), exact)
    return Outcome(answer["chosen"], answer["tried"], answer["refused"], error, error <= case.agreement)


def _time(result: Result, team: list[Worker], pace: Pace, stage: Callable[[str], None]) -> None:
    playing = [worker for worker in team if worker.name in result.outcomes and result.outcomes[worker.name].agrees]
    end = time.perf_counter() + pace.budget_seconds
    for round_ in range(pace.rounds):
        if round_ >= MIN_ROUNDS and time.perf_counter() > end:
            return
        stage(f"round {round_ + 1}")
        for worker in list(playing):
            try:
                seconds = worker.ask("fastest", pace.slice_seconds)
            except WorkerFailure as failure:
                result.skipped[worker.name] = str(failure)
                del result.outcomes[worker.name]
                playing.remove(worker)
                continue
            result.outcomes[worker.name].rounds.append(seconds)
            worker.settle()
