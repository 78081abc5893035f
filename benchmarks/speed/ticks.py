"""How long a tick takes, compared with bare SQLite, in one run.

A tick is what a training loop asks of the controller at each report: one poll without
news and one report with a path as params, between two rounds of `WinnerTakeAllGenetic`.
All subjects take turns in small slices, in an order drawn each time, so
that a busy machine slows all equally; ratios are computed within a repetition.

    python -m benchmarks.speed.ticks && python -m benchmarks.render
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import population
from benchmarks.record import (
    RESULTS,
    Figure,
    circumstances,
    paired,
    shown,
    spread,
    write,
)
from benchmarks.speed import fresh, peer
from benchmarks.speed.subjects import (
    SEED,
    Appends,
    Inserts,
    Subject,
    Ticks,
    taking_turns,
)
from population.mutators import WinnerTakeAllGenetic

INSERT, APPEND, FLOOR = (
    "bare SQLite autocommit insert, WAL, synchronous=NORMAL",
    "bare append of 100 bytes and fdatasync",
    "the floor: data_version twice, BEGIN IMMEDIATE, one indexed insert, COMMIT",
)
GOALS = {"on disk": 2.6, "in memory": 1.5}
MANY, GOAL_OF_MANY = 512, 3.0  # A number of workers on disk, and its goal.
ABOUT = [
    "A tick is one `maybe_get_worker_data` without news and one `set_eval` with a path",
    "as params, `WinnerTakeAllGenetic` between two rounds. A ratio is to the bare",
    "insert of one row, of the same columns as a checkpoint's, in the same repetition;",
    "where a table compares sizes, to the size that it names.",
]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        checkpoints: Numbers of checkpoints already recorded, with the first of
            `workers`; the runs of different sizes are compared with `base`.
        base: One of `checkpoints`.
        workers: Numbers of workers, each with `full` checkpoints.
        full: One of `checkpoints`.
        resumed: Checkpoints of a run that is opened again.
        repetitions: Repetitions of every measurement except those of `processes`.
        processes: Fresh processes that are started for each figure.
        slices: Turns in a repetition.
        ticks: Ticks in a slice.
    """

    checkpoints: tuple[int, ...] = (10**2, 10**3, 10**4, 10**5, 10**6)
    base: int = 10**3
    workers: tuple[int, ...] = (4, 64, 512, 4096)
    full: int = 10**5
    resumed: int = 10**6
    repetitions: int = 21
    processes: int = 7
    slices: int = 8
    ticks: int = 500


QUICK = Sizes(
    checkpoints=(20, 50),
    base=20,
    workers=(2, 4),
    full=50,
    resumed=200,
    repetitions=3,
    processes=1,
    slices=2,
    ticks=10,
)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a test")
    parser.add_argument(
        "--out", type=pathlib.Path, help="by default results/ticks.json"
    )
    flags = parser.parse_args(arguments)
    out = flags.out or (None if flags.quick else RESULTS / "ticks.json")
    sizes = QUICK if flags.quick else Sizes()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        result = {
            "title": "Speed of a tick",
            "about": ABOUT,
            "command": "python -m benchmarks.speed.ticks"
            + (" --quick" if flags.quick else ""),
            **circumstances(folder, ["numpy"]),
            "seed": SEED,
            "repetitions": sizes.repetitions,
            "sizes": dataclasses.asdict(sizes),
        }
        start = time.perf_counter()
        figures, samples = measure(folder, sizes, peer.missing(ask=not flags.quick))
        result["seconds"] = round(time.perf_counter() - start)
    result["figures"] = [figure.as_json() for figure in figures]
    result["microseconds"] = samples
    if out is not None:  # A quick look leaves the recorded results alone.
        write(out, result)
    for figure in figures:
        print(shown(figure), flush=True)


def measure(
    folder: pathlib.Path, sizes: Sizes, no_peer: str | None
) -> tuple[list[Figure], dict[str, list[float]]]:
    """Measure everything.

    Args:
        folder: For temporary files.
        sizes: How much is measured.
        no_peer: Why the peer cannot be compared; None if it can.

    Returns:
        The figures, and the microseconds of each subject in each repetition.
    """
    with contextlib.ExitStack() as stack:
        references = _references(folder, stack)
        ticks = _ticks(folder, sizes, stack)
        others = _variations(folder, sizes, ticks, stack)
        peers = {} if no_peer else _peers(folder, sizes, stack)
        subjects = {**references, **ticks, **others, **peers}
        samples = taking_turns(subjects, sizes.repetitions, sizes.slices, sizes.ticks)
        rows = _rows("References", references, samples)
        rows += _tables(sizes, samples)
        rows += _rows("Parts and variations (on disk)", others, samples)
        for workers, size in (
            (sizes.workers[0], sizes.checkpoints[-1]),
            (sizes.workers[-1], sizes.full),
        ):
            run = ticks[_name("on disk", workers, size)]
            rows += fresh.resume(run, workers, sizes.resumed, sizes.processes)
    rows += fresh.imports(sizes.processes)
    section = f"The {peer.PEER} package's ticks"
    rows += _rows(section, peers, samples)
    if no_peer:
        rows.append(Figure(section, "not compared", note=no_peer))
    rounded = {name: [round(s, 3) for s in found] for name, found in samples.items()}
    return rows, rounded


