"""The state of a golden script: the controllers, what it knows, and their answers.

Everything goes through the public calls of the library; their results and exceptions
are recorded, and in some scripts also a digest of the journal after each call.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from population import Checkpoint, Keep, PopulationController, Start, Stop, Worker
from population.base import InMemory
from tests import probe
from tests.golden import tables
from tests.golden.policies import WILD, choose
from tests.helpers import Clock

HELD = InMemory()  # The one name that scripts need and the facade has not.
HUGE_S = 1e9  # A timeout that is never reached here.
JOURNAL = "journal.sqlite"


class Training(NamedTuple):
    """A generation that a script knows.

    Attributes:
        generation_id: Its id.
        worker_id: The slot that trains it.
        step: The step at which the script learned of it.
    """

    generation_id: str
    worker_id: int
    step: int


class Stage:
    """The state of one script.

    Args:
        seed: Decides everything.
        folder: An empty folder.

    Attributes:
        rng: Draws what the script does.
        kind: "loops", "workers", "claimed" or "forked".
        places: The controllers, as if each were a process.
        handles: The workers, each with its place.
        holders: Which worker has which slot, as far as the script knows.
        known: The generations that the script knows.
        open_reports: Reports that lack a value or params.
        counts: How often each call was made.
    """

    def __init__(self, seed: int, folder: pathlib.Path) -> None:
        self.seed, self.folder = seed, folder
        self.rng = rng = random.Random(seed)
        self.clock = Clock()
        kinds = ["loops", "workers", "claimed", "forked"]
        self.kind = rng.choices(kinds, [45, 25, 18, 12])[0]
        self.policy, self.size = choose(rng)
        self.saves = rng.choice(["never", "often", "often", "always"])
        self.arrays = rng.random() < 0.3
        self.looks = seed % 6 == 0
        self.run = folder / "run"
        self.forked: pathlib.Path | None = None
        timeout = None if rng.random() < 0.8 else HUGE_S
        keep = rng.choice([None, None, Keep(everything=True), Keep(last=2)])
        self.options: dict[str, Any] = {
            "clock": self.clock,
            "worker_timeout": timeout,
            "keep": keep,
            "stop": self._stop(),
        }
        self.mode = rng.choice(["min", "max"])
        self.places: list[PopulationController] = []
        self.handles: list[tuple[Worker, PopulationController]] = []
        self.holders: dict[int, object] = {}
        self.known: list[Training] = []
        self.open_reports: list[tuple[int, str, int]] = []
        self.rows: list[tables.Row] = []
        self.counts: dict[str, int] = {}
        self.starts = [self._start(worker_id) for worker_id in range(self.size)]

    def _stop(self) -> Stop | None:
        rng = self.rng
        return rng.choice(
            [
                None,
                None,
                Stop(steps=rng.randint(4, 14)),
                Stop(reports=rng.randint(5, 40)),
                Stop(patience=rng.randint(3, 9), value=-5.0),
                Stop(seconds=float(rng.randint(20, 90))),
            ]
        )

    def _start(self, worker_id: int) -> Any:
        rng, meta = self.rng, {"h": float(worker_id)}
        if rng.random() < 0.8:
            return meta
        step = rng.choice([0, 1, 2])
        params: Any = rng.choice(["trained elsewhere", None])
        if self.arrays and rng.random() < 0.5:
            params = {"w": np.full(2, worker_id, np.float32)}
        return Start(meta, params, step)

    def opened(self) -> PopulationController:
        """Another process opens the run that is played now."""
        if self.forked is not None:
            mutator, starts = WILD.make(), [None] * self.size
        else:
            mutator, starts = self.policy.make(), self.starts
        return PopulationController(
            starts, mutator, self.now, mode=self.mode, seed=self.seed, **self.options
        )

    @property
    def now(self) -> pathlib.Path:
        """The folder of the run that is played now."""
        return self.run if self.forked is None else self.forked

    def place(self) -> PopulationController:
        """Any controller."""
        return self.rng.choice(self.places)

    def call(self, name: str, said: Any, work: Callable[[], Any]) -> Any:
        """Make a call; record its name, and what it returned or raised.

        Returns:
            The answer; None after an exception.
        """
        back = self.rng.random() < 0.03
        passed = -3 if back else self.rng.choice([0, 0, 0.25, 0.5, 1, 1.5, 4])
        self.clock.advance(passed)
        answer, noted = None, None
        try:
            answer = work()
            noted = told(answer)
        except Exception as error:
            noted = f"raises {type(error).__name__}"
        probe.settle()  # Another thread records removals.
        key = name.split(" ")[0]
        self.counts[key] = self.counts.get(key, 0) + 1
        seen = tables.digest(self.tables(with_calls=False)) if self.looks else ""
        self.rows.append([name, told(said), noted, seen])
        return answer

    def look(self) -> None:
        """Learn of new generations, from any process."""
        place = self.place()
        heard = {training.generation_id for training in self.known}
        for worker_id, work in enumerate(place.workers):
            if work.generation_id not in heard:
                self.known.append(Training(work.generation_id, worker_id, work.step))

    def tables(self, *, with_calls: bool = True) -> tables.Tables:
        """All that is recorded, of the run and of its fork, and all answers."""
        names = tables.Names(self.folder)
        found: tables.Tables = {}
        for folder in (self.run, self.forked):
            if folder is not None and (folder / JOURNAL).exists():
                prefix = "" if folder == self.run else "fork "
                for table, rows in tables.read(folder / JOURNAL, names).items():
                    found[prefix + table] = rows
        if with_calls:
            found["calls"] = [names.cell(row) for row in self.rows]
        return found

    def close(self, place: PopulationController) -> None:
        """A process ends, and its workers with it."""
        ended = [handle for handle, lives_in in self.handles if lives_in is place]
        self.handles = [pair for pair in self.handles if pair[1] is not place]
        gone: list[object] = [place, *ended]
        self.holders = {
            worker_id: holder
            for worker_id, holder in self.holders.items()
            if not any(holder is one for one in gone)
        }
        self.places.remove(place)
        place.close()

    def leave(self) -> None:
        """Every process ends."""
        for place in list(self.places):
            with contextlib.suppress(Exception):
                self.close(place)


def newest(place: PopulationController) -> list[Checkpoint]:
    """The checkpoint from which each slot continues, as of now."""
    probe.refresh(place)
    return probe.newest(place)


def told(answer: Any) -> Any:
    """An answer as plain data; numbers that are not finite as strings."""
    if isinstance(answer, (np.ndarray, np.generic)):
        return told(answer.tolist())
    if isinstance(answer, float):
        return answer if abs(answer) < float("inf") else repr(answer)
    if answer is None or type(answer) in (bool, int, str):
        return answer
    if isinstance(answer, Mapping):
        return [[told(key), told(value)] for key, value in answer.items()]
    if isinstance(answer, InMemory):
        return f'held "{answer.session}",{answer.number}'
    if isinstance(answer, (set, frozenset)):
        return [told(inner) for inner in sorted(answer)]
    if isinstance(answer, (list, tuple)):
        return [told(inner) for inner in answer]
    if isinstance(answer, pathlib.PurePath):
        return f"path {answer}"
    return f"a {type(answer).__name__}"
