"""The promises about what a report costs: in large populations, and late in a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from population.testing.breach import Breach
from population.testing.cost import Cost, Count, cost_of, mean, median
from population.testing.runner import Case
from population.testing.script import AllReport

_FEW, _SOME, _MANY = 16, 64, 256
_LATE = 24  # Workers of the runs in which early and late reports are compared.
_EARLY = range(3, 8)  # The rounds of the early ones; the last so many are late.
_MIDDLE = range(14, 19)
# Bytes of a state that a report may write, and as many for each worker.
_WRITTEN, _WRITTEN_EACH = 4_096, 256
_ARRAYS = 4 * 2**20  # Bytes that no report should need.


class Price(NamedTuple):
    """A field of `Count`, and how much more it may be.

    Attributes:
        field: The field.
        words: The field in words.
        factor: How many times as much it may be.
        slack: How much may be added to that.
        average: The average of the reports that are compared.
    """

    field: str
    words: str
    factor: float
    slack: float
    average: Callable[[Sequence[Count], str], float] = median

    def is_dearer(self, low: float, high: float) -> bool:
        """Whether a price is too high, compared with another one."""
        return high > self.factor * low + self.slack


_IDLE = (
    Price("opcodes", "Python instructions in update and wait_at", 1.5, 60),
    Price("statements", "SQL statements", 1.5, 2),
)
_ROUND = (
    Price("opcodes", "Python instructions in update and wait_at", 2.5, 60, mean),
    Price("statements", "SQL statements", 2.5, 2, mean),
)
_UNDECIDED = (
    # An array with an entry for each worker may have 16 times as many here.
    Price("touched", "bytes allocated, or gone through by C code", 24, 60_000),
)
_HISTORY = (
    Price("opcodes", "Python instructions in update and wait_at", 1.5, 150),
    Price("touched", "bytes allocated, or gone through by C code", 1.5, 3_000),
    Price("held", "bytes in the attributes of the mutator", 1.5, 3_000),
)


def idle_cost(case: Case) -> Breach | None:
    """Check that a report without a decision costs no more in a larger population."""
    small, large = _costs(case, _few_idle, _many_idle)
    what = "a report that decides nothing"
    return _dearer(case, _IDLE, _MANY, what, small.idle, large.idle)


def mean_cost(case: Case) -> Breach | None:
    """Check that the mean report of a round costs no more in a larger population."""
    small, large = _costs(case, _small_round, _large_round)
    what = "a report in the mean"
    return _dearer(case, _ROUND, _SOME, what, small.counts, large.counts)


def state_cost(case: Case) -> Breach | None:
    """Check what a report without a branch writes, and does in C."""
    if any(isinstance(event, AllReport) for event in case.script):
        found = _huge(case, case.once(_few_idle), _FEW)
        if found is not None:
            return found
    small, large = _costs(case, _few_idle, _many_idle)
    what = "a report that branches nothing"
    why = "Compare no pairs of workers, and do such work only when a decision is due."
    return _dearer(
        case, _UNDECIDED, _MANY, what, small.undecided, large.undecided, why
    ) or _huge(case, large, _MANY)


def history_cost(case: Case) -> Breach | None:
    """Check that late reports that branch nothing cost no more than early ones."""
    rounds = len(case.script)
    if not all(isinstance(event, AllReport) for event in case.script) or rounds < 24:
        return None
    case = _resized(case, _LATE)
    early = _during(case, _EARLY)
    late = _during(case, range(rounds - len(_EARLY), rounds))
    if late.played.refused or not early.undecided or not late.undecided:
        return None
    # A report that ends a round costs more; those in which nothing changes do not.
    idle = bool(early.idle and late.idle)
    # A window that is not full yet may hold more.
    prices = [p._replace(slack=p.slack + 128 * case.bounded) for p in _HISTORY]
    for price in prices:
        low, high = (_mean(cost, price, idle) for cost in (early, late))
        # What depends on how far the slots are apart may cost more at times.
        if price.is_dearer(low, high) and _grows(case, price, high, idle):
            seen = (
                f"With {_LATE} workers a report in the first rounds that branches "
                f"nothing costs {low:.0f} {price.words}, one of the last of {rounds} "
                f"rounds {high:.0f}. Do not go through the history, nor collect it in "
                "the object: view.last(k) has the last reports of each worker. If it "
                "is a window that is full later, pass bounded=N, the most items that "
                "it will hold."
            )
            return Breach(seen, rounds - 1)
    return _huge(case, late, _LATE)


def _during(case: Case, rounds: range) -> Cost:
    """Return the cost of the reports of some rounds."""
    script = case.script[: rounds.stop]
    return cost_of(dataclasses.replace(case, script=script), rounds.__contains__)


def _mean(cost: Cost, price: Price, idle: bool) -> float:
    """Return the mean of nine tenths: the dearest may have looked for a late slot."""
    counts = cost.idle if idle else cost.undecided
    cheap = sorted(counts, key=lambda count: getattr(count, price.field))
    return mean(cheap[: math.ceil(0.9 * len(cheap))], price.field)


def _grows(case: Case, price: Price, high: float, idle: bool) -> bool:
    """Whether late reports cost more than those in the middle of the run, too."""
    middle = _during(case, _MIDDLE)
    known = middle.idle if idle else middle.undecided
    return bool(known) and high > 1.2 * _mean(middle, price, idle)


def _huge(case: Case, cost: Cost, size: int) -> Breach | None:
    """Check that reports that branch nothing write and use no huge amounts."""
    counts = cost.undecided
    if not counts or cost.played.refused:
        return None
    seen, written = "", mean(counts, "written")
    if written > _WRITTEN + _WRITTEN_EACH * size + 64 * case.bounded:
        seen = (
            f"With {size} workers a report that branches nothing writes {written:.0f} "
            "bytes of the state in the mean: a state that has changed is written with "
            "the report. Return the same object while no decision is due. What never "
            "changes belongs into the constructor; view.last(k) has the last scores of "
            "each worker. If it is a window or a hall of fame, pass bounded=N, the "
            "most items that it will hold."
        )
    elif median(counts, "touched") > _ARRAYS:
        seen = (
            f"With {size} workers a report that branches nothing allocates, or C code "
            f"goes through, {median(counts, 'touched'):.0f} bytes. Do such work only "
            "for a decision, when the slot's interval is over."
        )
    return Breach(seen, len(case.script) - 1) if seen else None


def _dearer(
    case: Case,
    prices: Sequence[Price],
    many: int,
    what: str,
    small: Sequence[Count],
    large: Sequence[Count],
    why: str = "",
) -> Breach | None:
    """Check that with many workers reports cost not much more, if there are any."""
    if not small or not large:
        return None
    for price in prices:
        low, high = price.average(small, price.field), price.average(large, price.field)
        if price.is_dearer(low, high):
            seen = (
                f"With {_FEW} workers {what} costs {low:.0f} {price.words}, with "
                f"{many} workers {high:.0f}. {why}"
            )
            return Breach(seen.rstrip(), len(case.script) - 1)
    return None


def _costs(
    case: Case, few: Callable[[Case], Cost], many: Callable[[Case], Cost]
) -> tuple[Cost, Cost]:
    """Return the costs in a small and in a large population; none if one is refused."""
    nothing = Cost(case.plain, [])
    if not any(isinstance(event, AllReport) for event in case.script):
        return nothing, nothing
    small, large = case.once(few), case.once(many)
    if small.played.refused or large.played.refused:
        return nothing, nothing  # `init` refuses a population of this size.
    return small, large


def _resized(case: Case, size: int) -> Case:
    some = case.population
    metas = [some[i % len(some)] for i in range(size)]
    return dataclasses.replace(case, population=metas)


def _few_idle(case: Case) -> Cost:
    return cost_of(_resized(case, _FEW))


def _many_idle(case: Case) -> Cost:
    return cost_of(_resized(case, _MANY))


def _small_round(case: Case) -> Cost:
    return cost_of(_resized(case, _FEW), of_bytes=False)


def _large_round(case: Case) -> Cost:
    return cost_of(_resized(case, _SOME), of_bytes=False)
