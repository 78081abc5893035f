"""Plays all scripts, and looks for broken promises and mistakes, in order."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence, Set

from population.base.types import Branch
from population.testing.breach import Breach
from population.testing.broken import BrokenPromise
from population.testing.growth import untested
from population.testing.mistakes import MISTAKES, Mistake, decisions, moves_of
from population.testing.promises import PROMISES
from population.testing.ranked import (
    CLEAR,
    ranked_scripts,
    ranked_scripts_with_gap,
    ranked_scripts_with_nan,
)
from population.testing.report import LikelyMistake, MutatorReport, Tried
from population.testing.runner import Case, ScriptEvent
from population.testing.scripts import (
    long_scripts,
    many_rounds,
    one_round,
    scripts,
    scripts_with_gap,
)
from population.testing.shrink import shrink

BRANCHES = "branches now and then"
_NO_BRANCH = (
    "It never branched nor retired a slot, so little was tested. Let it decide every 3 "
    "steps or so, or pass branches=False if it never does."
)
Find = Callable[[Case], Breach | None]


@dataclasses.dataclass
class Check:
    """The check of a mutator.

    Attributes:
        first: A case without events.
        script: The only script to play, or None.
        allowed: The kinds of mistakes that are allowed.
    """

    first: Case
    script: Sequence[ScriptEvent] | None
    allowed: frozenset[str]

    def run(self, *, branches: bool) -> MutatorReport:
        """Check all promises, and return the likely mistakes.

        Args:
            branches: Whether the mutator ever branches or retires slots.

        Raises:
            BrokenPromise: The mutator breaks one, or never branches.
        """
        for promise in PROMISES:
            for case in self.cases[promise.kind]:
                found = promise.find(case)
                if found is not None:
                    script, found = _shortest(promise.find, case, found)
                    case = dataclasses.replace(case, script=script)
                    raise self._broken(promise.sentence, found, case) from found.error
        usual = self.cases["usual"]
        if branches and self.script is None:
            if not any(case.plain.decisions for case in usual):
                raise self._broken(BRANCHES, Breach(_NO_BRANCH, 0), self.first)
        mistakes = list(self.mistakes(shortest=True))
        return MutatorReport(
            [mistake for mistake in mistakes if mistake.kind not in self.allowed],
            self._tried(),
            [mistake for mistake in mistakes if mistake.kind in self.allowed],
            filter(None, [untested(self.first)]),
        )

    @functools.cached_property
    def cases(self) -> dict[str, list[Case]]:
        """The cases of each kind of script."""
        metas, seed = self.first.population, self.first.seed
        size = len(metas)
        several, away = size > 1, size > 2
        played = {
            "usual": scripts(size, seed),
            "gap": [s for w in {0, size - 1} for s in scripts_with_gap(size, w, seed)],
            "ranked": ranked_scripts(size, seed) if several else [],
            "nan": list(ranked_scripts_with_nan(size)) if several else [],
            "away": list(ranked_scripts_with_gap(size)) if away else [],
            "long": long_scripts(size, seed),
            "idle": [one_round(1)],
            "round": [one_round(10)],
            "history": [many_rounds(seed)],
        }
        if self.script is not None:
            only = [self._case(self.script)]
            return dict.fromkeys(played, only)
        cases = {kind: [self._case(s) for s in some] for kind, some in played.items()}
        alone = dataclasses.replace(self.first, population=metas[:1])
        if several and not alone.plain.refused:
            cases["usual"] += [
                dataclasses.replace(alone, script=events)
                for events in scripts(1, seed)[::4]
            ]
        return cases

    def _case(self, script: Sequence[ScriptEvent]) -> Case:
        return dataclasses.replace(self.first, script=tuple(script))

    def mistakes(self, *, shortest: bool = True) -> Iterator[LikelyMistake]:
        """Yield the first mistake of each kind.

        Args:
            shortest: Whether to look for the smallest script that shows it.
        """
        known = set[str]()
        for mistake in MISTAKES:
            for case in self._cases_of(mistake, known):
                found = mistake.find(case)
                if found is not None:
                    known.add(mistake.kind)
                    script, metas = case.script, tuple(case.population)
                    if shortest and mistake.kind not in self.allowed:
                        script, found = _shortest(mistake.find, case, found)
                    yield LikelyMistake(
                        mistake.kind, found.seen, script, metas, case.seed
                    )

    def _cases_of(self, mistake: Mistake, known: Set[str]) -> Iterator[Case]:
        """Yield the cases in which a mistake is looked for, until it is known."""
        for kind in mistake.scripts:
            for case in self.cases[kind]:
                follows = mistake.follows(known, self.allowed)
                if mistake.kind not in known and not follows:
                    yield case

    def _tried(self) -> Tried:
        ranked = [c for kind in ("ranked", "nan", "away") for c in self.cases[kind]]
        judged = [s for case in ranked for s in case.once(decisions)]
        copied = [
            move
            for seen in judged
            for move in seen.moves
            if move.is_copy and seen.is_clear(CLEAR)
        ]
        moves = [m for case in self.cases["usual"] + ranked for m in moves_of(case)]
        branches = [m for m in moves if isinstance(m.decision, Branch)]
        runs = [case.plain.states for case in self.cases["usual"]]
        changed = [
            len(new)
            for states in runs
            for old, new in itertools.pairwise(["", *states])
            if new != old
        ]
        events = sum(map(len, runs))
        return Tried(
            events,
            sum(m.is_copy for m in branches),
            sum(m.is_own for m in branches),
            sum(m.point is None for m in branches),
            len(moves) - len(branches),
            len(copied),
            max(changed, default=0),
            sum(changed) / max(events, 1),
        )

    def _broken(self, sentence: str, found: Breach, case: Case) -> BrokenPromise:
        mistakes = [
            mistake
            for mistake in self.mistakes(shortest=False)
            if mistake.kind not in self.allowed
        ]
        return BrokenPromise(
            type(self.first.make()).__name__,
            sentence,
            found.seen,
            case.script,
            case.population,
            case.seed,
            mistakes,
        )


def _shortest(
    find: Find, case: Case, found: Breach
) -> tuple[tuple[ScriptEvent, ...], Breach]:
    """Return the smallest script that still breaks the promise, and what it shows."""
    findings = {case.script: found}

    def breaks(script: tuple[ScriptEvent, ...]) -> bool:
        again = find(dataclasses.replace(case, script=script))
        if again is not None:
            findings[script] = again
        return again is not None

    script = case.script[: found.position + 1]
    if script not in findings and not breaks(script):
        script = case.script
    shortest = shrink(script, breaks, lambda one, two: one.joined(two))
    return shortest, findings[shortest]
