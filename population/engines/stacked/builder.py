"""Makes the stacks, batches and trials of a stacked population."""

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
from population.engines.stacked.stack import RowMap, Stack
from population.engines.stacked.states import (
    SeparateStates,
    StackedStates,
    on_host,
)


class Builder:
    """Makes stacks, batches and trials for any way of batching.

    Args:
        lease: The run.
        found: The user's functions, compiled.
        columns: Converts meta_params to scalars.
        request: The arguments of the user.
        batch: One batch of one member.

    Attributes:
        rows: The slot that each row trains.
        metas: By worker id, the meta_params at the start of this session.
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
        slots = lease.population.slots()
        self._newest = [slot.newest for slot in slots]
        count = len(slots)
        devices = list(request.devices or jax.local_devices())[:count]
        self._devices = devices
        self._mesh = programs.mesh_of(devices)
        self._whole = RowMap(range(count), len(devices))
        live = [w for w, slot in enumerate(slots) if not slot.retired]
        self.rows = self._whole.resized(live) or self._whole
        self._keys = programs.base_keys(self._seed, count)  # These four by worker id.
        self.metas = [newest.meta_params for newest in self._newest]
        self._scalars = columns.stack(self.metas)
        self._steps = np.array([newest.step for newest in self._newest], np.int32)
        self.steps_per_report = request.steps_per_report
        self.length = self._chunk_length(batch)
        self.platform = devices[0].platform
        where = f"{len(devices)} {self.platform}"
        self.fact = f"batching on {where}, {self.steps_per_report} steps a report"
        self.ways = autotune.worth_trying(count, self.steps_per_report)
        self._tried: Stack | None = None

    def _chunk_length(self, batch: Any) -> int:
        """Return the steps of a chunk: all its batches are in memory at once."""
        by_row, by_step = self._source.axes
        if by_step is None:
            return self.steps_per_report
        size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))
        copies = 1 if by_row is None else len(self._whole)
        return prefetching.chunk_length(self.steps_per_report, size * copies)

    @property
    def place(self) -> Any:
        """A key of all, besides the functions, that affects which way is the fastest.

        Programs of earlier runs at the same place need not be compiled.
        """
        shapes = self._source.axes, self.length, self.steps_per_report
        return len(self.rows.worker_ids), self._mesh, *shapes

    def stack(self, batching: str) -> Stack:
        """Make fresh states of all rows, with the first meta_params of this session."""
        return self._begun(batching, self.length)

    def resized(self, stack: Stack, rows: RowMap, batching: str) -> Stack:
        """Make a stack with other rows; members that have a row in both continue."""
        states = self._blank(batching, self.length, rows)
        states.begin(stack.picked(rows))
        return Stack(states, rows)

    def _begun(self, batching: str, length: int) -> Stack:
        """Make fresh states that are trained in chunks of `length` steps."""
        states = self._blank(batching, length, self.rows)
        if isinstance(states, SeparateStates):
            states.begin(  # One by one: they fit once only.
                self._one_fresh(w, [column[w] for column in self._scalars])
                for w in self.rows.worker_ids
            )
            return Stack(states, self.rows)
        place = programs.sharding(self._mesh, rows=True)
        at = np.array(self.rows.padded)
        scalars = tuple(column[at] for column in self._scalars)
        inputs = jax.device_put((self._keys_of(self.rows), scalars), place)
        states.begin(self._programs.fresh(self._mesh)(*inputs))
        return Stack(states, self.rows)

    def _blank(
        self, batching: str, length: int, rows: RowMap
    ) -> SeparateStates | StackedStates:
        """Make rows without states, which are trained in chunks of `length` steps."""
        rest = self._source.axes, self._held_out
        keys = self._keys_of(rows)
        if batching == "loop":
            keys = keys[: len(rows.worker_ids)]
            where = keys, length, self._devices
            return SeparateStates(self._programs, *where, *rest)
        way = keys, batching, length, self._mesh
        return StackedStates(self._programs, *way, *rest)

    def _keys_of(self, rows: RowMap) -> Any:
        """Return the PRNG keys of rows."""
        if rows.padded == self._whole.worker_ids:
            return self._keys
        return self._keys[np.array(rows.padded)]

    def placement(self, stack: Stack) -> Placement:
        """Make the placement of a stack that holds fresh states."""
        rest = self._load, self._one_fresh
        found = Placement(stack, len(self._newest), self._columns, *rest)
        for worker_id in stack.rows.worker_ids:
            newest = self._newest[worker_id]
            if newest.params is None:
                found.holds[worker_id] = key_of(newest)
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
        given = self._source, self._seed, self.rows.worker_ids, length, put
        return prefetching.Prefetcher(*given, rows=len(self.rows), ahead_s=ahead_s)

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
        at, is_new = self._steps, np.ones(len(self._steps), np.bool_)
        states.set_rows(at, self._scalars, is_new)
        brought = self.feed(batching, length, math.inf)  # There is no next one.
        if self._source.shared:
            at = np.full_like(at, at[self.rows.worker_ids[0]])
        batches = brought.take(at.tolist())
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

    def _one_fresh(self, worker_id: int, scalars: Sequence[Any]) -> Flat:
        return self._programs.one_fresh()(self._keys[worker_id], tuple(scalars))

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
