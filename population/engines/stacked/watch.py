"""Warns when a member trains with other hyperparameters than it was assigned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from population.base.log_once import Notice, Notices
from population.engines.stacked.member import MemberFunctions
from population.engines.stacked.states import MemberStates
from population.in_force import findings
from population.in_force.injected import Number
from population.run.population_lease import SlotWork

_UNUSED = (
    "{} have no effect: whatever init, step and evaluate do with them, no value "
    "depends on it. Use them in step, or have init put them into the state of an "
    "optimiser that step uses: hyperparams.put(opt_state, meta_params, strict=False)."
)
_MOST = 64  # Members that are checked: `init` treats all members alike.


class InForceWatch:
    """Compares fresh states with meta_params, and each round with the one before.

    Args:
        notices: Logs each warning once.
        member: The user's functions.
        states: Rows that hold fresh states of all members.
        metas: By worker id, the meta_params from which `init` made them.
    """

    def __init__(
        self,
        notices: Notices,
        member: MemberFunctions,
        states: MemberStates,
        metas: Sequence[Any],
    ) -> None:
        self._notices = notices
        self._numbers = member.injected
        self._last = self._columns(states)
        self._ids: Sequence[str] = ()  # None before the first round.
        said = set()
        for row, meta_params in enumerate(metas[:_MOST]):
            held = [
                number._replace(leaf=column[row])
                for (_, number), column in zip(self._numbers, self._last, strict=True)
            ]
            for notice in findings.found(
                f"worker {row}", meta_params, held, lambda _: member.moving
            ):
                notices.say(notice)
                said.add(notice.key)
        unused = [name for name in member.unused if name not in said]
        if unused:
            notices.say(Notice("no effect", "", _UNUSED.format(unused)))

    def trained(
        self, states: MemberStates, rows: Collection[int], slots: Sequence[SlotWork]
    ) -> None:
        """Warn of hyperparameters that a round has changed.

        Args:
            states: The rows, after the round.
            rows: Those that were trained.
            slots: Their slots. A generation that has just begun is compared only in the
                first round, which begins with fresh states.
        """
        ids = [slot.generation_id for slot in slots]
        before, self._last = self._last, self._columns(states)
        known = self._ids or ids
        same = [row for row in sorted(rows)[:_MOST] if known[row] == ids[row]]
        self._ids = ids
        for (_, number), old, new in zip(
            self._numbers, before, self._last, strict=True
        ):
            if number.driven or np.array_equal(old[same], new[same]):
                continue
            for row in same:
                put: Number = number._replace(leaf=old[row])
                meta_params = slots[row].meta_params
                for notice in findings.changed(
                    f"worker {row}", meta_params, put, new[row]
                ):
                    self._notices.say(notice)

    def _columns(self, states: MemberStates) -> list[npt.NDArray[Any]]:
        return states.columns([place for place, _ in self._numbers])
