"""Puts together what trains a stacked population."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from population.base import codec
from population.controller import PopulationController
from population.core import facts
from population.core.decoding import decode
from population.engines.stacked import arguments, autotune, prefetching, programs
from population.engines.stacked.arguments import Request
from population.engines.stacked.columns import Columns
from population.engines.stacked.layout import Flat
from population.engines.stacked.member import Member
from population.engines.stacked.placement import Fresh, Sources, Tenants, key_of
from population.engines.stacked.states import Bank, Separate, Stack, on_host
from population.engines.stacked.watch import Watch
from population.run.open_run import OpenRun as Session

logger = logging.getLogger("population")
Made = Stack | Separate


class Parts(NamedTuple):
    """What trains a stacked population.

    Attributes:
        member: The user's functions.
        bank: The states.
        tenants: Whose they are.
        watch: Says what is not in force.
        feed: Brings the batches of a chunk.
        size: How many members there are.
        length: Steps of a chunk.
        chunks: Chunks of a round.
        batching: How the members are batched.
        shared: Whether all members get the same batches.
    """

    member: Member
    bank: Bank
    tenants: Tenants
    watch: Watch
    feed: prefetching.Feed
    size: int
    length: int
    chunks: int
    batching: str
    shared: bool


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
    functions, held_out = request.functions, request.evaluation
    member = Member(*functions, columns, example, held_out, request.keep)
    builder = _Builder(session, member, columns, request)
    builder.measure(example)
    batching, bank = builder.bank()
    # Only what can be trained is recorded.
    _record_categories(session, columns.codes)
    if builder.for_good:
        _record(session, builder.fact, batching)
    return Parts(
        member,
        bank,
        builder.tenants(bank),
        Watch(session.notices, member, bank, builder.metas),
        builder.feed(batching, builder.length),
        len(slots),
        builder.length,
        request.options.steps_per_report // builder.length,
        batching,
        source.kind == "shared",
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


class _Builder:
    """Makes the parts, and tries ways of batching.

    Args:
        session: The run.
        member: The user's functions.
        columns: How meta_params become scalars.
        request: What the user asks for.

    Attributes:
        metas: By worker id, the present meta_params.
        length: Steps of a chunk.
        fact: Under which name the way of batching is recorded.
        for_good: Whether it is to be recorded.
    """

    def __init__(
        self, session: Session, member: Member, columns: Columns, request: Request
    ) -> None:
        self._session, self._member, self._columns = session, member, columns
        self._source, self._evaluation = request.source, request.evaluation
        self._options = options = request.options
        self._newest = [slot.newest for slot in session.slots]
        self._count = len(self._newest)
        devices = list(options.devices or jax.local_devices())[: self._count]
        self._devices = devices
        self._mesh = programs.mesh_of(devices)
        self._rows = -(-self._count // len(devices)) * len(devices)
        self._keys = programs.base_keys(session.seed, self._rows)
        self.metas = [newest.meta_params for newest in self._newest]
        padding = self.metas[:1] * (self._rows - self._count)
        self._scalars = columns.stack(self.metas + padding)
        self._steps = np.zeros(self._rows, np.int32)
        self._steps[: self._count] = [newest.step for newest in self._newest]
        self.length = options.steps_per_report
        where = f"{len(devices)} {devices[0].platform}"
        self.fact = f"batching on {where}, {self.length} steps a report"
        self.for_good = True

    def measure(self, batch: Any) -> None:
        """See how many steps a chunk may have: its batches are all at hand."""
        if self._source.kind == "data":
            return
        size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))
        copies = 1 if self._source.kind == "shared" else self._rows
        self.length = prefetching.chunk_length(
            self._options.steps_per_report, size * copies
        )

    def bank(self) -> tuple[str, Bank]:
        """The states as the slots begin, and how they are batched."""
        session, batching = self._session, self._options.batching
        with session.news.lock:
            recorded = session.journal.facts().get(self.fact)
        made: dict[tuple[str, int], Made] = {}
        if batching == "auto" and recorded is not None:
            batching = codec.decode(recorded)
            logger.info("members are batched by %s, as before", batching)
        elif batching == "auto":
            steps = min(self.length, autotune.SHORT)
            names = autotune.worth_trying(self._count, self._options.steps_per_report)
            make = functools.partial(self._trial, made, length=steps)
            what = f"{steps} steps of all members"
            batching, self.for_good = autotune.fastest(make, what, names)
        # What was tried for as many steps need not be compiled again.
        bank = made.pop((batching, self.length), None)
        made.clear()  # The copies of the others go before the states are made anew.
        bank = bank or self._empty(batching, self.length)
        bank.release()  # Its own copies, too.
        self._begin(bank)
        return batching, bank

    def _begin(self, bank: Made) -> None:
        """Have a bank hold fresh states."""
        if isinstance(bank, Separate):  # Never all of them twice.
            bank.begin(
                self._one_fresh(row, [column[row] for column in self._scalars])
                for row in range(self._count)
            )
        else:
            bank.begin(self._fresh())

    def tenants(self, bank: Bank) -> Tenants:
        """The rows of a bank that has just begun."""
        sources = Sources(self._load, self._one_fresh)
        found = Tenants(bank, self._count, self._rows, self._columns, sources)
        for row, newest in enumerate(self._newest):
            key = key_of(newest)
            if isinstance(key, Fresh):
                found.has(row, key)
        return found

    def feed(self, batching: str, length: int, **options: float) -> prefetching.Feed:
        """What brings the batches of a chunk."""
        kind, seed = self._source.kind, self._session.seed
        if kind == "data":
            return prefetching.Constant(self._data)
        here, whole = self._putter(rows=True), self._putter(rows=False)
        if batching == "loop":  # What Python cuts up stays on the host.
            here = whole = _as_it_is
        function = self._source.function
        if kind == "shared":
            return prefetching.Shared(function, seed, length, whole, **options)
        count, rows = self._count, self._rows
        each = functools.partial(prefetching.Each, function, seed, count, length, here)
        return each(rows=rows, **options)

    @functools.cached_property
    def _data(self) -> Any:
        """The data on all devices: once, however many ways of batching are tried."""
        return self._putter(rows=False)(self._source.data)

    @functools.cached_property
    def _held_out(self) -> Any:
        """The same of what `evaluate` gets."""
        return self._putter(rows=False)(self._evaluation)

    def _putter(self, *, rows: bool) -> Callable[[Any], Any]:
        place = programs.sharding(self._mesh, rows=rows)
        return lambda tree: jax.device_put(tree, place)

    def _trial(
        self, made: dict[tuple[str, int], Made], batching: str, length: int
    ) -> autotune.Round:
        """Something that trains copies of all members for so many steps."""
        for other in made.values():
            other.release()
        bank = made[batching, length] = self._empty(batching, length)
        self._begin(bank)
        bank.tell(self._steps, self._scalars, np.ones(self._rows, np.bool_))
        brought = self.feed(batching, length, ahead_s=math.inf)  # There is no next one.
        batches = brought.take(self._steps.tolist())
        brought.close()
        if length == self._options.steps_per_report:
            return lambda: bank.finish(batches)  # A whole round.

        def steps() -> None:
            bank.train(batches)
            bank.wait()

        return steps

    def _empty(self, batching: str, length: int) -> Made:
        axes = {"data": (None, None), "each": (0, 0), "shared": (None, 0)}
        by = axes[self._source.kind]
        member, evaluation = self._member, self._held_out
        if batching == "loop":
            keys = self._keys[: self._count]
            return Separate(member, keys, length, self._devices, by, evaluation)
        mesh = self._mesh
        return Stack(member, self._keys, batching, length, mesh, by, evaluation)

    def _fresh(self) -> Flat:
        """Fresh states of all rows, with the slots' meta_params."""
        place = programs.sharding(self._mesh, rows=True)
        keys, scalars = jax.device_put((self._keys, self._scalars), place)
        return self._make_fresh(keys, scalars)

    @functools.cached_property
    def _make_fresh(self) -> Callable[..., Flat]:
        return programs.fresh(self._member, self._mesh)

    @functools.cached_property
    def _fresh_of(self) -> Callable[..., Flat]:
        return jax.jit(self._member.fresh)

    def _one_fresh(self, row: int, scalars: Sequence[Any]) -> Flat:
        return self._fresh_of(self._keys[row], tuple(scalars))

    @functools.cached_property
    def _like(self) -> Any:
        """What saved params are to look like."""
        flat = self._one_fresh(0, [column[0] for column in self._scalars])
        return self._member.saved(tuple(map(on_host, flat)))

    def _load(self, params: Any) -> Flat:
        tree = self._session.keeper.load(params, self._like)
        return self._member.restored(tree)


def _as_it_is(tree: Any) -> Any:
    return tree
