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
from population.engines.stacked.placement import Placement, key_of
from population.engines.stacked.programs import Programs
from population.engines.stacked.states import (
    MemberStates,
    SeparateStates,
    StackedStates,
    on_host,
)


class Builder:
    """Makes states, batches and trials for any way of batching.

    Args:
        lease: The run.
        found: The user's functions, compiled.
        columns: Converts meta_params to scalars.
        request: The arguments of the user.
        batch: One batch of one member.

    Attributes:
        metas: By worker id, the present meta_params.
        steps_per_report: Steps of a round.
        length: Steps of a chunk.
        platform: The platform of the devices.
        ways: The ways of batching that differ.
        fact: The key of the fact that records the way of batching.
    """

    def __init__(
        self,
        lease: EngineLease,
        found: Programs,
        columns: Columns,
        request: Request,
        batch: Any,
    ) -> None:
        self._lease, self._programs, self._columns = lease, found, columns
        self._source, self._evaluation = request.source, request.evaluation
        self._seed = lease.controller.seed
        self._newest = [slot.newest for slot in lease.population.slots()]
        self._count = len(self._newest)
        devices = list(request.devices or jax.local_devices())[: self._count]
        self._devices = devices
        self._mesh = programs.mesh_of(devices)
        self._rows = -(-self._count // len(devices)) * len(devices)
        self._keys = programs.base_keys(self._seed, self._rows)
        self.metas = [newest.meta_params for newest in self._newest]
        padding = self.metas[:1] * (self._rows - self._count)
        self._scalars = columns.stack(self.metas + padding)
        self._steps = np.zeros(self._rows, np.int32)
        self._steps[: self._count] = [newest.step for newest in self._newest]
        self.steps_per_report = request.steps_per_report
        self.length = self._chunk_length(batch)
        self.platform = devices[0].platform
        where = f"{len(devices)} {self.platform}"
        self.fact = f"batching on {where}, {self.steps_per_report} steps a report"
        self.ways = autotune.worth_trying(self._count, self.steps_per_report)
        self._tried: MemberStates | None = None

    def _chunk_length(self, batch: Any) -> int:
        """Return the steps of a chunk: all its batches are in memory at once."""
        by_row, by_step = self._source.axes
        if by_step is None:
            return self.steps_per_report
        size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))
        copies = 1 if by_row is None else self._rows
        return prefetching.chunk_length(self.steps_per_report, size * copies)

    @property
    def place(self) -> Any:
        """A key of all, besides the functions, that affects which way is the fastest.

        Programs of earlier runs at the same place need not be compiled.
        """
        shapes = self._source.axes, self.length, self.steps_per_report
        return self._count, self._mesh, *shapes

    def states(self, batching: str) -> MemberStates:
        """Make fresh states of all rows, with the first meta_params of this session."""
        return self._begun(batching, self.length)

    def _begun(self, batching: str, length: int) -> MemberStates:
        """Make fresh states that are trained in chunks of `length` steps."""
        rest = self._source.axes, self._held_out
        if batching == "loop":
            where = self._keys[: self._count], length, self._devices
            separate = SeparateStates(self._programs, *where, *rest)
            separate.begin(  # One by one: they fit once only.
                self._one_fresh(row, [column[row] for column in self._scalars])
                for row in range(self._count)
            )
            return separate
        way = self._keys, batching, length, self._mesh
        stacked = StackedStates(self._programs, *way, *rest)
        place = programs.sharding(self._mesh, rows=True)
        inputs = jax.device_put((self._keys, self._scalars), place)
        stacked.begin(self._programs.fresh(self._mesh)(*inputs))
        return stacked

    def placement(self, states: MemberStates) -> Placement:
        """Make the placement of rows that hold fresh states."""
        size, rest = (self._count, self._rows), (self._load, self._one_fresh)
        found = Placement(states, *size, self._columns, *rest)
        for row, newest in enumerate(self._newest):
            if newest.params is None:
                found.holds[row] = key_of(newest)
        return found

    def feed(
        self,
        batching: str,
        length: int,
        ahead_s: float = prefetching.HANDING_OVER_S,
    ) -> prefetching.Feed:
        """Make the feed that returns the batches of each chunk."""
        by_row, by_step = self._source.axes
        if by_step is None:
            return prefetching.Constant(self._data)
        put: Callable[[Any], Any] = functools.partial(
            jax.device_put,
            device=programs.sharding(self._mesh, rows=by_row is not None),
        )
        if batching == "loop":  # Python slices these batches: they stay on the host.
            put = _unchanged
        given = self._source, self._seed, self._count, length, put
        return prefetching.Prefetcher(*given, rows=self._rows, ahead_s=ahead_s)

    @functools.cached_property
    def _data(self) -> Any:
        """The data on all devices: once, however many ways of batching are tried."""
        return self._everywhere(self._source.given)

    @functools.cached_property
    def _held_out(self) -> Any:
        """The batch of `evaluate`, on all devices."""
        return self._everywhere(self._evaluation)

    def _everywhere(self, tree: Any) -> Any:
        return jax.device_put(tree, programs.sharding(self._mesh, rows=False))

    def trial(self, batching: str) -> autotune.Round:
        """Return a function that trains copies of all members for a few steps."""
        self.end_trials()
        length = self.trial_length
        states = self._tried = self._begun(batching, length)
        states.set_rows(self._steps, self._scalars, np.ones(self._rows, np.bool_))
        brought = self.feed(batching, length, math.inf)  # There is no next one.
        rows = slice(1) if self._source.shared else slice(None)
        batches = brought.take(self._steps[rows].tolist())
        brought.close()
        if length == self.steps_per_report:
            return lambda: states.finish(batches)  # A whole round.

        def steps() -> None:
            states.train(batches)
            states.wait()

        return steps

    @property
    def trial_length(self) -> int:
        """The number of steps in a trial."""
        return min(self.length, autotune.SHORT)

    def end_trials(self) -> None:
        """Release the copies of the last trial: others need the memory."""
        if self._tried is not None:
            self._tried.release()
        self._tried = None

    def _one_fresh(self, row: int, scalars: Sequence[Any]) -> Flat:
        return self._programs.one_fresh()(self._keys[row], tuple(scalars))

    @functools.cached_property
    def _like(self) -> Any:
        """An example of saved params, for the params store."""
        flat = self._one_fresh(0, [column[0] for column in self._scalars])
        return self._programs.member.layout.saved(tuple(map(on_host, flat)))

    def _load(self, params: Any) -> Flat:
        tree, member = (
            self._lease.population.load(params, self._like),
            self._programs.member,
        )
        return member.layout.restored(tree, member.shapes)


def _unchanged(tree: Any) -> Any:
    return tree
