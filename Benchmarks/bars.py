"""The marks that the kernels are held to, and what a run reached of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable

from cases import Case, of_length
from measure import Result

LARGE_LINEAR = 2 * 1024**3  # flops of 1024 x 1024 x 1024


@dataclass(frozen=True)
class Verdict:
    bar: str
    required: str
    reached: str
    met: bool
    isa: str | None = None  # the instruction set that the bar is stated for, if that is not the one in use


def geometric_mean(numbers: Iterable[float]) -> float:
    logarithms = [math.log(number) for number in numbers]
    return math.exp(sum(logarithms) / len(logarithms))


class _Sheet:
    """Collects verdicts; a bar without a measured case is left out."""

    def __init__(self, results: list[Result], isa: str) -> None:
        self._results = [result for result in results if result.ours]
        self._isa = isa
        self.verdicts: list[Verdict] = []

    def select(self, group: str, dtype: str = "float32", precision: str = "highest") -> list[Result]:
        return [
            result
            for result in self._results
            if (result.case.group, result.case.dtype, result.case.precision) == (group, dtype, precision)
        ]

    def find(self, matches: Callable[[Case], bool]) -> Result | None:
        return next((result for result in self._results if matches(result.case)), None)

    def at_least(
        self,
        bar: str,
        values: dict[str, float | None],
        *,
        mean: float | None = None,
        each: float | None = None,
        isa: str | None = None,
    ) -> None:
        """Holds numbers by case, of which more is better, to a geometric mean and to a least value."""
        known = {name: value for name, value in values.items() if value is not None}
        if not known:
            return
        average = geometric_mean(known.values())
        lowest = min(known, key=known.get)
        limits = {"mean": mean, "each": each}
        self.verdicts.append(
            Verdict(
                bar,
                ", ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None),
                f"mean {average:.2f}, lowest {known[lowest]:.2f} of {len(known)} ({lowest})",
                (mean is None or average >= mean) and (each is None or known[lowest] >= each),
                isa if isa != self._isa else None,
            )
        )

    def at_most(self, bar: str, value: float | None, limit: float, unit: str = "") -> None:
        if value is not None:
            self.verdicts.append(Verdict(bar, f"at most {limit:g}{unit}", f"{value:.2f}{unit}", value <= limit))

    def no_worse_than_torch(self, bar: str, results: list[Result]) -> None:
        compared = [(result, result.agreeing("torch")) for result in results]
        compared = [(result, theirs) for result, theirs in compared if theirs]
        worse = [result.case.name for result, theirs in compared if result.ours.rms_error > theirs.rms_error]
        if compared:
            reached = f"{len(compared) - len(worse)} of {len(compared)}" + "".join(f"; not {name}" for name in worse)
            self.verdicts.append(Verdict(bar, "every case", reached, not worse))


def _against(results: list[Result], peer: str | None = None) -> dict[str, float | None]:
    """How many times faster than a peer, or than the best one, by case."""
    return {result.case.name: result.ratio(peer or result.best_peer) for result in results}


def judge(results: list[Result], isa: str, ceilings: dict[str, Any] | None, cache: int) -> list[Verdict]:
    """The verdicts on a run with the kernels of an instruction set; `cache` is the size of the last level."""
    sheet = _Sheet(results, isa)
    _attention(sheet)
    training = sheet.select("training")
    sheet.at_least("attention forward and backward / torch", _against(training, "torch"), mean=2.0, each=1.3)
    sheet.no_worse_than_torch("attention gradients: RMS error at most torch's", training)
    _decode(sheet, ceilings, cache)
    _linear(sheet, ceilings, isa)
    rows = [*sheet.select("rows"), *sheet.select("rows", "bfloat16")]
    sheet.at_least("row kernels / torch", _against(rows, "torch"), each=1.0)
    for label, operation, limit in (("C", "attention_from_c", 2.0), ("Python", "attention", 15.0)):
        call = sheet.find(lambda case: case.group == "small" and case.operation == operation)
        sheet.at_most(f"attention over 16 keys from {label}", call and call.ours.seconds * 1e6, limit, " µs")
    return sheet.verdicts


def _attention(sheet: _Sheet) -> None:
    exact = sheet.select("attention")
    sheet.at_least("attention float32 / best peer", _against(exact), mean=2.0, each=1.3, isa="amx")
    sheet.at_least("attention float32 / best peer", _against(exact), mean=1.3, isa="avx512")
    sheet.no_worse_than_torch("attention float32: RMS error at most torch's", exact)
    seconds = {result.case.data: result.ours.seconds for result in exact}
    gains = {
        result.case.name: seconds[result.case.data] / result.ours.seconds
        for result in sheet.select("attention", precision="high")
        if result.case.data in seconds
    }
    sheet.at_least("attention float32 high / our highest", gains, each=1.3, isa="amx")
    half = _against(sheet.select("attention", "bfloat16"))
    sheet.at_least("attention bfloat16 / best peer", half, mean=2.0, each=1.3, isa="amx")
    half = _against(sheet.select("attention", "float16"))
    sheet.at_least("attention float16 / best peer", half, mean=3.0, isa="amx")
    plain = of_length(4096, "float32").data
    long = {
        causal: sheet.find(lambda case: case.data == replace(plain, causal=causal) and case.precision == "highest")
        for causal in (False, True)
    }
    if all(long.values()):
        share = long[True].ours.seconds / long[False].ours.seconds
        sheet.at_most("attention float32, 4096 keys: causal / not causal", share, 0.6)


def _decode(sheet: _Sheet, ceilings: dict[str, Any] | None, cache: int) -> None:
    results = [result for dtype in ("float32", "bfloat16", "float16") for result in sheet.select("decode", dtype)]
    sheet.at_least("decode / best peer", _against(results), each=1.5, isa="amx")
    if ceilings:
        bandwidth = ceilings["memory"][ceilings["beyond_cache"]]["read"]
        shares = {
            result.case.name: result.case.bytes / result.ours.seconds / bandwidth
            for result in results
            if result.case.kv_bytes > cache
        }
        sheet.at_least("decode beyond the last cache / read bandwidth", shares, each=0.85)


def _linear(sheet: _Sheet, ceilings: dict[str, Any] | None, isa: str) -> None:
    exact = sheet.select("linear")
    large = [result for result in exact if result.case.flops >= LARGE_LINEAR]
    sheet.at_least("linear float32, 1024³ and larger / torch", _against(large, "torch"), each=1.8, isa="amx")
    sheet.at_least("linear float32 / torch", _against(exact, "torch"), each=1.0, isa="amx")
    sheet.at_least("linear float32 / torch", _against(exact, "torch"), each=0.95, isa="avx512")
    sheet.no_worse_than_torch("linear float32: RMS error at most torch's", exact)
    half = _against(sheet.select("linear", "bfloat16"))
    sheet.at_least("linear bfloat16 / best peer", half, mean=1.1, each=0.9, isa="amx")
    square = [result for result in exact if result.case.shape == (1024, 1024, 1024)]
    if ceilings and isa == "avx2":
        peak = ceilings["peaks"]["fma_256"]
        shares = {result.case.name: result.case.flops / result.ours.seconds / peak for result in square}
        sheet.at_least("linear float32 1024³ / FMA peak of AVX2", shares, each=0.7)
