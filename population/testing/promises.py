"""The promises of a mutator, and how each is checked in a run."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from population.testing import noise, watched
from population.testing.cost import Cost, cost_of
from population.testing.runner import Case, Played, ScriptRunner
from population.testing.script import (
    AllReport,
    Fails,
    GivenUp,
    ScriptedReport,
    absent,
    negated,
)

_SHORT = 12  # Events: scripts as short are played more often, where chance matters.
_FEW = 16
_NUMBERS = re.compile(r"[\d.]+(e[+-]?\d+)?")


class Breach(NamedTuple):
    """How a promise was broken.

    Attributes:
        seen: The observed behaviour, as text for people.
        position: The index of the event that showed it.
        error: The exception that was raised, or None.
    """

    seen: str
    position: int
    error: Exception | None = None


class Promise(NamedTuple):
    """Something that every mutator does.

    Attributes:
        sentence: The promise, without its subject.
        kind: The kind of scripts that test it: "usual", "gap", "long", "idle" or
            "round".
        find: Plays a case, and returns how the promise was broken, or None.
    """

    sentence: str
    kind: str
    find: Callable[[Case], Breach | None]


def guarded(promise: str) -> Callable[[Case], Breach | None]:
    """Return the check of a promise that `WatchedMutator` watches at each call."""

    def find(case: Case) -> Breach | None:
        found = case.once(watch).get(promise)
        return None if found is None else Breach(found[1], found[0])

    return find


def watch(case: Case) -> watched.Breaches:
    """Return all promises that are broken when each call of the mutator is watched."""
    breaches = watched.Breaches()
    breaches.run = ScriptRunner(
        case, make=lambda: watched.WatchedMutator(case.make(), breaches)
    )
    breaches.run.run()
    return breaches


def unaffected(how: str, **variation: Any) -> Callable[[Case], Breach | None]:
    """Return the check that a run is the same when it is played in another way.

    Args:
        how: The other way, in words.
        **variation: The other way, as arguments of `ScriptRunner`.
    """

    def find(case: Case) -> Breach | None:
        if not case.once(varies):
            return None
        return _difference(case.plain, ScriptRunner(case, **variation).run(), how)

    return find


def raises(case: Case) -> Breach | None:
    """Check that no report raises an exception."""
    error = case.plain.error
    if error is None:
        return None
    seen = f"It raised {type(error).__name__}: {error}"
    return Breach(seen, len(case.plain.outcomes), error)


def random_numbers(case: Case) -> Breach | None:
    """Check that a run does not depend on other random numbers than the view's."""
    if not case.once(varies):
        return None
    first = _leapt(case, 1)
    for number in range(1 if len(case.script) > _SHORT else 24):
        found = _difference(first, _leapt(case, 2 + number), "when run a second time")
        if found is not None:
            return found
    return None


def own_clock(case: Case) -> Breach | None:
    """Check that a run does not depend on other clocks than the view's."""
    if not case.once(varies):
        return None
    how = "while the clocks of the machine leapt"
    return _difference(case.plain, _leapt(case, 1), how)


def modes(case: Case) -> Breach | None:
    """Check that "max" of the negated values decides the same as "min"."""
    mirrored = dataclasses.replace(case, script=negated(case.script))
    other = ScriptRunner(mirrored, mode="max").run()
    how = "in mode 'max' with all values negated"
    return _difference(_unexplained(case.plain), _unexplained(other), how)


def stuck(case: Case) -> Breach | None:
    """Check that live workers never all wait, so that none would report again."""
    if any(isinstance(event, GivenUp) for event in case.script):
        return None
    if not any(limit is not None for o in case.plain.outcomes for limit in o.waits):
        return None
    patient = ScriptRunner(case, patient=True).run()
    if not patient.stuck:
        return None
    position = patient.stuck[0]
    waits = patient.outcomes[position].waits
    return Breach(f"Then all workers wait, at the steps {list(waits)}.", position)


def gaps(case: Case) -> Breach | None:
    """Check that the others get a decision without slots given up or retired."""
    away = absent(case.script)
    if not away or len(away) > len(case.population) - 2:
        return None
    if _others(case.plain, away):
        return None
    last = max(i for i, e in enumerate(case.script) if isinstance(e, (Fails, GivenUp)))
    if len(set(case.plain.states[last:])) > 1:
        return None  # A round was decided, with no branch.
    script = (
        *(
            ScriptedReport(event.worker_id, 20, 0.0, saved=True)
            if isinstance(event, (Fails, GivenUp)) and event.worker_id in away
            else event
            for event in case.script
        ),
        *(ScriptedReport(w, 1, 0.0, saved=True) for w in sorted(away)),
    )
    if not _others(dataclasses.replace(case, script=script).plain, away):
        return None
    seen = (
        "Nothing was decided for the others, which is when the worker that was given "
        "up or retired reports step +20 instead."
    )
    return Breach(seen, len(case.script) - 1)


