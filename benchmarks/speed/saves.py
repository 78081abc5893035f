"""The disk space of a long run of saves, and the cost of removing the old ones.

A population reports arrays of 100 kB with each value, so that every report is a save.
After each the bytes of what the store holds are compared with what is reachable.

    python -m benchmarks.speed.saves && python -m benchmarks.render
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.record import RESULTS, Figure, circumstances, shown, spread, write
from population import PopulationController
from population.mutators import PopulationBasedTraining
from population.params import FileParams
from population.run.params_manager import ParamsManager
from population.space import LogUniform, Perturb

STEPS_PER_EXPLOIT = 10
GOAL_PER_CENT = 2.0
SPACE = {"learning_rate": LogUniform(1e-4, 1e-1)}
ABOUT = [
    "`PopulationBasedTraining` decides for a member every 10 reports, and each report",
    "is a save of 100 kB in a file. The peak is the most bytes in `params/` after any",
    "report, over the reachable checkpoints times the bytes of one save. Nothing is",
    "trained between two reports: shares are of the time of polls, saves and reports.",
]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        saves: In a run.
        slots: The populations.
        floats: Of a save.
        repetitions: Runs of each kind, with other seeds.
    """

    saves: int = 10_000
    slots: tuple[int, ...] = (8, 64)
    floats: int = 25_000
    repetitions: int = 3


QUICK = Sizes(saves=200, slots=(2, 4), floats=100, repetitions=1)


class Found(NamedTuple):
    """The figures of one run.

    Attributes:
        peak: The most bytes, over those of what was reachable then.
        looking: The search for what is not needed, in per cent of the time of polls
            and reports.
        unlinking: The removal from the disk, in per cent of that time too.
        each_ms: A poll and a report with its save, in milliseconds.
        removed: How many saves were removed.
    """

    peak: float
    looking: float
    unlinking: float
    each_ms: float
    removed: int


class Weighed(FileParams):
    """A store that counts the bytes of its saves."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._root = folder
        self._bytes: dict[str, int] = {}
        self._lock = threading.Lock()  # Another thread removes.
        self.total = 0
        self.one = 0
        self.removed = 0

    def save(self, name: str, tree: Any) -> str:
        """Save, and count the bytes of the file."""
        path = super().save(name, tree)
        with self._lock:
            self.one = self._bytes[path] = (self._root / path).stat().st_size
            self.total += self.one
        return path

    def remove(self, path: str) -> None:
        """Remove; the total is reduced once the file is off the disk."""
        super().remove(path)
        with self._lock:
            if path in self._bytes and not (self._root / path).exists():
                self.total -= self._bytes.pop(path)
                self.removed += 1

    def on_disk(self) -> int:
        """The bytes of all saves, counted on the disk itself."""
        paths = (
            os.path.join(folder, name)
            for folder, _, names in os.walk(self._root)
            for name in names
            if os.path.basename(folder) != ".runs"  # Marks of runs, no saves.
        )
        return sum(os.stat(path).st_size for path in paths)


class Stopwatch:
    """Adds up the time that functions take.

    Attributes:
        seconds: So far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its calls are timed."""

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write `results/saves.json`."""
    parser = argparse.ArgumentParser(description="What saves take on the disk.")
    parser.add_argument("--quick", action="store_true", help="few saves, for a test")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "saves.json")
    options = parser.parse_args(arguments)
    if options.quick and options.out.parent == RESULTS:
        parser.error("--quick figures are no results: pass --out with another folder.")
    sizes = QUICK if options.quick else Sizes()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        result = {
            "title": "Saved states on the disk",
            "about": ABOUT,
            "command": "python -m benchmarks.speed.saves" + " --quick" * options.quick,
            **circumstances(folder, ["numpy", "jax", "flax"]),
            "seed": f"0 to {sizes.repetitions - 1}",
            "repetitions": sizes.repetitions,
            "sizes": dataclasses.asdict(sizes),
        }
        figures = measure(folder, sizes)
    result["figures"] = [figure.as_json() for figure in figures]
    write(options.out, result)
    for figure in figures:
        print(shown(figure), flush=True)


