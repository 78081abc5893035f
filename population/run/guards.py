"""Ends a run whose loops would never end by themselves, or warns of it."""

from __future__ import annotations

import math

from population.core.decisions import Decider
from population.core.graph import JournalGraph
from population.core.leases import LeaseRules
from population.journal.base import Journal
from population.run.idle import Idle
from population.run.setbacks import SetBacks
from population.run.unmet import Unmet


class Guards:
    """The guards of an open run.

    Args:
        journal: Records the run.
        graph: All checkpoints.
        decider: Calls the mutator; decides which slots wait.
        leases: The rules of leases.

    Attributes:
        set_backs: Ends a run in which no member makes progress.
        unmet: Refuses reports if a slot never has a value and a state at one step.
        idle: Warns of loops that poll but never get new work.
    """

    def __init__(
        self,
        journal: Journal,
        graph: JournalGraph,
        decider: Decider,
        leases: LeaseRules,
    ) -> None:
        self.set_backs = SetBacks(journal, graph, decider, leases)
        self.unmet = Unmet(decider.decision_at)
        self.idle = Idle(decider.wait_at)

    def end_nothing(self) -> None:
        """Switch off the guards that raise: a script or a budget ends the run."""
        self.set_backs.tries = self.set_backs.circles = self.unmet.most = math.inf
