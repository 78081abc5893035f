"""What `check_mutator` returns: likely mistakes, and what was tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from population.testing.runner import ScriptEvent


class MutatorWarning(UserWarning):
    """A mutator keeps its promises, but makes decisions that hardly anybody means."""


class LikelyMistake(NamedTuple):
    """Decisions that break no promise, but that hardly anybody means.

    Attributes:
        kind: One of the kinds that `docs/testing-a-mutator.md` lists, for `allow`.
        message: What was decided, for which workers, and what to write instead.
        script: The smallest script that shows it.
        population: The first meta_params of each worker.
        seed: The run's seed.
    """

    kind: str
    message: str
    script: tuple[ScriptEvent, ...] = ()
    population: Sequence[Any] = ()
    seed: int = 0

    def __str__(self) -> str:
        where = f"Seen with {len(self.population)} workers, seed {self.seed}:"
        return "\n".join(
            [
                f"{self.kind}: {self.message}",
                f"  {where}",
                *numbered(self.script, "    "),
            ]
        )


class Tried(NamedTuple):
    """What a mutator has decided while it was checked.

    Attributes:
        events: Reports and other events that were sent; a round of all is one event.
        copies: Branches to another member.
        explorations: Branches of a slot from its own lineage.
        restarts: Branches to fresh params.
        retirements: Slots that were retired.
        compared: Copies in runs in which it is clear who is better.
        state_bytes: The size of the largest state, in bytes.
        written_bytes: Bytes of the state that are written at an event, in the mean.
    """

    events: int
    copies: int
    explorations: int
    restarts: int
    retirements: int
    compared: int
    state_bytes: int
    written_bytes: float

    def __str__(self) -> str:
        return (
            f"{self.events} events: {self.copies} copies of another member, "
            f"{self.explorations} branches on the own lineage, {self.restarts} to "
            f"fresh params, {self.retirements} retirements. The state has up to "
            f"{self.state_bytes} bytes; {self.written_bytes:.0f} are written at an "
            "event in the mean."
        )


class MutatorReport(tuple[LikelyMistake, ...]):
    """The likely mistakes of a mutator; empty, and so false, if there are none.

    Attributes:
        allowed: Those that `allow` excuses.
        tried: What the mutator has decided.
        notes: What could not be tested.
    """

    allowed: tuple[LikelyMistake, ...]
    tried: Tried
    notes: tuple[str, ...]

    def __new__(
        cls,
        mistakes: Iterable[LikelyMistake],
        tried: Tried,
        allowed: Iterable[LikelyMistake] = (),
        notes: Iterable[str] = (),
    ) -> MutatorReport:
        """Return a report of these mistakes, in order."""
        report = super().__new__(cls, mistakes)
        report.tried, report.allowed = tried, tuple(allowed)
        report.notes = tuple(notes)
        if not tried.compared:
            report.notes += (
                "No member was copied where it is clear who is better: whether it "
                "copies good ones was not tested.",
            )
        return report

    def __str__(self) -> str:
        lines = [str(mistake) for mistake in self] or ["No mistake was found."]
        allowed = [f"allowed: {m.kind}: {m.message}" for m in self.allowed]
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *allowed, *notes, str(self.tried)])


def numbered(script: Iterable[ScriptEvent], indent: str = "  ") -> list[str]:
    """Return a line for each event of a script."""
    return [f"{indent}{i}. {event}" for i, event in enumerate(script, 1)]
