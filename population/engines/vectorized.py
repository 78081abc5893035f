"""Train the whole population as one program on an accelerator.

`run(controller, init, step, evaluate, 100)` stacks the states of all members. Each
round trains them together in a `lax.scan` of steps, evaluates all, and reports all in
one transaction; at a branch, rows are copied on the device. Policies, journal and plots
are the same as for every other engine.

The three functions describe one member, and JAX traces them. A state is any pytree, of
the same shapes for all members. meta_params have the structure that the controller
knows: numbers and bools are scalars, all other values are codes from 0 on. A new
generation trains with the numbers of `optax.inject_hyperparams` that `init` makes of
its meta_params. Where a batch size is a hyperparameter, batches have the largest size,
and `mask(meta_params["batch_size"], size)` selects the examples that count.

Keys and batches depend on the run's seed, the slot and the step alone, as those of a
`Worker` do. If all members share batches, members that were reset to an earlier step
train alone until they reach the others.

The rows of retired members are trained along; once half of the members in the stack are
retired, the others are copied into a smaller one.

An exception of a function ends the run, as all members are one program: other engines
have `on_error` for it. Here a member fails by a value that is NaN.

All states are saved every few rounds and at the end; after a kill, training continues
from the last save. The first Ctrl-C ends the run after the present round, a second one
immediately. A second run with the same functions and shapes compiles nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from population.controller import PopulationController
from population.engines.stacked import arguments, interrupts, setup
from population.engines.stacked.columns import mask as mask
from population.engines.stacked.lease import EngineLease
from population.engines.stacked.rounds import PopulationTrainer
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
        data: The batch of every step: for example a data set to draw from.
        batches: `(seed, worker_id, step)`, on the host, to a batch of one member.
        shared_batches: `(seed, step)` to one batch for all members.
        evaluation: The batch of `evaluate`.
        save_every: Rounds from one save of all states to the next.
        batching: "vmap", "map", "loop", or "auto" for the fastest.
        devices: The members are spread over them; None: all local devices.
        categories: By name, the values that become codes; else as the space says.
        max_batch: The largest batch size, or those by name; else as the space says.
        keep: Injected numbers that `step` changes by itself, as for `Worker.restore`.
        progress: Whether to show bars.

    Raises:
        ValueError: An argument or a value of meta_params is invalid, or a function
            needs one as a plain number: for a shape, a slice, or the rate of a layer.
        TypeError: An argument has the wrong type.
        ClaimError: Another process or loop trains a slot.
        NoProgressError: All members wait for a decision, or are retired because they
            failed; also if the run had come to that before.
        RuntimeError: Another process takes over a slot during the run.
        Exception: A function of the user has raised it. All members are one program:
            only a value that is NaN is a failure of one alone.
    """
    options = steps_per_report, save_every, batching, devices, categories, max_batch
    request = arguments.Request(
        (init, step, evaluate),
        arguments.source(data, batches, shared_batches),
        evaluation,
        *options,
        restoring.names_of(keep),
    )
    return _run(controller, request.checked(), progress)


def _run(
    controller: PopulationController, request: arguments.Request, progress: bool
) -> Summary:
    if not isinstance(controller, PopulationController):
        raise TypeError(
            "vectorized.run needs a PopulationController as its first argument, got "
            f"{type(controller).__name__}."
        )
    start, size = time.perf_counter(), len(controller.workers)
    controller.check_trainable()
    if controller.finished:
        controller.open_run.check_progress()
        return Summary(1, 0.0, 0.0, False, num_members=size)
    lease = EngineLease(controller)
    with contextlib.ExitStack() as stack:
        stack.callback(lease.population.release)
        parts = setup.Parts(lease, request)
        stack.callback(parts.close)
        # Decisions that no program can train are refused before they are recorded.
        stack.enter_context(lease.population.refusing(parts.columns.encode))
        trainer = PopulationTrainer(lease, parts, request)
        stop = stack.enter_context(interrupts.stop_at_first())
        if progress:
            stack.enter_context(progress_module.bars(controller))
        trainer.train(stop)
    return Summary(
        num_workers=1,
        wall_s=time.perf_counter() - start,
        overhead_s=trainer.overhead_s,
        interrupted=stop.is_set(),
        num_members=size,
        rounds=trainer.rounds,
        batching=parts.tuner.batching,
    )
