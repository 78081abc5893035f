"""What saving costs, from one large array to whole runs.

`FileParams` beside raw writes and reads of the same bytes, the share of a save in a
report, the engines with saves beside the same without, and the removal of saves.

    python -m benchmarks.speed.saving && python -m benchmarks.render
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.record import RESULTS, Figure, circumstances, shown, write
from benchmarks.speed import (
    footprint,
    large_saves,
    removals,
    saved_loops,
    saved_stacks,
    savers,
    small_saves,
)

ABOUT = [
    "A large state is written and read by each in turn, in one folder, its arrays",
    "already on the host; it is removed before the next one's turn, and read from the",
    "cache of the system. Synced: until all of it is on the disk. Memory is that of a",
    "process of its own, beyond the arrays that are saved, or loaded. A small state is",
    "an MLP 64-64 on digits with Adam. In threads (one a member) and processes (one a",
    "core) no member branches, and no worker changes its slot, except where turns are",
    "named: each begins with a load. So runs with and without saves train the same.",
    "They are timed from when all workers have reported to the last report. The",
    "stacked engine has PBT; the bare scan trains and evaluates without a controller.",
    "Removal is a run beside the same run with `Keep(everything=True)`: the processor",
    "time is that of all threads, also of the one that removes, and all shares are of",
    "the time from one report to the next. What is held is counted by the store, after",
    "each report.",
]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        repetitions: Of everything.
        large: The ways to save a large state.
        footprints: Those of them whose memory is measured.
        arrays: Of the large state.
        floats: Of each of them.
        problem: The model of the small state, and of the runs.
        slices: Turns with the small state in a repetition.
        count: Saves, loads or reports of a turn.
        members: Of the runs.
        loops: Reports of each member in threads and processes.
        stacks: Reports of each member in a stack, by steps a report.
        removals: Saves of the runs that remove.
        removed_floats: Of each of them.
        pace_s: Seconds from one of these saves to the next.
    """

    repetitions: int = 5
    large: Sequence[str] = savers.NAMES
    footprints: Sequence[str] = savers.NAMES
    arrays: int = 20
    floats: int = 3_750_000
    problem: str = "mlp"
    slices: int = 10
    count: int = 100
    members: int = 16
    loops: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {saved_loops.THREADS: 300, saved_loops.PROCESSES: 300}
    )
    stacks: Mapping[int, int] = dataclasses.field(
        default_factory=lambda: {1: 1000, 100: 40}
    )
    removals: int = 10_000
    removed_floats: int = 25_000
    pace_s: float = 0.002


QUICK = Sizes(
    repetitions=1,
    footprints=(savers.OURS,),
    arrays=2,
    floats=50_000,
    problem="toy",
    slices=1,
    count=4,
    members=2,
    loops={saved_loops.THREADS: 6, saved_loops.PROCESSES: 6},
    stacks={1: 4},
    removals=40,
    removed_floats=100,
    pace_s=0.0001,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write `results/saving.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few, to try it")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "saving.json")
    options = parser.parse_args(argv)
    if options.quick and options.out.parent == RESULTS:
        parser.error("--quick figures are no results: pass --out with another folder.")
    sizes = QUICK if options.quick else Sizes()
    packages = ["jax", "jaxlib", "numpy", "flax", "optax", "orbax-checkpoint"]
    packages += ["safetensors"] * savers.is_installed(savers.SAFETENSORS)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        result = {
            "title": "Saving",
            "about": ABOUT,
            "command": "python -m benchmarks.speed.saving" + " --quick" * options.quick,
            **circumstances(folder, packages),
            "seed": savers.SEED,
            "repetitions": sizes.repetitions,
            "sizes": dataclasses.asdict(sizes),
        }
        figures: list[dict[str, Any]] = []
        for figure in measure(sizes, folder):
            print(shown(figure), flush=True)
            figures.append(figure.as_json())
            # Each time: whatever happens to the rest, this is measured.
            write(options.out, {**result, "figures": figures})


def measure(sizes: Sizes, folder: pathlib.Path) -> Iterator[Figure]:
    """All figures, from the smallest part of a save to whole runs."""
    times = sizes.repetitions

    def within(name: str) -> pathlib.Path:
        place = folder / name
        place.mkdir()
        return place

    tree = savers.state(sizes.arrays, sizes.floats)
    yield from large_saves.figures(sizes.large, tree, times, within("large"))
    del tree
    large = sizes.arrays, sizes.floats, times
    yield from footprint.figures(sizes.footprints, *large, within("memory"))
    small = times, sizes.slices, sizes.count
    yield from small_saves.figures(sizes.problem, *small, within("small"))
    task = sizes.problem, sizes.members
    yield from saved_loops.figures(*task, sizes.loops, times, within("loops"))
    yield from saved_stacks.figures(*task, sizes.stacks, times, within("stacks"))
    removal = sizes.removals, sizes.removed_floats, sizes.pace_s, times
    yield from removals.figures(*removal, within("removals"))


if __name__ == "__main__":
    main()
