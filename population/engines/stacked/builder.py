"""Makes the states, batches and trials of a stacked population."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from population.engines.stacked import autotune, prefetching, programs
from population.engines.stacked.arguments import Request
from population.engines.stacked.columns import Columns
from population.engines.stacked.layout import Flat
from population.engines.stacked.lease import EngineLease
from population.engines.stacked.placement import Fresh, Placement, Sources, key_of
from population.engines.stacked.programs import Programs
from population.engines.stacked.states import (
    MemberStates,
    SeparateStates,
    StackedStates,
    on_host,
)

Made = StackedStates | SeparateStates


class Builder:
    """Makes states, batches and trials for any way of batching.

    Args:
        lease: The run.
        found: The user's functions, compiled.
        columns: How meta_params become scalars.
        request: What the user asks for.

    Attributes:
        metas: By worker id, the present meta_params.
        steps_per_report: Steps of a round.
        length: Steps of a chunk.
        platform: Of the devices.
        ways: The ways of batching that differ.
        fact: Under which name the way of batching is recorded.
    """

    def __init__(
        self,
        lease: EngineLease,
        found: Programs,
        columns: Columns,
        request: Request,
    ) -> None:
        self._lease, self._programs, self._columns = lease, found, columns
        self._member = found.member
        self._source, self._evaluation = request.source, request.evaluation
        self._options = options = request.options
        self._newest = [slot.newest for slot in lease.of.slots()]
        self._count = len(self._newest)
        devices = list(options.devices or jax.local_devices())[: self._count]
        self._devices = devices
        self._mesh = programs.mesh_of(devices)
        self._rows = -(-self._count // len(devices)) * len(devices)
        self._keys = programs.base_keys(lease.seed, self._rows)
        self.metas = [newest.meta_params for newest in self._newest]
        padding = self.metas[:1] * (self._rows - self._count)
        self._scalars = columns.stack(self.metas + padding)
        self._steps = np.zeros(self._rows, np.int32)
        self._steps[: self._count] = [newest.step for newest in self._newest]
        self.length = self.steps_per_report = options.steps_per_report
        where = f"{len(devices)} {devices[0].platform}"
        self.fact = f"batching on {where}, {self.length} steps a report"
        self.platform = devices[0].platform
        self.ways = autotune.worth_trying(self._count, options.steps_per_report)
        self._tried: Made | None = None

    def measure(self, batch: Any) -> None:
        """Set how many steps a chunk has: all its batches are in memory at once."""
        if self._source.kind == "data":
            return
        size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))
        copies = 1 if self._source.kind == "shared" else self._rows
        self.length = prefetching.chunk_length(
            self._options.steps_per_report, size * copies
        )

    @property
    def place(self) -> Any:
        """A key for all that decides, beside the functions, which way is the fastest.

        Programs of earlier runs at the same place need not be compiled.
        """
        shapes = self._source.kind, self.length, self._options.steps_per_report
        return self._count, self._mesh, *shapes

    def states(self, batching: str) -> Made:
        """Fresh states of all rows, with the meta_params that the slots began with."""
        states = self._empty(batching, self.length)
        self._begin(states)
        return states

    def _begin(self, states: Made) -> None:
        """Fill rows with fresh states."""
        if isinstance(states, SeparateStates):  # One by one: they fit once only.
            states.begin(
                self._one_fresh(row, [column[row] for column in self._scalars])
                for row in range(self._count)
            )
        else:
            states.begin(self._fresh())

    def placement(self, states: MemberStates) -> Placement:
        """The placement of rows that hold fresh states."""
        sources = Sources(self._load, self._one_fresh)
        found = Placement(states, self._count, self._rows, self._columns, sources)
        for row, newest in enumerate(self._newest):
            key = key_of(newest)
            if isinstance(key, Fresh):
                found.set_held(row, key)
        return found

    def feed(self, batching: str, length: int, **options: float) -> prefetching.Feed:
        """The source of the batches of each chunk."""
        kind, seed = self._source.kind, self._lease.seed
        if kind == "data":
            return prefetching.Constant(self._data)
        here, whole = self._putter(rows=True), self._putter(rows=False)
        if batching == "loop":  # What Python cuts up stays on the host.
            here = whole = _unchanged
        function = self._source.function
        if kind == "shared":
            return prefetching.Shared(function, seed, length, whole, **options)
        count, rows = self._count, self._rows
        each = functools.partial(
            prefetching.PerMember, function, seed, count, length, here
        )
        return each(rows=rows, **options)

    @functools.cached_property
    def _data(self) -> Any:
        """The data on all devices: once, however many ways of batching are tried."""
        return self._putter(rows=False)(self._source.data)

    @functools.cached_property
    def _held_out(self) -> Any:
        """What `evaluate` gets, on all devices."""
        return self._putter(rows=False)(self._evaluation)

    def _putter(self, *, rows: bool) -> Callable[[Any], Any]:
        place = programs.sharding(self._mesh, rows=rows)
        return lambda tree: jax.device_put(tree, place)

    def trial(self, batching: str) -> autotune.Round:
        """A function that trains copies of all members for a few steps.

        The copies of the trial before are released: others need the memory.
        """
        if self._tried is not None:
            self._tried.release()
        length = self.trial_length
        states = self._tried = self._empty(batching, length)
        self._begin(states)
        states.set_rows(self._steps, self._scalars, np.ones(self._rows, np.bool_))
        brought = self.feed(batching, length, ahead_s=math.inf)  # There is no next one.
        rows = slice(1) if self._source.kind == "shared" else slice(None)
        batches = brought.take(self._steps[rows].tolist())
        brought.close()
        if length == self._options.steps_per_report:
            return lambda: states.finish(batches)  # A whole round.

        def steps() -> None:
            states.train(batches)
            states.wait()

        return steps

    @property
    def trial_length(self) -> int:
        """Steps of a trial."""
        return min(self.length, autotune.SHORT)

    def end_trials(self) -> None:
        """Release the copies of the last trial."""
        if self._tried is not None:
            self._tried.release()
        self._tried = None

    def _empty(self, batching: str, length: int) -> Made:
        axes = {"data": (None, None), "each": (0, 0), "shared": (None, 0)}
        by = axes[self._source.kind]
        evaluation = self._held_out
        if batching == "loop":
            keys = self._keys[: self._count]
            where = length, self._devices
            return SeparateStates(self._programs, keys, *where, by, evaluation)
        way = batching, length, self._mesh
        return StackedStates(self._programs, self._keys, *way, by, evaluation)

    def _fresh(self) -> Flat:
        """Fresh states of all rows, with the slots' meta_params."""
        place = programs.sharding(self._mesh, rows=True)
        keys, scalars = jax.device_put((self._keys, self._scalars), place)
        return self._programs.fresh(self._mesh)(keys, scalars)

    def _one_fresh(self, row: int, scalars: Sequence[Any]) -> Flat:
        return self._programs.one_fresh()(self._keys[row], tuple(scalars))

    @functools.cached_property
    def _like(self) -> Any:
        """An example of saved params, for the params store."""
        flat = self._one_fresh(0, [column[0] for column in self._scalars])
        return self._member.saved(tuple(map(on_host, flat)))

    def _load(self, params: Any) -> Flat:
        tree = self._lease.of.load(params, self._like)
        return self._member.restored(tree)


def _unchanged(tree: Any) -> Any:
    return tree
