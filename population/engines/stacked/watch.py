"""Warns when a member trains with other hyperparameters than it was assigned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from population.base.log_once import Notice, Notices
from population.engines.stacked.member import MemberFunctions
from population.engines.stacked.stack import Stack
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
        stack: Holds fresh states of all its members.
        metas: By worker id, the meta_params from which `init` made them.
    """

    def __init__(
        self,
        notices: Notices,
        member: MemberFunctions,
        stack: Stack,
        metas: Sequence[Any],
    ) -> None:
        self._notices = notices
        self._numbers = member.injected
        self._last = self._columns(stack)
        self._rows = stack.rows  # Those of the last round.
        self._ids: Sequence[str] = ()  # None before the first round.
        said = set()
        for w in stack.rows.worker_ids[:_MOST]:
            held = [
                number._replace(leaf=column[w])
                for (_, number), column in zip(self._numbers, self._last, strict=True)
            ]
            for notice in findings.found(
                f"worker {w}", metas[w], held, lambda _: member.moving
            ):
                notices.say(notice)
                said.add(notice.key)
        unused = [name for name in member.unused if name not in said]
        if unused:
            notices.say(Notice("no effect", "", _UNUSED.format(unused)))

    def trained(
        self, stack: Stack, active: Collection[int], slots: Sequence[SlotWork]
    ) -> None:
        """Warn of hyperparameters that a round has changed.

        Args:
            stack: The states, after the round.
            active: The slots that were trained.
            slots: The work of all slots. A generation that has just begun is compared
                only in the first round, which begins with fresh states.
        """
        ids = [slot.generation_id for slot in slots]
        before, self._last = self._last, self._columns(stack)
        known, rows = self._ids or ids, self._rows
        checked = sorted(active)[:_MOST]
        same = [w for w in checked if w in rows and known[w] == ids[w]]
        self._ids, self._rows = ids, stack.rows
        for (_, number), old, new in zip(
            self._numbers, before, self._last, strict=True
        ):
            if number.driven or np.array_equal(old[same], new[same]):
                continue
            for w in same:
                put: Number = number._replace(leaf=old[w])
                meta_params = slots[w].meta_params
                for notice in findings.changed(f"worker {w}", meta_params, put, new[w]):
                    self._notices.say(notice)

    def _columns(self, stack: Stack) -> list[npt.NDArray[Any]]:
        return stack.columns([place for place, _ in self._numbers])