def _references(
    folder: pathlib.Path, stack: contextlib.ExitStack
) -> dict[str, Subject]:
    for name in ("inserts", "floor", "appends"):
        (folder / name).mkdir()
    return {
        INSERT: stack.enter_context(closing(Inserts(folder / "inserts"))),
        APPEND: stack.enter_context(closing(Appends(folder / "appends"))),
        FLOOR: stack.enter_context(closing(Inserts(folder / "floor", floor=True))),
    }


def _ticks(
    folder: pathlib.Path, sizes: Sizes, stack: contextlib.ExitStack
) -> dict[str, Ticks]:
    """A run of every size in every place."""
    pairs = {(sizes.workers[0], size) for size in sizes.checkpoints}
    pairs |= {(workers, sizes.full) for workers in sizes.workers}
    ticks = {}
    for place in GOALS:
        for workers, size in sorted(pairs):
            name = _name(place, workers, size)
            root = folder / name if place == "on disk" else None
            run = Ticks(ours, root, workers, size)
            ticks[name] = stack.enter_context(closing(run))
    return ticks


def _variations(
    folder: pathlib.Path,
    sizes: Sizes,
    ticks: Mapping[str, Ticks],
    stack: contextlib.ExitStack,
) -> dict[str, Subject]:
    few, full = sizes.workers[0], sizes.full
    improving = Ticks(ours, folder / "improving", few, full, improving=True)
    found: dict[str, Subject] = {
        f"a poll alone, {few} workers": ticks[_name("on disk", few, full)].polls,
        f"a tick, each value the best so far, {few} workers": stack.enter_context(
            closing(improving)
        ),
    }
    for workers in (few, sizes.workers[-1]):
        run = Ticks(ours, folder / f"late {workers}", workers, full)
        what = "two reports, a checkpoint and later its value"
        stack.enter_context(closing(run))
        found[f"{what}, {workers:,} workers"] = run.late
    return found


def _peers(
    folder: pathlib.Path, sizes: Sizes, stack: contextlib.ExitStack
) -> dict[str, Subject]:
    """The peer's ticks: few, since with a log_dir each writes the whole history."""
    found: dict[str, Subject] = {}
    few = sizes.workers[0]
    for size in (size for size in sizes.checkpoints if size <= 10**3):
        for place in GOALS:
            name = f"{peer.PEER} {_name(place, few, size)}"
            root = folder / name if place == "on disk" else None
            run = Ticks(peer.maker(), root, few, size, thin=20)
            found[name] = stack.enter_context(closing(run))
    return found


def _tables(sizes: Sizes, samples: Mapping[str, list[float]]) -> list[Figure]:
    """The ratio of each tick to the bare insert, and of each size to the smallest."""
    few, full = sizes.workers[0], sizes.full
    rows: list[Figure] = []
    flat: list[Figure] = []
    for place, goal in GOALS.items():
        recorded = {
            f"{size:,} checkpoints": _name(place, few, size)
            for size in sizes.checkpoints
        }
        crowds = {
            f"{workers:,} workers": _name(place, workers, full)
            for workers in sizes.workers
        }
        section = f"A tick {place}, by what is recorded ({few} workers)"
        rows += [_row(section, *item, samples, goal) for item in recorded.items()]
        section = f"A tick {place}, by workers ({full:,} checkpoints)"
        for workers, item in zip(sizes.workers, crowds.items(), strict=True):
            many = workers >= MANY and place == "on disk"
            rows.append(_row(section, *item, samples, GOAL_OF_MANY if many else goal))
        from_base = dict(list(recorded.items())[sizes.checkpoints.index(sizes.base) :])
        flat += [_flat(place, from_base, samples), _flat(place, crowds, samples)]
    return rows + flat


def ours(initial: list[Any], log_dir: str | None) -> population.PopulationController:
    """A controller that does not decide anything while it is measured."""
    mutator = WinnerTakeAllGenetic(copy.deepcopy, steps_per_exploit=10**9)
    return population.PopulationController(initial, mutator, log_dir, seed=SEED)


def _name(place: str, workers: int, size: int) -> str:
    return f"{place}, {workers} workers, {size} checkpoints"


def _rows(
    section: str, subjects: Iterable[str], samples: Mapping[str, list[float]]
) -> list[Figure]:
    return [_row(section, name, name, samples) for name in subjects]


def _row(
    section: str,
    what: str,
    name: str,
    samples: Mapping[str, list[float]],
    goal: float | None = None,
) -> Figure:
    ratio = None if name == INSERT else paired(samples[name], samples[INSERT])
    return Figure(section, what, "µs", spread(samples[name]), ratio, goal)


def _flat(
    place: str, names: Mapping[str, str], samples: Mapping[str, list[float]]
) -> Figure:
    """The ratio of the slowest size to the first."""
    first, *others = names
    ratios = {
        what: paired(samples[names[what]], samples[names[first]]) for what in others
    }
    slowest = max(ratios, key=lambda what: ratios[what].median)
    return Figure(
        "Flatness: the slowest size beside the smallest",
        f"{place}, {slowest} beside {first}",
        ratio=ratios[slowest],
        at_most=1.3,
    )


if __name__ == "__main__":
    main()
