"""Says when a member of a stack trains with other numbers than it was assigned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy.typing as npt

from population.engines.stacked.bank import Bank
from population.engines.stacked.member import Member
from population.in_force import watch
from population.in_force.injected import Number
from population.once import Said

_MOST = 64  # Members that are looked at: what `init` forgets, it forgets of all.


class Watch:
    """Compares fresh states with meta_params, and the first round with fresh states.

    Args:
        said: What was said of the run.
        member: The user's functions.
        bank: Rows that hold fresh states of all members.
        metas: By worker id, the meta_params of which they were made.
    """

    def __init__(
        self, said: Said, member: Member, bank: Bank, metas: Sequence[Any]
    ) -> None:
        self._said = said
        self._bank = bank
        self._numbers = member.injected
        self._put = self._columns()
        for row, meta_params in enumerate(metas[:_MOST]):
            held = [
                number._replace(leaf=column[row])
                for (_, number), column in zip(self._numbers, self._put, strict=True)
            ]
            told = watch.found(_name(row), meta_params, held, lambda _: member.moving)
            for one in told:
                said.say(one)

    def trained(self, rows: Collection[int]) -> None:
        """Say what the first round has changed in these rows."""
        pairs = zip(self._numbers, self._put, self._columns(), strict=True)
        for (_, number), before, after in pairs:
            for row in [] if number.driven else sorted(rows)[:_MOST]:
                put: Number = number._replace(leaf=before[row])
                for told in watch.changed(_name(row), put, after[row]):
                    self._said.say(told)

    def _columns(self) -> list[npt.NDArray[Any]]:
        return [self._bank.column(place) for place, _ in self._numbers]


def _name(row: int) -> str:
    return f"worker {row}"