def measure(folder: pathlib.Path, sizes: Sizes) -> list[Figure]:
    """Runs of every kind, in turns."""
    kinds = [(slots, together) for slots in sizes.slots for together in (False, True)]
    found: dict[tuple[int, bool], list[Found]] = {kind: [] for kind in kinds}
    for seed in range(sizes.repetitions):
        for slots, together in kinds:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                root = pathlib.Path(name)
                found[slots, together].append(run(root, sizes, slots, together, seed))
    return [figure for kind in kinds for figure in _figures(kind, sizes, found[kind])]


def run(
    folder: pathlib.Path, sizes: Sizes, slots: int, together: bool, seed: int
) -> Found:
    """One run, timed."""
    looking, unlinking = Stopwatch(), Stopwatch()
    with _timed(looking, unlinking):
        return _run(folder, sizes, slots, together, seed, looking, unlinking)


def _run(
    folder: pathlib.Path,
    sizes: Sizes,
    slots: int,
    together: bool,
    seed: int,
    looking: Stopwatch,
    unlinking: Stopwatch,
) -> Found:
    """One run.

    Args:
        folder: The run folder.
        sizes: How many saves, and how large.
        slots: The size of the population.
        together: Whether the members wait for each other.
        seed: The seed of the run, its values and its arrays.
        looking: Times the search for what is not needed.
        unlinking: Times the removal from the disk.
    """
    store = Weighed(folder / "params")
    mutator = PopulationBasedTraining(
        Perturb(SPACE), STEPS_PER_EXPLOIT, synchronous=together
    )
    controller = PopulationController.from_space(
        SPACE, slots, mutator, folder, params=store, seed=seed
    )
    rng = np.random.default_rng(seed)
    tree = {"weights": rng.normal(size=sizes.floats).astype(np.float32)}
    total, peak = Stopwatch(), 0.0
    poll = total.timing(controller.maybe_get_worker_data)
    report = total.timing(controller.set_eval)
    work = controller.workers
    steps = [0] * slots
    for number in range(sizes.saves):
        slot = number % slots
        tree["weights"][0] = number
        news = poll(slot, work[slot].generation_id, steps[slot], None, None)
        if news is not None:
            work[slot], steps[slot] = news, news.step
        steps[slot] += 1
        generation_id, value = work[slot].generation_id, float(rng.random())
        report(slot, generation_id, steps[slot], tree, value)
        needed = len(controller.reachable()) * store.one
        peak = max(peak, store.total / needed)
    controller.close()
    if store.on_disk() != store.total:
        raise SystemExit(
            f"{store.on_disk()} bytes are in params/, but {store.total} were counted: "
            "the figures would be wrong. Mend the counting in Weighed."
        )
    return Found(
        peak,
        100 * looking.seconds / total.seconds,
        100 * unlinking.seconds / total.seconds,
        1e3 * total.seconds / sizes.saves,
        store.removed,
    )


@contextlib.contextmanager
def _timed(looking: Stopwatch, unlinking: Stopwatch) -> Iterator[None]:
    """Time the search and the unlinking of all runs that begin meanwhile."""
    sweep, remove = ParamsManager.sweep, Weighed.remove
    ParamsManager.sweep = looking.timing(sweep)  # type: ignore[method-assign]
    Weighed.remove = unlinking.timing(remove)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ParamsManager.sweep, Weighed.remove = sweep, remove  # type: ignore[method-assign]


def _figures(kind: tuple[int, bool], sizes: Sizes, found: list[Found]) -> list[Figure]:
    slots, together = kind
    how = "synchronous" if together else "asynchronous"
    section = f"{slots} members, {how}, {sizes.saves:,} saves"

    def row(what: str, unit: str, name: str, at_most: float | None = None) -> Figure:
        values = spread([getattr(one, name) for one in found])
        return Figure(section, what, unit, values, at_most=at_most)

    return [
        row("peak of the bytes, over what is reachable", "", "peak", 1.2),
        row("looking for what is not needed", "%", "looking", GOAL_PER_CENT),
        row("unlinking, in a thread beside the run", "%", "unlinking"),
        row("a poll, a save and a report", "ms", "each_ms"),
        row("saves that were removed", "", "removed"),
    ]


if __name__ == "__main__":
    main()
