"""What ends a run, or warns, where its loops would go on for ever."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from population.core.setbacks import SetBacks
from population.core.unmet import Unmet
from population.run.idle import Idle

if TYPE_CHECKING:
    from population.run.open_run import Session


class Guards:
    """The guards of a session.

    Args:
        session: The run.

    Attributes:
        set_backs: Ends a run in which no member makes progress.
        unmet: Refuses values and saved states that never meet on one step.
        idle: Warns of polls that never bring news.
    """

    def __init__(self, session: Session) -> None:
        slots, decisions = session.slots, session.decisions

        def may_train(worker_id: int) -> bool:
            held = not session.leases.is_free(worker_id)
            return held and not decisions.waits(worker_id)

        self.set_backs = SetBacks(session.journal, session.graph, slots, may_train)
        self.unmet = Unmet(slots, decisions.decision_at)
        self.idle = Idle(decisions.wait_at)

    def end_nothing(self) -> None:
        """Let everything go on: a script or a budget ends it."""
        self.set_backs.tries = self.set_backs.circles = self.unmet.most = math.inf
