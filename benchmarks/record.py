"""What a benchmark writes: its figures, the machine, the date and the versions.

Nothing here names a host, a user or a folder: the results are committed.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sqlite3
import statistics
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"


class Spread(NamedTuple):
    """The median and range of repeated measurements.

    Attributes:
        median: The median.
        low: The smallest.
        high: The largest.
    """

    median: float
    low: float
    high: float


class Interval(NamedTuple):
    """A mean with its confidence interval.

    Attributes:
        mean: The mean of the repetitions.
        low: Where its 95 % interval begins.
        high: Where the interval ends.
    """

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Figure:
    """One row of a table.

    Attributes:
        section: The table that it belongs to.
        what: What was measured.
        unit: Of `value`.
        value: The measurement; None if there is none, and `note` says why.
        ratio: The ratio to the reference of the same repetition; None without one.
        at_most: The goal, for `ratio` if there is one, else for `value`.
        at_least: The goal if more is better.
        digits: How many digits are shown.
        note: A remark.
    """

    section: str
    what: str
    unit: str = ""
    value: Spread | Interval | None = None
    ratio: Spread | Interval | None = None
    at_most: float | None = None
    at_least: float | None = None
    digits: int = 3
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data; `met` says whether the median or mean keeps the goal."""
        found: dict[str, Any] = {"section": self.section, "what": self.what}
        if self.value is not None:
            found |= {"unit": self.unit, "value": _rounded(self.value, self.digits)}
        if self.ratio is not None:
            found["ratio"] = _rounded(self.ratio, self.digits)
        judged = self.ratio or self.value
        if self.at_most is not None and judged is not None:
            found |= {"at_most": self.at_most, "met": judged[0] <= self.at_most}
        if self.at_least is not None and judged is not None:
            found |= {"at_least": self.at_least, "met": judged[0] >= self.at_least}
        if self.digits != 3:
            found["digits"] = self.digits
        if self.note:
            found["note"] = self.note
        return found


def spread(samples: Sequence[float]) -> Spread:
    """The median of repetitions and their range."""
    return Spread(statistics.median(samples), min(samples), max(samples))


def paired(samples: Sequence[float], reference: Sequence[float]) -> Spread:
    """The spread of the ratios, each within one repetition."""
    return spread([a / b for a, b in zip(samples, reference, strict=True)])


def shown(figure: Figure) -> str:
    """A figure as one line of text."""
    parts = [f"{figure.section}: {figure.what}"]
    if figure.value is not None:
        middle, low, high = figure.value
        parts.append(f"{middle:.4g} {figure.unit} ({low:.4g} to {high:.4g})")
    if figure.ratio is not None:
        middle, low, high = figure.ratio
        parts.append(f"ratio {middle:.2f} ({low:.2f} to {high:.2f})")
    if "met" in figure.as_json():
        met = "met" if figure.as_json()["met"] else "MISSED"
        goal = figure.at_most if figure.at_most is not None else figure.at_least
        parts.append(f"goal {goal:g} {met}")
    return "; ".join([*parts, *filter(None, [figure.note])])


def circumstances(folder: pathlib.Path, packages: Sequence[str]) -> dict[str, Any]:
    """Machine, versions, commit and date.

    Args:
        folder: Where the benchmark writes its temporary files.
        packages: The distributions whose versions matter.
    """
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in packages:
        versions[name] = importlib.metadata.version(name)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gb": round(
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1
            ),
            "system": f"{platform.system()} {platform.machine()}",
            "file_system": _file_system(folder),
            "load_average": [round(load, 2) for load in os.getloadavg()],
        },
        "versions": versions,
    }


def write(path: pathlib.Path, result: dict[str, Any]) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def _rounded(values: Spread | Interval, digits: int) -> dict[str, float]:
    return {
        key: float(f"{value:.{digits + 1}g}") for key, value in values._asdict().items()
    }


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        sources = ("population", "examples", "benchmarks/*.py")
        changed = _git("status", "--porcelain", "--", *sources)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with uncommitted changes" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _cpu() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _file_system(folder: pathlib.Path) -> str:
    """The kind of file system: on tmpfs, for example, a sync costs nothing."""
    try:
        lines = pathlib.Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    found = ("", "unknown")
    for line in lines:
        _, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]
