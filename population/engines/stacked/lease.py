"""All slots of an open run, claimed for one loop that trains the whole population.

This is the one place where the stacked engine reaches into a run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from population.base import codec
from population.base.errors import ClaimError
from population.base.types import Checkpoint, Held, Saved
from population.controller import PopulationController
from population.core import facts
from population.core.decoding import decode
from population.run import deadlock

if TYPE_CHECKING:
    from population.core.incoming import Incoming


class SlotWork(NamedTuple):
    """What a slot trains.

    Attributes:
        generation_id: Its present generation.
        meta_params: The generation's hyperparameters.
        newest: The checkpoint from which it continues.
        waits: Whether it waits for a decision.
    """

    generation_id: str
    meta_params: Any
    newest: Checkpoint
    waits: bool


class Trained(NamedTuple):
    """A checkpoint to report.

    Attributes:
        worker_id: The slot.
        generation_id: The generation that was trained.
        step: Its training steps.
        params: A tree to save, or `Held()`.
        value: The value; None if it was not evaluated or is recorded already.
        metrics: Further figures, or None.
    """

    worker_id: int
    generation_id: str
    step: int
    params: Any
    value: float | None = None
    metrics: Any = None


class PopulationLease:
    """The slots of a run in the hands of one loop.

    Args:
        controller: The population; all its slots are claimed, unless it has ended.

    Attributes:
        claimed: Whether there is anything to train.
        seed: The run's seed.
        space: What the meta_params may be, or None.
        stop: When the run ends.
        notices: Logs each warning of the run once.
        recording_s: Seconds for recording reports and for decisions, without saving.

    Raises:
        TypeError: It is no PopulationController.
        JournalError: The run is closed or read-only.
        ClaimError: Another process or loop trains a slot.
    """

    def __init__(self, controller: PopulationController) -> None:
        if not isinstance(controller, PopulationController):
            raise TypeError(
                "vectorized.run needs a PopulationController as its first argument, "
                f"got {type(controller).__name__}."
            )
        self._controller = controller
        self._session = session = controller.session
        session.check_open(to_train=True)
        self.seed, self.stop = session.seed, session.stop
        self.space, self.notices = controller.space, session.notices
        self.recording_s = 0.0
        self.claimed = not controller.finished
        if not self.claimed:
            return
        with session.news.lock:  # Two threads may ask at once.
            if session.claims.of_all is not None:
                raise ClaimError(
                    "vectorized.run needs all slots, but another loop of this "
                    "controller has claimed them. End that loop first: a controller "
                    "trains one stacked population at a time."
                )
            controller.claim_all()

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self._controller.finished

    @property
    def size(self) -> int:
        """How many slots there are."""
        return len(self._session.slots)

    def release(self) -> None:
        """Give all slots back; weights that only this process has are lost."""
        self._session.claims.release_all()

    # What is to be trained.

    @contextlib.contextmanager
    def view(self) -> Iterator[None]:
        """Within it, no other thread changes what is known of the run."""
        with self._session.news.lock:
            yield
        self._session.news.drain()

    def refresh(self, *, renew: bool) -> None:
        """Read what other processes have recorded, and renew the claims if asked to."""
        self._session.refresh()
        if renew:
            self._session.claims.renew_all()

    def slots(self) -> list[SlotWork]:
        """The work of each slot."""
        waits = self._session.waits
        return [
            SlotWork(slot.generation.generation_id, slot.meta_params, slot.newest, wait)
            for slot, wait in (
                (slot, waits(w)) for w, slot in enumerate(self._session.slots)
            )
        ]

    def taken(self) -> list[int]:
        """The slots that another process has taken over."""
        return self._session.claims.lost()

    def needed(self) -> frozenset[Held]:
        """Weights in memory that a policy may still name: snapshots must be kept."""
        return frozenset(self._session.held.pinned)

    def give_up(self, slots: Collection[int]) -> None:
        """Set slots back to their last saves: their weights are no longer in memory."""
        session = self._session

        def go_back() -> None:
            for worker_id in slots:
                session.go_back(worker_id)

        if slots:
            session.transact([], go_back)

    def resolve(self) -> None:
        """All slots wait: end the wait if no decision can come any more.

        Raises:
            RuntimeError: The run would wait forever.
        """
        deadlock.resolve(self._session, evaluators=False)

    def load(self, params: Any, like: Any) -> Any:
        """Saved params as a tree of the structure of `like`."""
        return self._session.keeper.load(params, like)

    # What was trained.

    @contextlib.contextmanager
    def checking(self, check: Callable[[Any, int], object]) -> Iterator[None]:
        """Refuse decisions whose meta_params and worker id make `check` raise."""
        with self._session.decisions.checked_by(check):
            yield

    def report(self, reports: Iterable[Trained]) -> list[Any]:
        """Save trees, then record all reports in one transaction.

        Consecutive reports may share a tree, which is saved once. If anything fails,
        the saves are undone.

        Returns:
            The params of each report, as they are recorded.
        """
        new: list[Incoming] = []
        try:
            tree: Any = None
            for report in reports:
                is_same = tree is not None and report.params is tree
                tree = report.params
                if is_same:
                    report = report._replace(params=new[-1].params)
                new.append(self._session.incoming(*report, plain=is_same))
            if new:
                self._commit(new)
        except BaseException:
            saved = [r for r in new if isinstance(r.params, Saved)]
            self._session.keeper.forget_unrecorded(saved, self._session.graph)
            raise
        return [report.params for report in new]

    def _commit(self, new: list[Incoming]) -> None:
        start = time.perf_counter()
        self._session.commit(new, self._session.claims.of_all)
        self.recording_s += time.perf_counter() - start

    def check_progress(self) -> None:
        """Raise a RuntimeError if all members diverge again and again."""
        self._session.check_progress()

    # What is known of the run.

    def firsts(self) -> list[Any]:
        """The meta_params of the first population."""
        with self._session.news.lock:
            rows = facts.begun(self._session.journal)
        return [decode(row.meta_params) for row in rows]

    def facts(self, prefix: str) -> dict[str, Any]:
        """What was recorded of the run as a whole under names that begin so."""
        with self._session.news.lock:
            texts = self._session.journal.facts()
        found = {key: text for key, text in texts.items() if key.startswith(prefix)}
        return {key: codec.decode(text) for key, text in found.items()}

    def fact(self, key: str) -> Any:
        """A fact of the run, or None."""
        return self.facts(key).get(key)

    def record_fact(self, key: str, value: Any) -> None:
        """Record a fact, unless there is one of that name."""
        session, text = self._session, codec.encode(value)
        with session.news.lock:
            if key not in session.journal.facts():
                session.transact([], lambda: session.journal.add_fact(key, text))

    def rounds_left(self, steps_per_report: int) -> float | None:
        """Rounds until `Stop` ends the run by steps or reports; None: not known."""
        left = []
        if self.stop.steps is not None:
            lowest = min(slot.newest.step for slot in self._session.slots)
            left.append((self.stop.steps - lowest) / steps_per_report)
        if self.stop.reports is not None:
            left.append((self.stop.reports - self._session.slots.reports) / self.size)
        return min(left, default=None)

    def seconds_left(self) -> float | None:
        """Seconds until `Stop` ends the run by time; None: it does not."""
        if self.stop.seconds is None:
            return None
        return self.stop.seconds - self._session.open_s
