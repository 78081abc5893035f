"""The worker: the handle through which a training loop trains slots."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import secrets
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from population.base import codec
from population.base.errors import LostParamsError, MisfitError, ParamsError
from population.base.run_paths import OWN_FOLDER
from population.base.types import ActiveWorker, Checkpoint, InMemory, Ref, Saved
from population.core import branching
from population.core.known import check_id
from population.run import keys
from population.run.leases import Position, SlotLease
from population.run.open_run import OpenRun

if TYPE_CHECKING:
    import jax

    from population.in_force.watch import Watch
    from population.params.reported import ReportedState

logger = logging.getLogger("population")
Tree = TypeVar("Tree")


class Worker:
    """Trains a slot of the population, or several in turn.

    `controller.worker(worker_id)` makes it; for one thread only. If its slot waits for
    a decision, it changes to another slot, and `worker_id` changes too.

    Attributes:
        worker_id: The slot.
        meta_params: The hyperparameters of the slot.
        params: The params to continue from: a reported path, `Saved`, or None.
        generation_id: The slot's generation.
        step: Training steps; set by `poll`, then increased by the loop.
        turn: After this many saved reports it changes to a slot with fewer steps.
        device: The device to train on; None: JAX's default. Set by an engine.
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
        self._save_name: str | None = None
        self._named_at = 0
        # The slot, the params and the state of the last report that a store has saved.
        self._reported: tuple[int, Saved, ReportedState] | None = None
        self.worker_id = -1
        self.meta_params: Any = None
        self.params: Any = None
        self.generation_id = ""
        self.step = 0
        self.turn = 10
        self.device: jax.Device | None = None
        self.overhead_s = 0.0
        slot = None if worker_id is None else check_id(run.size, worker_id)
        # Not a method: else a deleted worker would not give its slot back at once.
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
        """Return whether there is new work; block while all slots wait or are taken.

        Returns:
            True at the start, after a branch and after a change of the slot: call
            `restore` then. False to continue, and when the run has ended.
        """
        start, waited = time.perf_counter(), self._lease.waited_s
        at = None
        if self._adopted:
            at = Position(self.worker_id, self.generation_id, self.step)
        found = self._lease.poll(at, self.turn)
        waited = self._lease.waited_s - waited
        self.overhead_s += time.perf_counter() - start - waited
        if found is None:
            self._reported = None
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
        """Return the state to continue from, with the slot's hyperparameters in force.

        `init(meta_params)` decides which are in force: in a saved state, the numbers of
        each state of optax's `inject_hyperparams` are replaced by those at the same
        place of `init(meta_params)`. Numbers that a schedule drives stay as saved.

        If the slot continues from the state that this worker reported last, the arrays
        that the loop still holds are used. If a save is lost, as after a power cut, the
        slot continues from the one before: `step`, `meta_params`, `params` and
        `generation_id` are then of that start.

        Args:
            init: Makes a fresh state from meta_params; its result also defines the
                structure and dtypes of a restored one. Keep expensive work out of it.
            keep: Injected numbers that the loop changes by itself: they stay as saved.
                A name selects all numbers of that name, a place (see errors) only one.
            adapt: Called if a saved state has another structure than a fresh one, as
                when the optimiser is a hyperparameter: `adapt(saved,
                donor_meta_params, fresh)` returns the state to continue from.

        Raises:
            ParamsError: Saved params cannot be read or do not fit; or they are lost,
                and their store may not be this run's, or older ones are lost, too.
            ValueError: The loop has saved the params itself, or `keep` names no
                injected number.
            TypeError: `keep` is not a name or names.
        """
        from population.in_force import restoring

        kept = restoring.names_of(keep)
        while True:
            try:
                found = restoring.restored(
                    self.params,
                    self.meta_params,
                    init,
                    self._load,
                    lambda: branching.donor_of(self._run.graph, self._checkpoint()),
                    kept,
                    adapt,
                )
                break
            except ParamsError as error:
                if not self._has_other_work(error):
                    raise
        self._watch.restored(
            self.generation_id, self._name, self.meta_params, found, init, kept
        )
        state: Tree = found.state
        return state

    def report(self, value: Any, state: Any = None, metrics: Any = None) -> None:
        """Save the training state, then report it with its value.

        Args:
            value: The result of the evaluation; None if the state was not evaluated.
            state: The training state, any pytree; it is saved atomically. A path, if
                the loop has saved it itself. None: a report without a state.
            metrics: Further figures, as plain data.

        Raises:
            Exception: As `PopulationController.set_eval` raises.
        """
        if self._lease.slot is None or self._run.closed:
            self._save_name = None
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
        # Without optax loaded, the state holds none of its optimisers.
        if "optax" in sys.modules and not (state is None or isinstance(state, str)):
            place = self.generation_id, self._name, self.meta_params
            self._watch.reported(*place, state)
        at = Position(self.worker_id, self.generation_id, self.step)
        took_s, saved = self._lease.report(at, state, value, metrics)
        start = time.perf_counter()
        self._save_name = None
        if saved is not None:
            from population.params.reported import ReportedState

            self._reported = self.worker_id, saved, ReportedState(state)
        self.overhead_s += took_s + time.perf_counter() - start

    def fail(self, reason: str) -> bool:
        """Record that this trial has failed, and give the slot back.

        It continues from its last saved state: the next `poll` claims a slot again,
        those with fewer failures first. After `max_failures` in a row, without a finite
        report between, the slot is retired. Engines call this if `train` raises and
        `on_error="fail"`.

        Args:
            reason: What has happened, for people.

        Returns:
            False if the worker has no trial: it had no slot, or gave it back otherwise.

        Raises:
            TypeError: `reason` is not a str.
            NoProgressError: All slots are retired, because they failed too often.
        """
        return self._lease.fail(reason)

    def busy(self, seconds: float) -> None:
        """Allow the next poll or report to be this many seconds later than usual.

        Only needed with `worker_timeout`, for example before a long evaluation; the
        library already allows for the compilation of the first step.

        Raises:
            ValueError: `seconds` is not a positive, finite number.
        """
        if type(seconds) not in (int, float) or not 0 < seconds < math.inf:
            raise ValueError(
                f"busy needs a positive number of seconds, got {seconds!r}."
            )
        self._lease.extend(float(seconds))

    def reject(self, reason: str) -> None:
        """Reject the params that `poll` has set, for example because of a damaged file.

        They count as lost from now on, for all slots, and the slot continues from the
        newest ones that are left: the next `poll` returns True.

        Raises:
            ValueError: `poll` has set no saved params.
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
        """Give the slot back, so that another worker can continue it."""
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
        """A path for loops that save themselves; None without `log_dir`.

        A new one after each report and each time `poll` returns True, and the same in
        between: a loop never overwrites what it has reported, nor what it loads from.
        Its folder exists. Save there, then call `report(value, worker.save_to)`.
        """
        run = self._run
        if run.log_dir is None:
            return None
        run.check_open()
        folder = run.log_dir / OWN_FOLDER / self.generation_id
        folder.mkdir(parents=True, exist_ok=True)
        if self._save_name is None or self._is_reported(self._save_name):
            self._save_name = f"{self.step}-{secrets.token_hex(8)}"
            self._named_at = self.step
        return str(folder / self._save_name)

    @property
    def load_from(self) -> str | None:
        """The path that the loop reported for these params; None: fresh weights.

        Before the first `poll`: the one that it will hand out.
        """
        params = self.params if self._adopted else self._first_params()
        if params is None or isinstance(params, (Saved, InMemory)):
            return None
        return str(params)

    def _checkpoint(self) -> Checkpoint:
        """Return the checkpoint that the last poll returned as work."""
        graph = self._run.graph
        found = graph.get_checkpoint(Ref(self.generation_id, self._handed_out))
        return found or graph.root(self.generation_id)

    def _load(self, params: Any, like: Any) -> Any:
        """Return saved params; those of the last report without reading them."""
        reported, self._reported = self._reported, None
        if reported is not None and reported[:2] == (self.worker_id, params):
            with contextlib.suppress(MisfitError):
                return reported[2].fitted(like)
        return self._run.params.load(params, like)

    def _has_other_work(self, error: ParamsError) -> bool:
        """Whether the slot has other work, after params could not be loaded.

        Raises:
            ParamsError: They are lost, and the library cannot go on without them.
        """
        if self._lease.is_held:
            if not isinstance(error, LostParamsError) or error.params is None:
                return False
            if error.params != self.params:  # `init` or `adapt` has raised it.
                return False
            self._lease.replace(self._checkpoint(), error)
        # Else another worker has taken the slot, as after a long silence.
        return self.poll()

    def _first_params(self) -> Any:
        """Return the params that the first poll will hand out."""
        graph = self._run.graph
        if self._lease.slot is None or self._run.closed:
            return self.params
        point = graph.resume_point(self._checkpoint())
        if type(point.params) is not InMemory:
            return point.params
        for found in graph.walk(point):  # Those are in the memory of another process.
            kept = found.params is not None and type(found.params) is not InMemory
            if kept and not found.diverged:
                return found.params
        return None

    def _is_reported(self, name: str) -> bool:
        """Whether `set_eval` has recorded params with this name for `save_to`."""
        span = self._run.graph.span(self.generation_id, self._named_at)
        return any(name in str(c.params) for c in span if c.params is not None)

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
        self._save_name = None


def _has_ended(run: OpenRun, stopped: threading.Event) -> bool:
    """Whether `stop=` or the engine has ended the run."""
    return stopped.is_set() or run.finished()
