"""Acknowledged reports that are lost in a power cut, on a model of the disk.

python -m benchmarks.durability.power_cuts && python -m benchmarks.render
make bench-peers    # the same, with Optuna in the table
"""

from __future__ import annotations

import argparse
import pathlib
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.durability import kept
from benchmarks.durability.kept import Subject
from benchmarks.record import RESULTS, circumstances, write
from tests.power_cut import disk, record
from tests.power_cut.record import Event

CUTS, REPORTS = 1000, 100
QUICK_CUTS, QUICK_REPORTS = 12, 10
SEED = 0
COLUMNS = (
    "",
    "acknowledged reports lost per 1,000 cuts",
    "cuts that lost any",
    "cuts that lost all",
    "most in one cut",
    "cuts",
)
DISKS = {
    "A disk that keeps only what POSIX promises": False,
    "A disk that keeps the name of a synced file, as ext4 does": True,
}
ABOUT = [
    "A program makes 100 reports, one after the other, in a folder that is on the disk",
    "from the start. Its writes, syncs and changes of names are recorded, and power is",
    "cut at random moments of the record, spread evenly over it. What was not synced",
    "before a cut is lost, kept, or lost in part: `tests/power_cut/disk.py` says how.",
    "A report is acknowledged when its call has returned; it is lost if the storage,",
    "opened by the program's own library, does not show it with its value. POSIX does",
    "not promise that the sync of a new file keeps its name without a sync of its",
    "folder; ext4 keeps it. `population`: three members that save with each report,",
    "branch and remove; the log is merged at 60 kB, not at 4 MB. Optuna: trials of",
    "four intermediate values and an end. A real system writes back by itself within",
    "a minute, and this model never: what is lost without syncs is the worst case.",
]


class Loss(NamedTuple):
    """What one cut has cost.

    Attributes:
        lost: Acknowledged reports that are missing.
        acknowledged: Reports that had been acknowledged.
    """

    lost: int
    acknowledged: int


def main(arguments: list[str] | None = None) -> None:
    """Cut, look, and write `results/power_cuts.json`."""
    parser = argparse.ArgumentParser(description="What power cuts cost.")
    parser.add_argument("--quick", action="store_true", help="few cuts, for a test")
    parser.add_argument("--peers", action="store_true", help="with Optuna")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "power_cuts.json")
    options = parser.parse_args(arguments)
    if options.quick and options.out.parent == RESULTS:
        parser.error("--quick figures are no results: pass --out with another folder.")
    if options.peers and not kept.has_optuna():
        parser.error("Optuna is not installed: run `make bench-peers`.")
    out = options.out
    if not options.peers and out.exists() and "--peers" in out.read_text():
        parser.error(f"{out.name} has Optuna's figures: make bench-peers, or --out")
    cuts = QUICK_CUTS if options.quick else CUTS
    reports = QUICK_REPORTS if options.quick else REPORTS
    flags = " --quick" * options.quick + " --peers" * options.peers
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        result = {
            "title": "Acknowledged reports that are lost in a power cut",
            "about": ABOUT,
            "command": f"python -m benchmarks.durability.power_cuts{flags}",
            **circumstances(folder, ["numpy", *["optuna"] * options.peers]),
            "seed": SEED,
            "repetitions": 1,
            "figures": [],
            "tables": tables(folder, kept.subjects(peers=options.peers), cuts, reports),
        }
    write(out, result)


def tables(
    folder: pathlib.Path, subjects: Sequence[Subject], cuts: int, reports: int
) -> list[dict[str, Any]]:
    """A table for each kind of disk.

    Raises:
        RuntimeError: There is no C compiler, or this is not Linux.
    """
    recorder = record.compiled(folder)
    if recorder is None:
        raise RuntimeError("Recording writes needs Linux with a C compiler (cc).")
    rows: dict[str, list[list[str]]] = {title: [] for title in DISKS}
    for number, subject in enumerate(subjects):
        place = folder / f"subject-{number}"
        place.mkdir()
        events = record.recorded(
            subject.command(place, reports, recorder), place, recorder
        )
        for title, keeps_names in DISKS.items():
            losses = list(_losses(subject, events, cuts, folder, keeps_names))
            rows[title].append(row(subject.name, losses))
            print(f"{title}: {rows[title][-1]}", flush=True)
    return [
        {"title": title, "columns": COLUMNS, "rows": found}
        for title, found in rows.items()
    ]


def row(name: str, losses: Sequence[Loss]) -> list[str]:
    """A row of a table."""
    lost = sum(loss.lost for loss in losses)
    any_lost = sum(loss.lost > 0 for loss in losses)
    all_lost = sum(0 < loss.lost == loss.acknowledged for loss in losses)
    most = max(loss.lost for loss in losses)
    per_1000 = f"{1000 * lost / len(losses):,.0f}"
    return [
        name,
        per_1000,
        *(f"{n:,}" for n in (any_lost, all_lost, most, len(losses))),
    ]


def _losses(
    subject: Subject,
    events: list[Event],
    cuts: int,
    folder: pathlib.Path,
    keeps_names: bool,
) -> Iterator[Loss]:
    """Yield what each cut costs."""
    choose = random.Random(SEED)
    found = disk.cuts(events, cuts, choose, keeps_names=keeps_names)
    for moment, _, tree in found:
        place = folder / "cut"
        disk.write(tree, place)
        yield Loss(*subject.lost(place, events[:moment]))
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
