"""Finds a state that keeps growing with the history."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from population.testing.breach import Breach
from population.testing.runner import Case, ScriptEvent, ScriptRunner
from population.testing.script import AllReport, ScriptedReport

_TIMES = 5  # How many times longer a run is played whose state seems to grow.
_SHORTENED = 20  # A script with so few events was made shorter.
_REPORTS = 400  # That run has at least so many.
_MOST = 600  # Events of a run in which a window of the promised size fills.
_TOLERANCE = 0.04  # So much growth is none: numbers have signs and digits.
_NUMBERS = re.compile(r"\d+")


def growth(case: Case) -> Breach | None:
    """Check that the state does not keep growing with the length of a run."""
    sizes = entries(case.plain.states)
    if len(sizes) < 9:
        return None
    third = len(sizes) // 3
    early, middle, late = (
        max(sizes[start : start + third]) for start in (0, third, len(sizes) - third)
    )
    if late - middle <= max(_TOLERANCE * middle, (middle - early) / 2):
        return None
    longer = dataclasses.replace(case, script=_longer(case))
    sizes = entries(ScriptRunner(longer).run().states)
    count = len(sizes)
    if not count or count < 2 * case.bounded:
        return None  # It is not full before that.
    quarter, half, end = (max(sizes[: count // part]) for part in (4, 2, 1))
    # Rungs at ever larger steps, or a window, add no more in the second half.
    if end - half <= max(_TOLERANCE * half, 1.4 * (half - quarter)):
        return None
    seen = (
        f"When this run was played on to {count} events, the state had {quarter} "
        f"entries after a quarter of it, {half} after half and {end} at the end. Keep "
        "only what later decisions need: the view has the rest. If it is a window or a "
        "hall of fame that stops growing later, pass bounded=N, the most items that it "
        "will hold."
    )
    return Breach(seen, len(case.script) - 1)


def untested(case: Case) -> str:
    """Return what cannot be seen of the growth of the state, a sentence; or ""."""
    if 2 * case.bounded <= _MOST:
        return ""
    return (
        f"Whether the state stops growing was not tested: bounded={case.bounded} is "
        f"more than the {_MOST // 2} items that are awaited here. Pass a make_mutator "
        "with a smaller window, and its size as bounded."
    )


def entries(states: Sequence[str]) -> list[int]:
    """Return the number of entries in each state; a long text has one a word."""
    known: dict[str, int] = {}
    for text in states:
        if text not in known:
            known[text] = _entries(json.loads(text)) if text else 0
    return [known[text] for text in states]


def _entries(tree: Any) -> int:
    if isinstance(tree, dict):
        return sum(map(_entries, tree.values())) + sum(
            not k.startswith("!") for k in tree
        )
    if isinstance(tree, list):
        return sum(map(_entries, tree))
    return 1 + len(_NUMBERS.sub("0", tree)) // 16 if isinstance(tree, str) else 1


def _longer(case: Case) -> tuple[ScriptEvent, ...]:
    """Return a script several times as long, with values that have not been there."""
    reports = len(case.script) * len(case.population)
    times = _TIMES
    if len(case.script) > _SHORTENED:
        times = max(times, -(-_REPORTS // reports))
    if case.bounded:
        times = max(times, -(-2 * min(case.bounded, _MOST // 2) // len(case.script)))
    return tuple(_moved(event, k) for k in range(times) for event in case.script)


def _moved(event: ScriptEvent, k: int) -> ScriptEvent:
    if isinstance(event, AllReport):
        values = tuple(None if v is None else v + k / 7 for v in event.values)
        return dataclasses.replace(event, values=values)
    if isinstance(event, ScriptedReport) and event.value is not None:
        return dataclasses.replace(event, value=event.value + k / 7)
    return event
