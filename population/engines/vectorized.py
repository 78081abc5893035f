"""Train the whole population as one program on an accelerator.

`run(controller, init, step, evaluate, 100)` stacks the states of all members and trains
them together: so many steps in a `lax.scan`, an evaluation of all, one transaction with
all reports; then the rows of those that branch are copied on the device. The policies,
the journal and the pictures are those of every other engine.

The three functions are of one member, and are traced. A state is any pytree, of the
same shapes for all. meta_params are the pytree that the controller knows, with scalars
for its numbers and bools, and codes, from 0 on, for what is neither. What `init` puts
in force is in force: at a branch the numbers of `optax.inject_hyperparams` are those
that `init` makes of the new meta_params at the same place. Where a batch size is a
hyperparameter, batches have the largest size, and `mask(meta_params["batch_size"],
size)` says which examples count.

Keys and batches depend on the run's seed, the slot and the step alone, as those of a
`Worker` do. With one batch for all, members that were set back are trained alone until
they have caught up.

All states are saved every so many rounds, and at the end: after a kill, training goes
on from the last save. Ctrl-C ends the run after the present round, a second one at
once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from population.controller import PopulationController
from population.engines.stacked import arguments, interrupts, setup
from population.engines.stacked.columns import mask as mask
from population.engines.stacked.lease import Lease
from population.engines.stacked.rounds import Rounds
from population.engines.summary import Summary as Summary
from population.in_force import restoring
from population.report import progress as progress_module

if TYPE_CHECKING:
    import jax


def run(
    controller: PopulationController,
    init: Callable[[Any, Any], Any],
    step: Callable[[Any, Any, Any, Any], Any],
    evaluate: Callable[[Any, Any, Any], Any],
    steps_per_report: int,
    *,
    data: Any = None,
    batches: Callable[[int, int, int], Any] | None = None,
    shared_batches: Callable[[int, int], Any] | None = None,
    evaluation: Any = None,
    save_every: int = 10,
    batching: str = "auto",
    devices: Sequence[jax.Device] | None = None,
    categories: Mapping[str, Sequence[Any]] | None = None,
    max_batch: int | Mapping[str, int] | None = None,
    keep: str | Collection[str] = (),
    progress: bool = True,
) -> Summary:
    """Train all members together until the run has ended.

    Args:
        controller: The population; all its slots are claimed.
        init: `(key, meta_params) -> state`.
        step: `(state, meta_params, batch, key) -> state`, one training step.
        evaluate: `(state, meta_params, batch) -> value`, a number, or the value and a
            dict of further numbers.
        steps_per_report: Steps between two reports of a member.
        data: What each step gets as its batch: for example a data set to draw from.
        batches: `(seed, worker_id, step)`, on the host, to a batch of one member.
        shared_batches: `(seed, step)` to one batch for all members.
        evaluation: What `evaluate` gets as its batch.
        save_every: Rounds from one save of all states to the next.
        batching: "vmap", "map", "loop", or "auto" for the fastest.
        devices: The members are spread over them; None: all local devices.
        categories: By name, the values that become codes; else as the space says.
        max_batch: The largest batch size, or those by name; else as the space says.
        keep: Names of injected numbers that `step` changes by itself; a branch leaves
            them as they were saved.
        progress: Whether to show bars.

    Raises:
        ValueError: An argument or a value of meta_params is invalid, or a shape depends
            on meta_params.
        TypeError: An argument has the wrong type.
        ClaimError: Another process or loop trains a slot.
        RuntimeError: Another process takes over a slot during the run, all members wait
            for a decision, or all members diverge again and again.
        Exception: What the functions raise.
    """
    request = arguments.Request(
        (init, step, evaluate),
        arguments.source(data, batches, shared_batches),
        evaluation,
        arguments.options(steps_per_report, save_every, batching, devices),
        categories,
        max_batch,
        restoring.names_of(keep),
    )
    return _run(controller, request, progress)


def _run(
    controller: PopulationController, request: arguments.Request, progress: bool
) -> Summary:
    start, lease = time.perf_counter(), Lease(controller)
    if not lease.claimed:
        return Summary(1, 0.0, 0.0, False, num_members=lease.size)
    with contextlib.ExitStack() as stack:
        stack.callback(lease.of.release)
        parts = setup.assemble(lease, request)
        stack.callback(parts.close)
        # Decisions that no program can train are refused before they are recorded.
        stack.enter_context(lease.of.refusing(parts.columns.encode))
        rounds = Rounds(lease, parts, request)
        stop = stack.enter_context(interrupts.stop_at_first())
        if progress:
            stack.enter_context(progress_module.bars(controller))
        rounds.train(stop)
    return Summary(
        num_workers=1,
        wall_s=time.perf_counter() - start,
        overhead_s=rounds.overhead_s,
        interrupted=stop.is_set(),
        num_members=lease.size,
        rounds=rounds.rounds,
        batching=parts.tuner.batching,
    )
