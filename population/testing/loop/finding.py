"""The findings of `check_loop`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

NO_EFFECT = "no effect"
COMPILES_AGAIN = "compiles again"
LOST = "lost on restore"
DONATED = "donated buffer kept"
CONSTANT_KEY = "constant key"
PARAMS = "params do not come back"
NOT_TRAINING = "nothing trains"
NAN = "not a number"
KINDS = (
    NOT_TRAINING,
    NAN,
    NO_EFFECT,
    LOST,
    COMPILES_AGAIN,
    CONSTANT_KEY,
    DONATED,
    PARAMS,
)


class Finding(NamedTuple):
    """Something that is wrong with a training loop.

    Attributes:
        kind: One of the kinds that `docs/checking-a-loop.md` lists.
        place: A hyperparameter, a place in the state, `init` or `step`.
        message: The mistake that was seen, and the change to make.
    """

    kind: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.place}\n  {self.message}"


class LoopReport(tuple[Finding, ...]):
    """All findings, the most serious first; empty, and so false, if nothing is wrong.

    Attributes:
        notes: Checks that could not be made, and remarks that are not mistakes.
    """

    notes: tuple[str, ...]

    def __new__(
        cls, findings: Iterable[Finding] = (), notes: Iterable[str] = ()
    ) -> LoopReport:
        """Return a report of these findings, in order and without repetition."""
        each = sorted(dict.fromkeys(findings), key=lambda f: KINDS.index(f.kind))
        report = super().__new__(cls, each)
        report.notes = tuple(dict.fromkeys(notes))
        return report

    def __str__(self) -> str:
        lines = [str(finding) for finding in self] or ["Nothing wrong was found."]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
