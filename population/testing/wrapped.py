"""A mutator that calls another one; the kit's observers derive from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Failure, Report, Retire

Decided = tuple[Any, Mapping[int, Branch | Retire]]


class WrappedMutator(Mutator[Any]):
    """Returns what another mutator returns.

    Args:
        mutator: The other mutator.
    """

    def __init__(self, mutator: Mutator[Any]) -> None:
        self._mutator = mutator
        self.divergence_fails = mutator.divergence_fails

    def init(self, view: PopulationView) -> Any:
        """Return the other mutator's first state."""
        return self._mutator.init(view)

    def update(self, state: Any, report: Report, view: PopulationView) -> Decided:
        """Return the other mutator's decision."""
        return self._mutator.update(state, report, view)

    def failed(self, state: Any, failure: Failure, view: PopulationView) -> Decided:
        """Return the other mutator's decision."""
        return self._mutator.failed(state, failure, view)

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """Return the other mutator's `first`."""
        return self._mutator.first(worker_id, step, meta_params)

    def wait_at(self, state: Any, worker_id: int, view: PopulationView) -> int | None:
        """Return the other mutator's `wait_at`."""
        return self._mutator.wait_at(state, worker_id, view)