def growth(case: Case) -> Breach | None:
    """Check that the state does not keep growing; a number counts as one character."""
    sizes = [len(_NUMBERS.sub("0", text)) for text in case.plain.states]
    if len(sizes) < 9:
        return None
    third = len(sizes) // 3
    early, middle, late = (
        max(sizes[start : start + third]) for start in (0, third, len(sizes) - third)
    )
    if late - middle <= max(0, (middle - early) // 2):
        return None
    seen = (
        f"In the three thirds of this run the state had up to {early}, {middle} and "
        f"{late} characters, each number counted as one."
    )
    return Breach(seen, len(case.script) - 1)


def idle_cost(case: Case) -> Breach | None:
    """Check that a report without a decision costs no more in a larger population."""
    return _dearer(case, 256, "a report that decides nothing", Cost.idle, 1.5)


def mean_cost(case: Case) -> Breach | None:
    """Check that the mean report of a round costs no more in a larger population."""
    return _dearer(case, 64, "a report in the mean", Cost.mean, 2.5)


def _leapt(case: Case, noise_seed: int) -> Played:
    """Return the run while all other clocks leap, in the same way every time."""
    mutator = case.make()
    with noise.leaping_clocks(mutator):
        return ScriptRunner(case, make=lambda: mutator, noise_seed=noise_seed).run()


def varies(case: Case) -> bool:
    """Whether anything changes when all that must not matter is varied at once.

    If not, which is usual, this one run is enough; else each is varied by itself.
    """
    if len(case.script) <= _SHORT:
        return True
    with noise.leaping_clocks(case.make()):
        other = ScriptRunner(case, restarts=True, times=3, noise_seed=2).run()
    return _difference(case.plain, other, "") is not None


def _difference(plain: Played, other: Played, how: str) -> Breach | None:
    pairs = itertools.zip_longest(plain.outcomes, other.outcomes)
    for position, (one, two) in enumerate(pairs):
        if one != two:
            end = f"it raised {other.error!r}" if two is None else f"it was: {two}"
            return Breach(f"After the last event: {one}. But {how} {end}.", position)
    return None


def _unexplained(played: Played) -> Played:
    """Return the run without the reasons in its outcomes, which may contain values."""
    outcomes = [outcome.without_reasons() for outcome in played.outcomes]
    return dataclasses.replace(played, outcomes=outcomes)


def _others(played: Played, away: set[int]) -> bool:
    """Whether anything was decided for a worker that is not away."""
    return any(found.worker_id not in away for found in played.decisions)


def _dearer(
    case: Case,
    many: int,
    what: str,
    price: Callable[[Cost], tuple[float, float]],
    factor: float,
) -> Breach | None:
    """Check that with many workers a report costs at most `factor` times as much."""
    if not any(isinstance(event, AllReport) for event in case.script):
        return None
    small, large = _cost(case, _FEW), _cost(case, many)
    if small.played.refused or large.played.refused:
        return None  # `init` refuses a population of this size.
    names = ("Python instructions in update", "SQL statements")
    prices = zip(names, (60, 2), price(small), price(large), strict=True)
    for name, slack, low, high in prices:
        if high > factor * low + slack:
            seen = (
                f"With {_FEW} workers {what} costs {low:.0f} {name}, with {many} "
                f"workers {high:.0f}."
            )
            return Breach(seen, len(case.script) - 1)
    return None


def _cost(case: Case, size: int) -> Cost:
    some = case.population
    metas = [some[i % len(some)] for i in range(size)]
    return cost_of(dataclasses.replace(case, population=metas))


PROMISES: Sequence[Promise] = (
    Promise(watched.STORABLE, "usual", guarded(watched.STORABLE)),
    Promise("takes any reports without an exception", "usual", raises),
    Promise(watched.ARGUMENTS, "usual", guarded(watched.ARGUMENTS)),
    Promise("takes random numbers only from view.rng", "usual", random_numbers),
    Promise("takes the time only from view.now", "usual", own_clock),
    Promise(watched.PURE, "usual", guarded(watched.PURE)),
    Promise(
        "decides the same after a restart at any point",
        "usual",
        unaffected("when restarted before each of these", restarts=True),
    ),
    Promise("never has all live workers wait", "usual", stuck),
    Promise(watched.DIVERGED, "usual", guarded(watched.DIVERGED)),
    Promise(watched.DEAD, "usual", guarded(watched.DEAD)),
    Promise(watched.SAME_OBJECT, "usual", guarded(watched.SAME_OBJECT)),
    Promise(
        "decides once however often a report is delivered",
        "usual",
        unaffected("when each report was delivered three times", times=3),
    ),
    Promise("minds the mode: max of x is min of -x", "usual", modes),
    Promise(
        "closes its rounds without workers that were given up or retired", "gap", gaps
    ),
    Promise("keeps a state that does not grow with the history", "long", growth),
    Promise("does not look at every worker at every report", "idle", idle_cost),
    Promise("decides at a cost per report that is bounded", "round", mean_cost),
)
