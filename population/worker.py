"""One training loop's side of the protocol."""

from __future__ import annotations

import functools
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from population.base import codec
from population.base.errors import ParamsError
from population.base.run_paths import OWN_FOLDER
from population.base.types import ActiveWorker, Checkpoint, Ref, Saved
from population.core.known import check_id
from population.run import keys
from population.run.leases import Position, SlotLease
from population.run.open_run import OpenRun

if TYPE_CHECKING:
    import jax

    from population.in_force.watch import Watch

logger = logging.getLogger("population")
Tree = TypeVar("Tree")


class Worker:
    """Trains a slot of the population, or several in turns.

    Made by `controller.worker(worker_id)`; one thread uses it. A slot that waits for a
    decision is put aside and another one is trained; `worker_id` then changes.

    Attributes:
        worker_id: The slot.
        meta_params: Its hyperparameters.
        params: What to go on from: a path that was reported, `Saved`, or None.
        generation_id: What is being trained.
        step: Training steps; the loop counts on from what `poll` brought.
        turn: After this many saved reports another slot with fewer steps is trained.
        device: Where to train; None is JAX's default. Set by an engine.
        overhead_s: Seconds spent in `poll` and `report`, without saving params,
            converting values and waiting.
    """

    def __init__(
        self,
        run: OpenRun,
        worker_id: int | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
        self._run = run
        self._stopped = stopped or threading.Event()
        self._adopted = False
        self._has_dropped = False
        self._handed_out = 0
        self.worker_id = -1
        self.meta_params: Any = None
        self.params: Any = None
        self.generation_id = ""
        self.step = 0
        self.turn = 10
        self.device: jax.Device | None = None
        self.overhead_s = 0.0
        slot = None if worker_id is None else check_id(run.size, worker_id)
        # Not a method: a worker that is dropped gives its slot back at once.
        ended = functools.partial(_has_ended, run, self._stopped)
        self._lease = SlotLease(run, ended, slot)
        found = self._lease.work()
        if found is not None:
            self._show(found)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    @property
    def running(self) -> bool:
        """False when `stop=` or the engine has ended the run."""
        return not _has_ended(self._run, self._stopped)

    def poll(self) -> bool:
        """Ask for news; blocks while every slot waits for a decision or is taken.

        Returns:
            True at the start, after a branch and when another slot is trained: call
            `restore` then. False to carry on, and when the run has ended.
        """
        start, waited = time.perf_counter(), self._lease.waited_s
        at = None
        if self._adopted:
            at = Position(self.worker_id, self.generation_id, self.step)
        found = self._lease.poll(at, self.turn)
        waited = self._lease.waited_s - waited
        self.overhead_s += time.perf_counter() - start - waited
        if found is None:
            return False
        self._adopted = True
        self._show(found)
        return True

    def restore(
        self,
        init: Callable[[Any], Tree],
        *,
        keep: str | Collection[str] = (),
        adapt: Callable[[Any, Any, Tree], Tree] | None = None,
    ) -> Tree:
        """The training state to go on from, with the slot's hyperparameters in force.

        In force is what `init(meta_params)` puts in force: a saved state comes back
        with the numbers that each state of optax's `inject_hyperparams` has in it at
        the same place. Those that a schedule drives stay as saved.

        Args:
            init: Makes a fresh state from meta_params; its result also tells the
                structure and dtypes that a saved one is read into. It is called at
                each restore: keep what is expensive in it, the data, say, elsewhere.
            keep: Injected numbers that the loop changes by itself: they stay as saved.
                A name means all numbers of that name, a place as errors show it one.
            adapt: Called if a saved state is of another structure than a fresh one, as
                when the optimiser is a hyperparameter: `adapt(saved,
                donor_meta_params, fresh)` returns the state to go on from.

        Raises:
            ParamsError: If saved params are missing, damaged or do not fit.
            ValueError: If the params were saved by the loop itself, or `keep` names no
                injected number.
            TypeError: If `keep` holds no names.
        """
        from population.in_force import restoring

        kept = restoring.names_of(keep)
        while True:
            try:
                found = restoring.restored(
                    self.params,
                    self.meta_params,
                    init,
                    self._run.params.load,
                    lambda: restoring.donor_of(self._run.graph, self._checkpoint()),
                    kept,
                    adapt,
                )
                break
            except ParamsError:
                # After a long silence another worker may have gone on with the slot.
                if self._lease.is_held or not self.poll():
                    raise
        self._watch.restored(
            self.generation_id, self._name, self.meta_params, found, init, kept
        )
        state: Tree = found.state
        return state

    def report(self, value: Any, state: Any = None, metrics: Any = None) -> None:
        """Save the training state, then report it with its value.

        Args:
            value: How good the state is; None if it was not evaluated.
            state: The training state, any pytree; it is saved atomically. A path, if
                the loop has saved it itself. None: nothing was saved.
            metrics: Further figures, as plain data.

        Raises:
            As `PopulationController.set_eval`.
        """
        if self._lease.slot is None or self._run.closed:
            if not self._has_dropped:
                self._has_dropped = True
                logger.warning(
                    "step %d of worker %d was not recorded: the run has ended, or its "
                    "slot was given back. Report while worker.running, and before "
                    "`with` ends.",
                    self.step,
                    self.worker_id,
                )
            return
        # Else the state holds no optimiser of optax.
        if "optax" in sys.modules and not (state is None or isinstance(state, str)):
            place = self.generation_id, self._name, self.meta_params
            self._watch.reported(*place, state)
        at = Position(self.worker_id, self.generation_id, self.step)
        self.overhead_s += self._lease.report(at, state, value, metrics)

    def busy(self, seconds: float) -> None:
        """Say that the next poll or report may be this many seconds later than usual.

        For a long evaluation, say. Only needed with `worker_timeout`; the compilation
        of the first step is allowed for.

        Raises:
            ValueError: If the seconds are no positive, finite number.
        """
        if type(seconds) not in (int, float) or not 0 < seconds < math.inf:
            raise ValueError(
                f"busy needs a positive number of seconds, got {seconds!r}."
            )
        self._lease.extend(float(seconds))

    def reject(self, reason: str) -> None:
        """Say that the params that were handed out are of no use: a damaged file, say.

        They count as lost from now on, for all slots, and the slot goes on from the
        newest that are left: the next `poll` returns True.

        Raises:
            ValueError: If nothing that was saved was handed out.
        """
        self._run.check_open()
        if self._lease.slot is None or self.params is None:
            raise ValueError(
                "reject needs params that poll has handed out, and there are none: "
                "this worker begins afresh. What failed is not what was saved."
            )
        rejected, reason = self._checkpoint(), codec.readable(str(reason))
        self._lease.reject(rejected, reason)
        logger.warning(
            "worker %d rejected the params of step %d: %s",
            self._lease.slot,
            rejected.step,
            reason,
        )

    def release(self) -> None:
        """Give the slot back; another worker may go on with it."""
        self._lease.release()

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self._run.seed

    @property
    def key(self) -> jax.Array:
        """A PRNG key that depends on the run's seed, the slot and the step alone."""
        return keys.key(self._run.seed, self.worker_id, self.step)

    @property
    def lineage(self) -> list[Checkpoint]:
        """All checkpoints that led to this one, from the root."""
        return self._run.graph.lineage(self._checkpoint())

    @property
    def save_to(self) -> str | None:
        """A path for loops that save by themselves, one for each step; None in memory.

        Its folder exists. Save there, then call `report(value, worker.save_to)`.
        """
        if self._run.log_dir is None:
            return None
        self._run.check_open()
        folder = self._run.log_dir / OWN_FOLDER / self.generation_id
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder / str(self.step))

    @property
    def load_from(self) -> str | None:
        """The path that the loop reported for these params; None to begin afresh."""
        if self.params is None or isinstance(self.params, Saved):
            return None
        return str(self.params)

    def _checkpoint(self) -> Checkpoint:
        """The checkpoint that was handed out."""
        graph = self._run.graph
        found = graph.get_checkpoint(Ref(self.generation_id, self._handed_out))
        return found or graph.root(self.generation_id)

    @functools.cached_property
    def _watch(self) -> Watch:
        from population.in_force.watch import Watch

        return Watch(self._run.notices, self._run.probes)

    @property
    def _name(self) -> str:
        return f"worker {self.worker_id}"

    def _show(self, found: ActiveWorker) -> None:
        self.worker_id = -1 if self._lease.slot is None else self._lease.slot
        self.params = found.params
        self.meta_params = found.meta_params
        self.generation_id = found.generation_id
        self.step = self._handed_out = found.step


def _has_ended(run: OpenRun, stopped: threading.Event) -> bool:
    """Whether `stop=` or the engine has ended the run."""
    return stopped.is_set() or run.finished()
