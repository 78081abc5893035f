"""What is compared: programs that report, and what their storage has after a cut."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from population import JournalError
from tests.power_cut import child, judging, record
from tests.power_cut.record import Event

OPTUNA = "Optuna"
_STEPS = 4  # Reports of a trial of Optuna; its end is one more.
_STUDY = "study"
_JOURNAL, _SQLITE = "journal", "sqlite"


class Subject(NamedTuple):
    """A program that reports, and how to read what it has reported.

    Attributes:
        name: Its name in the tables.
        command: The arguments of an interpreter for a folder, a number of reports and
            the compiled recorder.
        lost: How many acknowledged reports are missing in a folder after a cut, and
            how many there were, given the events before the cut.
    """

    name: str
    command: Callable[[pathlib.Path, int, pathlib.Path], list[str]]
    lost: Callable[[pathlib.Path, Sequence[Event]], tuple[int, int]]


def subjects(*, peers: bool) -> list[Subject]:
    """All that is compared."""
    found = [_ours("power"), _ours("process")]
    if peers:
        found += [
            _optuna("Optuna, `JournalFileBackend`", _JOURNAL),
            _optuna("Optuna, `RDBStorage` on SQLite", _SQLITE),
        ]
    return found


def has_optuna() -> bool:
    """Whether Optuna can be imported."""
    return importlib.util.find_spec("optuna") is not None


def _ours(durability: str) -> Subject:
    def command(
        folder: pathlib.Path, reports: int, recorder: pathlib.Path
    ) -> list[str]:
        return child.command(folder, durability, reports, recorder)

    return Subject(f'population, `durability="{durability}"`', command, _lost_by_us)


def _lost_by_us(folder: pathlib.Path, events: Sequence[Event]) -> tuple[int, int]:
    begun, acknowledged = judging.told(events)
    try:
        controller = child.opened(folder / child.RUN)
    except JournalError:  # The weights are there, but no journal.
        return acknowledged, acknowledged
    try:
        found = judging.reports(controller)
    finally:
        controller.close()
    if found != begun[: len(found)]:
        raise RuntimeError("The journal has reports that nobody made.")
    return max(0, acknowledged - len(found)), acknowledged


def _optuna(name: str, kind: str) -> Subject:
    def command(
        folder: pathlib.Path, reports: int, recorder: pathlib.Path
    ) -> list[str]:
        arguments = str(folder), kind, reports, str(recorder)
        code = "from benchmarks.durability import kept; kept.report_to_optuna"
        return ["-c", f"{code}{arguments!r}"]

    def lost(folder: pathlib.Path, events: Sequence[Event]) -> tuple[int, int]:
        return _lost_by_optuna(folder, kind, events)

    return Subject(name, command, lost)


def report_to_optuna(folder: str, kind: str, reports: int, recorder: str) -> None:
    """Run a study, and mark each report before and after it."""
    optuna = _imported()
    mark = ctypes.CDLL(recorder).power_cut_mark
    choose = random.Random(0)
    study = optuna.create_study(storage=_storage(folder, kind), study_name=_STUDY)
    for _ in range(reports // (_STEPS + 1)):
        trial = study.ask()
        for step in range(_STEPS):
            value = choose.random()
            mark(f"report {trial.number} {step} {value!r}".encode())
            trial.report(value, step)
            mark(b"acknowledged")
        mark(f"report {trial.number} {_STEPS} {value!r}".encode())
        study.tell(trial, value)
        mark(b"acknowledged")


def _lost_by_optuna(
    folder: pathlib.Path, kind: str, events: Sequence[Event]
) -> tuple[int, int]:
    optuna = _imported()
    texts = record.marks(events)
    begun = [text for text in texts if text != "acknowledged"]
    acknowledged = begun[: len(texts) - len(begun)]
    try:
        study = optuna.load_study(study_name=_STUDY, storage=_storage(folder, kind))
        trials = study.get_trials(deepcopy=False)
    except Exception:  # Whatever its storage raises at a damaged file.
        trials = []
    found = set()
    for trial in trials:
        values = dict(trial.intermediate_values)
        if trial.state.is_finished():
            values[_STEPS] = trial.value
        for step, value in values.items():
            found.add(f"report {trial.number} {step} {value!r}")
    return len(set(acknowledged) - found), len(acknowledged)


def _imported() -> Any:
    optuna: Any = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    return optuna


def _storage(folder: str | pathlib.Path, kind: str) -> Any:
    storages: Any = importlib.import_module("optuna.storages")
    file = pathlib.Path(folder) / _STUDY
    if kind == _SQLITE:
        return storages.RDBStorage(f"sqlite:///{file}")
    backend: Any = importlib.import_module("optuna.storages.journal")
    return storages.JournalStorage(backend.JournalFileBackend(str(file)))
