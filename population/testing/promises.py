"""The promises of a mutator, and how each is checked in a run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from population.testing import draws, noise, prices, watched
from population.testing.breach import Breach
from population.testing.growth import growth
from population.testing.observed import Observations, ObservedMutator
from population.testing.runner import Case, Played, ScriptRunner
from population.testing.script import (
    Fails,
    GivenUp,
    ScriptedReport,
    absent,
    negated,
)

_SHORT = 12  # Events: scripts as short are played more often, where chance matters.
_AGAIN = 24
_TOKENS = (
    "0ddba1",
    "bada55",
    "c0ffee",
    "decade",
    "facade",
    "fee1ed",
    "5eed42",
    "ba5e17",
)


class Promise(NamedTuple):
    """Something that every mutator does.

    Attributes:
        sentence: The promise, without its subject.
        kind: The kind of scripts that test it: "usual", "gap", "long", "idle", "round"
            or "history".
        find: Plays a case, and returns how the promise was broken, or None.
    """

    sentence: str
    kind: str
    find: Callable[[Case], Breach | None]


class Watched(NamedTuple):
    """What is seen when each call of a mutator is watched.

    Attributes:
        breaches: The promises that are broken.
        decisions: The decisions.
    """

    breaches: watched.Breaches
    decisions: Observations


def guarded(promise: str) -> Callable[[Case], Breach | None]:
    """Return the check of a promise that `WatchedMutator` watches at each call."""

    def find(case: Case) -> Breach | None:
        found = case.once(watch).breaches.get(promise)
        return None if found is None else Breach(found[1], found[0])

    return find


def watch(case: Case) -> Watched:
    """Return what is seen when each call of the mutator is watched."""
    breaches, found = watched.Breaches(), Observations()

    def make() -> ObservedMutator:
        mutator = case.make()
        watcher = watched.WatchedMutator(mutator, breaches)
        return ObservedMutator(mutator, found, draws.are_alike, watcher)

    found.run = breaches.run = ScriptRunner(case, make=make)
    breaches.run.run()
    return Watched(breaches, found)


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


def order_of_sets(case: Case) -> Breach | None:
    """Check that a run does not depend on the hashes of its generation ids."""
    if not case.once(varies):
        return None
    few = 1 if len(case.script) > _SHORT // 2 else None
    for token in _TOKENS[:few]:
        other = ScriptRunner(case, token=token).run()
        found = _difference(case.plain, other, "with other generation ids")
        if found is not None:
            # Something else may differ from run to run; by chance two are often equal.
            for _ in range(_AGAIN):
                again = ScriptRunner(case).run()
                if _difference(case.plain, again, "") is not None:
                    return None
            why = (
                "The order of strings, or of Refs, in a set or in dict keys made of "
                "one differs in each process. Sort them by worker id and step before "
                "choosing or drawing."
            )
            return found._replace(seen=f"{found.seen} {why}")
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
    found = _difference(_unexplained(case.plain), _unexplained(other), how)
    if found is None:
        return None
    why = (
        "Compare view.score(checkpoint) or view.scores, where lower is better in each "
        "mode, and not checkpoint.value."
    )
    return found._replace(seen=f"{why} {found.seen}")


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
    failed = ""
    if isinstance(case.script[position], Fails):
        failed = (
            "`failed` has branched a slot to where the others wait, or retired it. "
        )
    seen = (
        f"{failed}Then all workers wait, at the steps {list(waits)}, and none is left "
        "to report a later one. The next end of a round lies beyond the furthest slot, "
        "as end_after(reached, steps) of population.mutators.rounds returns it, and "
        "view.ready, not view.steps, says who is at the end."
    )
    return Breach(seen, position)


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
        other = ScriptRunner(
            case, restarts=True, times=3, noise_seed=2, token=_TOKENS[0]
        ).run()
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


PROMISES: Sequence[Promise] = (
    Promise(watched.STORABLE, "usual", guarded(watched.STORABLE)),
    Promise("takes any reports without an exception", "usual", raises),
    Promise(watched.ARGUMENTS, "usual", guarded(watched.ARGUMENTS)),
    Promise("does not depend on the order of strings in a set", "usual", order_of_sets),
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
    Promise("does not look at every worker at every report", "idle", prices.idle_cost),
    Promise("decides at a cost per report that is bounded", "round", prices.mean_cost),
    Promise(
        "writes and computes little at a report that branches nothing",
        "idle",
        prices.state_cost,
    ),
    Promise(
        "does no work, and holds nothing, that grows with the history",
        "history",
        prices.history_cost,
    ),
)
