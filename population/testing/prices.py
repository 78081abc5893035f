"""The promises about what a report costs: in large populations, and late in a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from population.testing.breach import Breach
from population.testing.cost import Cost, Count, cost_of, mean, median
from population.testing.runner import Case
from population.testing.script import AllReport

_FEW, _SOME, _MANY = 16, 64, 256
_LATE = 24  # Workers of the runs in which early and late reports are compared.
_EARLY = range(4, 8)  # The rounds of the early ones.
_ARRAYS = 4 * 2**20  # Bytes that no report should need.


class Price(NamedTuple):
    """A field of `Count`, and how much more it may be.

    Attributes:
        field: The field.
        words: The field in words.
        factor: How many times as much it may be.
        slack: How much may be added to that.
    """

    field: str
    words: str
    factor: float
    slack: float

    def is_dearer(self, low: float, high: float) -> bool:
        """Whether a price is too high, compared with another one."""
        return high > self.factor * low + self.slack


_IDLE = (
    Price("opcodes", "Python instructions in update", 1.5, 60),
    Price("statements", "SQL statements", 1.5, 2),
)
_ROUND = (
    Price("opcodes", "Python instructions in update", 2.5, 60),
    Price("statements", "SQL statements", 2.5, 2),
)
_UNDECIDED = (
    Price("written", "bytes of the state that are written", 1.5, 3_000),
    # An array with an entry for each worker may have 16 times as many here.
    Price("touched", "bytes allocated, or gone through by C code", 24, 60_000),
)
_HISTORY = (
    Price("opcodes", "Python instructions in update", 1.5, 150),
    Price("touched", "bytes allocated, or gone through by C code", 1.5, 3_000),
    Price("held", "bytes in the attributes of the mutator", 1.5, 3_000),
)


def idle_cost(case: Case) -> Breach | None:
    """Check that a report without a decision costs no more in a larger population."""
    small, large = _costs(case, _FEW, _MANY)
    what = "a report that decides nothing"
    return _dearer(case, _IDLE, _MANY, what, small.idle, large.idle)


def mean_cost(case: Case) -> Breach | None:
    """Check that the mean report of a round costs no more in a larger population."""
    small, large = _costs(case, _FEW, _SOME)
    what = "a report in the mean"
    return _dearer(case, _ROUND, _SOME, what, small.counts, large.counts)


def state_cost(case: Case) -> Breach | None:
    """Check what a report without a branch writes, and does in C."""
    small, large = _costs(case, _FEW, _MANY)
    what = "a report that branches nothing"
    why = (
        "Keep in the state only what decisions need, and return the same object while "
        "no decision is due: a state that has changed is written with the report. "
        "Compare no pairs of workers."
    )
    return _dearer(
        case, _UNDECIDED, _MANY, what, small.undecided, large.undecided, why
    ) or _huge(case, large)


def history_cost(case: Case) -> Breach | None:
    """Check that late reports that branch nothing cost no more than early ones."""
    rounds = len(case.script)
    if not all(isinstance(event, AllReport) for event in case.script) or rounds < 16:
        return None
    late = range(rounds - len(_EARLY), rounds)
    case = _resized(case, _LATE)
    cost = cost_of(case, lambda position: position in _EARLY or position in late)
    half = len(cost.counts) // 2
    early, after = (
        [count for count in part if not count.branched]
        for part in (cost.counts[:half], cost.counts[half:])
    )
    if cost.played.refused or not early or not after:
        return None
    # A window that is not full yet may hold more.
    prices = [p._replace(slack=p.slack + 128 * case.bounded) for p in _HISTORY]
    for price in prices:
        low, high = median(early, price.field), median(after, price.field)
        if price.is_dearer(low, high):
            seen = (
                f"With {_LATE} workers a report in the first rounds that branches "
                f"nothing costs {low:.0f} {price.words}, one of round {rounds} "
                f"{high:.0f}. Do not go through the history, nor collect it in the "
                "object: view.last(k) has the last reports of each worker. If it is "
                "a window that is full later, pass bounded=N, the most items that it "
                "will hold."
            )
            return Breach(seen, rounds - 1)
    return _huge(case, cost)


def _huge(case: Case, cost: Cost) -> Breach | None:
    """Check that most reports that branch nothing use no huge arrays."""
    counts = cost.undecided
    if not counts or median(counts, "touched") <= _ARRAYS:
        return None
    seen = (
        f"A report that branches nothing allocates, or C code goes through, "
        f"{median(counts, 'touched'):.0f} bytes. Do such work only for a decision, "
        "when the slot's interval is over."
    )
    return Breach(seen, len(case.script) - 1)


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
    average = median if prices is _IDLE else mean
    for price in prices:
        low, high = average(small, price.field), average(large, price.field)
        if price.is_dearer(low, high):
            seen = (
                f"With {_FEW} workers {what} costs {low:.0f} {price.words}, with "
                f"{many} workers {high:.0f}. {why}"
            )
            return Breach(seen.rstrip(), len(case.script) - 1)
    return None


def _costs(case: Case, few: int, many: int) -> tuple[Cost, Cost]:
    """Return the costs in a small and in a large population; none if one is refused."""
    nothing = Cost(case.plain, [])
    if not any(isinstance(event, AllReport) for event in case.script):
        return nothing, nothing
    small, large = (case.once(_BY_SIZE[size]) for size in (few, many))
    if small.played.refused or large.played.refused:
        return nothing, nothing  # `init` refuses a population of this size.
    return small, large


def _resized(case: Case, size: int) -> Case:
    some = case.population
    metas = [some[i % len(some)] for i in range(size)]
    return dataclasses.replace(case, population=metas)


def _small(case: Case) -> Cost:
    return cost_of(_resized(case, _FEW))


def _medium(case: Case) -> Cost:
    return cost_of(_resized(case, _SOME))


def _large(case: Case) -> Cost:
    return cost_of(_resized(case, _MANY))


_BY_SIZE = {_FEW: _small, _SOME: _medium, _MANY: _large}
