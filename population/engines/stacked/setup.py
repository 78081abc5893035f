"""Creates the objects that train a stacked population."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import jax

from population.engines.stacked import arguments, autotune, cache
from population.engines.stacked.arguments import Request
from population.engines.stacked.builder import Builder
from population.engines.stacked.columns import Columns
from population.engines.stacked.lease import EngineLease
from population.engines.stacked.stack import RowMap, Stack
from population.engines.stacked.tuner import Tuner
from population.engines.stacked.watch import InForceWatch

logger = logging.getLogger("population")


class Parts:
    """The objects that train a stacked population.

    Args:
        lease: The run.
        request: The arguments of the user.

    Attributes:
        member: The user's functions.
        columns: Converts meta_params to scalars.
        tuner: Chooses how the members are batched.
        stack: The states, by worker id.
        placement: Which checkpoint the row of each slot holds.
        watch: Warns of hyperparameters that are not in force.
        feed: Brings the batches of a chunk.

    Raises:
        ValueError: The functions, the meta_params or the batches do not fit.
        TypeError: A function is not callable, or batches are not arrays.
    """

    def __init__(self, lease: EngineLease, request: Request) -> None:
        self._lease, source = lease, request.source
        controller, population = lease.controller, lease.population
        self.columns = columns = Columns(
            population.firsts(),
            controller.space,
            request.categories,
            request.max_batch,
        )
        batch = source.batch(controller.seed, 0, population.slots()[0].newest.step)
        recorded = population.facts("categories").values()
        known = sorted(recorded, key=lambda names: sum(map(len, names.values())))
        if known:
            _check_categories(known[-1], columns.codes)
        arguments.check_arrays(source.argument, batch)
        arguments.check_arrays("evaluation", request.evaluation)
        examples = batch, request.evaluation
        found = cache.programs(request.functions, columns, *examples, request.keep)
        self.member = found.member
        self._builder = builder = Builder(lease, found, columns, request, batch)
        self.tuner = Tuner(lease, found, builder, request.batching)
        self.stack: Stack = builder.stack(self.tuner.batching)
        if columns.codes not in known:  # Recorded late: it can be trained.
            number = f" {len(known) + 1}" if known else ""
            population.record_fact(f"categories{number}", columns.codes)
        self.watch = InForceWatch(
            population.notices, found.member, self.stack, builder.metas
        )
        self.placement = builder.placement(self.stack)
        self.feed = builder.feed(self.tuner.batching, builder.length)
        self._shrinks = True

    @property
    def length(self) -> int:
        """The number of steps in a chunk."""
        return self._builder.length

    @property
    def chunks(self) -> int:
        """The number of chunks in a round."""
        return self._builder.steps_per_report // self.length

    def close(self) -> None:
        """Stop preparing batches."""
        self.feed.close()

    def record(self) -> None:
        """Record the way of batching, if it is worth keeping."""
        if self.tuner.keep:
            self._lease.population.record_fact(self._builder.fact, self.tuner.batching)

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
        self.feed = self._builder.feed(self.tuner.batching, self.length)
        self.record()

    def resized(self, live: Sequence[int]) -> RowMap | None:
        """Return the rows to change to while these slots are not retired, or None."""
        rows = self.stack.rows
        if not self._shrinks and all(w in rows for w in live):
            return None
        return rows.resized(live)

    def resize(self, rows: RowMap) -> None:
        """Copy the states into a stack with other rows.

        The present stack stays as it is until the new one is complete, and if there is
        no memory for a smaller one beside it.
        """
        before = self.stack
        grows = any(w not in before for w in rows.worker_ids)
        try:
            stack = self._builder.resized(before, rows, self.tuner.batching)
            self.placement.use(stack)
        except jax.errors.JaxRuntimeError as error:
            if grows:
                raise
            logger.warning("retired members stay in the stack: %s", error)
            self._shrinks = False
            return
        self.stack, self._builder.rows = stack, rows
        before.release()
        self.feed.close()
        self.feed = self._builder.feed(self.tuner.batching, self.length)
        self.tuner.resized()
        logger.info(
            "the stack has %d rows for %d members", len(rows), len(rows.worker_ids)
        )

    def _switch(self) -> None:
        """Copy all states into rows with the chosen way of batching."""
        stack = self._builder.stack(self.tuner.batching)
        for worker_id in stack.rows.worker_ids:
            stack.put(worker_id, self.stack.take(worker_id))
        self.stack.release()
        self.stack = stack
        self.placement.use(stack)

    def begin_again(self) -> None:
        """Replace the states by fresh ones, batched in another way."""
        self.feed.close()
        self.stack.release()
        batching = self.tuner.instead()
        self.stack = self._builder.stack(batching)
        self.placement = self._builder.placement(self.stack)
        self.feed = self._builder.feed(batching, self.length)


def _check_categories(known: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse other codes than before; values may be added at the end of a list.

    Args:
        known: The longest lists with which the run was trained, by name.
        given: The present lists, by name.

    Raises:
        ValueError: The run began with other categories.
    """
    begins = {
        name: values[: len(known.get(name, ()))] for name, values in given.items()
    }
    if begins != known:
        raise ValueError(
            "categories must be those with which this run began, as their places are "
            f"the codes: {known!r}, got {given!r}. Add new values at the end of a list."
        )
