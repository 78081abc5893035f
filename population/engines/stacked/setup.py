"""Puts together what trains a stacked population."""

from __future__ import annotations

import dataclasses
from typing import Any

from population.base import codec
from population.controller import PopulationController
from population.core import facts
from population.core.decoding import decode
from population.engines.stacked import arguments, cache, prefetching
from population.engines.stacked.arguments import Request
from population.engines.stacked.builder import Builder, Made
from population.engines.stacked.columns import Columns
from population.engines.stacked.member import Member
from population.engines.stacked.placement import Tenants
from population.engines.stacked.states import Bank
from population.engines.stacked.tuner import Tuner
from population.engines.stacked.watch import Watch
from population.run.open_run import Session


@dataclasses.dataclass
class Parts:
    """What trains a stacked population.

    Attributes:
        session: The run.
        member: The user's functions.
        columns: How meta_params become scalars.
        builder: Makes states and batches.
        tuner: Says how the members are batched.
        bank: The states.
        tenants: Whose they are.
        watch: Says what is not in force.
        feed: Brings the batches of a chunk.
    """

    session: Session
    member: Member
    columns: Columns
    builder: Builder
    tuner: Tuner
    bank: Bank
    tenants: Tenants
    watch: Watch
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
        """Record the way of batching, if it is to be kept."""
        if self.tuner.for_good:
            _record(self.session, self.builder.fact, self.tuner.batching)

    def tune(self) -> None:
        """Try other ways of batching if that pays; go over to a faster one."""
        if not self.tuner.is_due():
            return
        before = self.tuner.batching
        self.feed.close()  # The user's function is called by one thread at a time.
        batching = self.tuner.choose()
        if batching != before:
            states = self.builder.states(batching)
            for row in range(self.size):
                states.put(row, self.bank.take(row))
            self._use(states)
            self.tenants.use(states)
        self.feed = self.builder.feed(batching, self.length)
        self.record()

    def begin_again(self) -> None:
        """Have fresh states, batched in another way: the first one is impossible."""
        self.feed.close()
        self.bank.release()
        batching = self.tuner.instead()
        self._use(self.builder.states(batching))
        self.tenants = self.builder.tenants(self.bank)
        self.feed = self.builder.feed(batching, self.length)

    def _use(self, states: Made) -> None:
        self.bank.release()
        self.bank = states
        self.watch.use(states)


def assemble(controller: PopulationController, request: Request) -> Parts:
    """All that a run needs.

    Raises:
        ValueError: If the functions, the meta_params or the batches do not fit.
        TypeError: If a function is none, or the batches are no arrays.
    """
    session, source = controller.session, request.source
    slots = session.slots
    with session.news.lock:
        firsts = [decode(row.meta_params) for row in facts.begun(session.journal)]
    columns = Columns.of(
        firsts, controller.space, request.categories, request.max_batch
    )
    example = source.example(session.seed, 0, slots[0].newest.step)
    _check_categories(session, columns.codes)
    names = {"data": "data", "each": "batches", "shared": "shared_batches"}
    arguments.check_arrays(names[source.kind], example)
    arguments.check_arrays("evaluation", request.evaluation)
    found = cache.programs(
        request.functions, columns, example, request.evaluation, request.keep
    )
    builder = Builder(session, found, columns, request)
    builder.measure(example)
    tuner = Tuner(session, found, builder, request.options.batching)
    bank = builder.states(tuner.batching)
    _record_categories(session, columns.codes)  # Only what can be trained is recorded.
    watch = Watch(session.notices, found.member, bank, builder.metas)
    return Parts(
        session,
        found.member,
        columns,
        builder,
        tuner,
        bank,
        builder.tenants(bank),
        watch,
        builder.feed(tuner.batching, builder.length),
    )


def _check_categories(session: Session, given: dict[str, list[Any]]) -> None:
    """Refuse other codes than before; values may be added at the end of a list.

    Raises:
        ValueError: If the run goes on with other categories than it began with.
    """
    known = (_recorded_categories(session) or [given])[-1]
    same = known.keys() == given.keys()
    if not same or any(
        given[name][: len(known[name])] != known[name] for name in known
    ):
        raise ValueError(
            "categories must be those with which this run began, as their places are "
            f"the codes: {known!r}, got {given!r}. Add new values at the end of a list."
        )


def _recorded_categories(session: Session) -> list[dict[str, list[Any]]]:
    """The categories with which the run was trained: each longer than the last."""
    with session.news.lock:
        facts = session.journal.facts()
    texts = [text for key, text in facts.items() if key.startswith("categories")]
    found = map(codec.decode, texts)
    return sorted(found, key=lambda known: sum(map(len, known.values())))


def _record_categories(session: Session, given: dict[str, list[Any]]) -> None:
    """Record them, if they are new: values once added keep their codes."""
    known = _recorded_categories(session)
    if given not in known:
        number = f" {len(known) + 1}" if known else ""
        _record(session, f"categories{number}", given)


def _record(session: Session, fact: str, value: Any) -> None:
    """Record a fact of the run, if it is not recorded."""
    text = codec.encode(value)
    with session.news.lock:
        if fact not in session.journal.facts():
            session.transact([], lambda: session.journal.add_fact(fact, text))
