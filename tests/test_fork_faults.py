"""What must not be lost, hang or stay unexplained when a run cannot be forked."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

import population
from population import JournalError, PopulationController
from population.mutators import WinnerTakeAllGenetic
from tests.helpers import generation, work
from tests.test_fork import smaller, trained, winner

NOBODY = 65534
WAYS = ["params", "own"]


def by_paths(folder: pathlib.Path) -> PopulationController:
    """Eight steps with a round, of loops that save their weights by themselves."""
    controller = PopulationController([1.0, 2.0, 3.0], winner(), folder)
    for step in range(1, 9):
        for worker_id in range(3):
            at = generation(controller, worker_id)
            path = folder / "own" / at / str(step)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{at} {step}")
            value = controller.newest(worker_id).meta_params + 1 / step
            controller.set_eval(worker_id, at, step, str(path), value)
    return controller


def run_of(way: str, folder: pathlib.Path) -> PopulationController:
    """A run whose weights lie in this folder of it."""
    return trained(folder) if way == "params" else by_paths(folder)


def files_in(folder: pathlib.Path) -> dict[str, bytes]:
    """All files, and what is in them."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def assert_has_weights(run: PopulationController) -> None:
    """Each slot can go on from the step where it is."""
    for worker_id in range(3):
        found = work(run, worker_id)
        assert found.step == run.newest(worker_id).step > 0
        if isinstance(found.params, str):
            text = pathlib.Path(found.params).read_text()
            assert text.endswith(f" {found.step}")
        else:
            assert found.params["w"].tolist() == [float(found.step)] * 3


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o777)
        yield folder
        for place in (folder, *folder.rglob("*")):
            if not place.is_symlink():
                place.chmod(0o777)


@contextlib.contextmanager
def as_anybody() -> Iterator[None]:
    """Go on as a user whom the modes of files bind."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(NOBODY, NOBODY, 0)  # `os.access` asks for the real one.
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


def closed_to_all(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A run in a folder that one may not enter."""
    (public / "old").chmod(0)
    return public / "old", public / "theirs" / "new"


def new_in_a_protected_folder(
    public: pathlib.Path,
) -> tuple[pathlib.Path, pathlib.Path]:
    """A new folder that cannot be made."""
    (public / "theirs").chmod(0o555)
    return public / "old", public / "theirs" / "new"


def new_is_protected(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A new folder in which nothing can be made."""
    (public / "theirs").chmod(0o555)
    return public / "old", public / "theirs"


def new_is_closed(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A new folder that one may not enter."""
    (public / "theirs").chmod(0)
    return public / "old", public / "theirs"


def new_in_a_closed_folder(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A new folder below one that one may not enter."""
    (public / "theirs").chmod(0)
    return public / "old", public / "theirs" / "new"


def new_below_a_file(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A new folder that cannot be one."""
    (public / "theirs" / "file").touch()
    return public / "old", public / "theirs" / "file" / "new"


def new_leads_nowhere(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A new folder that is a link to nothing."""
    (public / "theirs" / "link").symlink_to(public / "nothing")
    return public / "old", public / "theirs" / "link"


def params_are_closed(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Weights in a folder that one may not enter."""
    (public / "old" / "params").chmod(0)
    return public / "old", public / "theirs" / "new"


def own_files_are_closed(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Weights in a folder that one may not look into."""
    for folder in (public / "paths" / "own").iterdir():
        folder.chmod(0)
    return public / "paths", public / "theirs" / "new"


def own_files_are_secret(public: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Weights that one may not read."""
    for file in (public / "paths" / "own").glob("*/*"):
        file.chmod(0)
    return public / "paths", public / "theirs" / "new"


def test_a_run_in_a_folder_that_one_may_not_enter_is_not_replayed(
    public: pathlib.Path,
) -> None:
    """The error says whose access is missing, and to what."""
    trained(public / "old").close()
    (public / "old").chmod(0)
    with as_anybody(), pytest.raises(JournalError, match="Ask for access"):
        population.replay(public / "old", winner())


def test_decisions_name_paths_where_the_run_is(tmp_path: pathlib.Path) -> None:
    """What the journal keeps relative is shown to the user and the mutator whole."""
    run = by_paths(tmp_path / "old")
    seen: list[object] = []

    class Watching(WinnerTakeAllGenetic):
        """It looks at what it is shown."""

        def update(self, state: Any, report: Any, view: Any) -> Any:
            seen.append(report.checkpoint.params)
            return super().update(state, report, view)

    found = population.replay(run, Watching(smaller, 4))
    assert found.first_difference is None
    branches = [
        branch
        for decision in found.decisions
        for branch in (*decision.recorded.values(), *decision.derived.values())
    ]
    assert branches
    for branch in branches:
        assert branch.parent == run.graph.checkpoint(branch.parent.ref)  # type: ignore[union-attr]
        assert pathlib.Path(branch.parent.params).is_file()
    assert seen
    assert all(pathlib.Path(str(params)).is_file() for params in seen)
    run.close()
