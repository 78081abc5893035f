"""Puts together what trains a stacked population."""

from __future__ import annotations

import dataclasses
from typing import Any

from population.engines.stacked import arguments, autotune, cache, prefetching
from population.engines.stacked.arguments import Request
from population.engines.stacked.builder import Builder, Made
from population.engines.stacked.columns import Columns
from population.engines.stacked.lease import EngineLease
from population.engines.stacked.member import MemberFunctions
from population.engines.stacked.placement import Placement
from population.engines.stacked.states import MemberStates
from population.engines.stacked.tuner import Tuner
from population.engines.stacked.watch import InForceWatch


@dataclasses.dataclass
class Parts:
    """What trains a stacked population.

    Attributes:
        lease: The run.
        member: The user's functions.
        columns: How meta_params become scalars.
        builder: Makes states and batches.
        tuner: Chooses how the members are batched.
        states: The states.
        placement: Which checkpoint each row holds.
        watch: Warns of hyperparameters that are not in force.
        feed: Brings the batches of a chunk.
    """

    lease: EngineLease
    member: MemberFunctions
    columns: Columns
    builder: Builder
    tuner: Tuner
    states: MemberStates
    placement: Placement
    watch: InForceWatch
    feed: prefetching.Feed

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self.builder.metas)

    @property
    def length(self) -> int:
        """Steps of a chunk."""
        return self.builder.length

    @property
    def chunks(self) -> int:
        """Chunks of a round."""
        return self.builder.steps_per_report // self.length

    def close(self) -> None:
        """Stop preparing batches."""
        self.feed.close()

    def record(self) -> None:
        """Record the way of batching, if it is worth keeping."""
        if self.tuner.keep:
            self.lease.of.record_fact(self.builder.fact, self.tuner.batching)

    def tune(self) -> None:
        """Try other ways of batching if that pays, and switch to a faster one."""
        if not self.tuner.is_due():
            return
        before = self.tuner.batching
        self.feed.close()  # The user's function is called by one thread at a time.
        if self.tuner.choose() != before:
            try:
                self._switch()
            except autotune.IMPOSSIBLE as error:  # There is no room for both stacks.
                self.tuner.stay(before, error)
        self.feed = self.builder.feed(self.tuner.batching, self.length)
        self.record()

    def _switch(self) -> None:
        """Copy all states into rows that are batched in the way that was chosen."""
        states = self.builder.states(self.tuner.batching)
        for row in range(self.size):
            states.put(row, self.states.take(row))
        self._use(states)
        self.placement.use(states)

    def begin_again(self) -> None:
        """Replace the states by fresh ones, batched in another way."""
        self.feed.close()
        self.states.release()
        batching = self.tuner.instead()
        self._use(self.builder.states(batching))
        self.placement = self.builder.placement(self.states)
        self.feed = self.builder.feed(batching, self.length)

    def _use(self, states: Made) -> None:
        self.states.release()
        self.states = states
        self.watch.use(states)


def assemble(lease: EngineLease, request: Request) -> Parts:
    """Make all that a run needs.

    Raises:
        ValueError: The functions, the meta_params or the batches do not fit.
        TypeError: A function is not callable, or batches are not arrays.
    """
    source = request.source
    columns = Columns.of(
        lease.of.firsts(), lease.space, request.categories, request.max_batch
    )
    example = source.example(lease.seed, 0, lease.of.slots()[0].newest.step)
    _check_categories(lease, columns.codes)
    names = {"data": "data", "each": "batches", "shared": "shared_batches"}
    arguments.check_arrays(names[source.kind], example)
    arguments.check_arrays("evaluation", request.evaluation)
    found = cache.programs(
        request.functions, columns, example, request.evaluation, request.keep
    )
    builder = Builder(lease, found, columns, request)
    builder.measure(example)
    tuner = Tuner(lease, found, builder, request.options.batching)
    states = builder.states(tuner.batching)
    _record_categories(lease, columns.codes)  # Only what can be trained is recorded.
    watch = InForceWatch(lease.of.notices, found.member, states, builder.metas)
    return Parts(
        lease,
        found.member,
        columns,
        builder,
        tuner,
        states,
        builder.placement(states),
        watch,
        builder.feed(tuner.batching, builder.length),
    )


def _check_categories(lease: EngineLease, given: dict[str, list[Any]]) -> None:
    """Refuse other codes than before; values may be added at the end of a list.

    Raises:
        ValueError: The run began with other categories.
    """
    known = (_recorded_categories(lease) or [given])[-1]
    same = known.keys() == given.keys()
    if not same or any(
        given[name][: len(known[name])] != known[name] for name in known
    ):
        raise ValueError(
            "categories must be those with which this run began, as their places are "
            f"the codes: {known!r}, got {given!r}. Add new values at the end of a list."
        )


def _recorded_categories(lease: EngineLease) -> list[dict[str, list[Any]]]:
    """The categories with which the run was trained, the shortest lists first."""
    found = lease.of.facts("categories").values()
    return sorted(found, key=lambda known: sum(map(len, known.values())))


def _record_categories(lease: EngineLease, given: dict[str, list[Any]]) -> None:
    """Record new categories: values keep their codes in all later processes."""
    known = _recorded_categories(lease)
    if given not in known:
        number = f" {len(known) + 1}" if known else ""
        lease.of.record_fact(f"categories{number}", given)
