"""What the page says of the run as a whole: its status, settings and versions."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from population.report.page.values import number, text, when

if TYPE_CHECKING:
    from population.reader.recorded_run import RecordedRun
    from population.reader.run_status import RunStatus

_PACKAGES = ("population-jax", "jax", "numpy")


def overview(run: RecordedRun) -> list[list[str]]:
    """Return what the page says first: pairs of a name and a text."""
    status = run.status
    ended = f"ended: {status.reason}" if status.reason else "ended"
    state = ended if status.finished else "not finished"
    if status.is_open:
        state += "; a process has it open"
    better = "smaller" if status.mode == "min" else "greater"
    pairs: list[tuple[str, Any]] = [
        ("Run", status.run if run.log_dir is None else run.log_dir.name),
        ("Folder", run.log_dir or "in memory"),
        ("Status", state),
        ("Best value", "none yet" if status.best is None else number(status.best)),
        ("Mode", f"{status.mode}: {better} is better"),
        ("Members", status.size),
        ("Step", status.step),
        ("Recorded", _recorded(status)),
        ("Mutator", status.mutator.rpartition(".")[2]),
        ("Its settings", _named(status.settings)),
        ("Stop", _stop(status.stop)),
        ("Seed", status.seed),
        ("Began", when(status.began)),
        ("Newest record", when(status.newest)),
        ("Was open", _opened(status)),
        ("Token", status.run),
    ]
    return [[name, text(value)] for name, value in pairs if value not in ("", None)]


def _recorded(status: RunStatus) -> str:
    return (
        f"{status.checkpoints} checkpoints, {status.generations} generations, "
        f"{status.reports} reports"
    )


def _opened(status: RunStatus) -> str:
    times = "once" if status.openings == 1 else f"{status.openings} times"
    minutes, seconds = divmod(round(status.open_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{times}, {hours} h {minutes:02} min {seconds:02} s together"


def _named(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_readable(value)}" for name, value in settings.items())


def _readable(value: Any) -> str:
    """Return a setting as one would write it; recorded objects have a "class"."""
    if isinstance(value, Mapping) and isinstance(value.get("class"), str):
        rest = {name: one for name, one in value.items() if name != "class"}
        return f"{value['class'].rpartition('.')[2]}({_named(rest)})"
    if isinstance(value, Mapping):
        pairs = (f"{name!r}: {_readable(one)}" for name, one in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_readable, value))}]"
    return repr(value)


def _stop(stop: Any) -> str:
    """Return the limits of a run that are set."""
    if stop is None:
        return "not recorded"
    limits = dataclasses.asdict(stop)
    given = [f"{name}={value}" for name, value in limits.items() if value is not None]
    return ", ".join(given) or "no limit"


def environment(recorded: Mapping[str, str]) -> dict[str, Any]:
    """Return the versions of the run's newest session, else of this process.

    Returns:
        "recorded", whether the run has recorded them, and "pairs" of name and text.
    """
    found = [[text(name), text(value)] for name, value in recorded.items()]
    if found:
        return {"recorded": True, "pairs": found}
    return {"recorded": False, "pairs": [list(pair) for pair in _own_versions()]}


def _own_versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield package, importlib.metadata.version(package)
