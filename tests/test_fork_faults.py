"""What must not be lost, hang or stay unexplained if a run cannot be forked."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import population
from population import JournalError, PopulationController
from population.journal.sqlite import SqliteJournal
from population.mutators import WinnerTakeAllGenetic
from tests import probe
from tests.helpers import generation, told, work
from tests.test_fork import meanwhile, smaller, trained, winner

NOBODY = 65534
WAYS = ["params", "own"]


def by_paths(folder: pathlib.Path) -> PopulationController:
    """Eight steps with a round, of loops that save their weights themselves."""
    controller = PopulationController([1.0, 2.0, 3.0], winner(), folder)
    for step in range(1, 9):
        for worker_id in range(3):
            at = generation(controller, worker_id)
            path = folder / "own" / at / str(step)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{at} {step}")
            value = probe.newest(controller)[worker_id].meta_params + 1 / step
            controller.set_eval(worker_id, at, step, str(path), value)
    return controller


def run_of(way: str, folder: pathlib.Path) -> PopulationController:
    """A run whose weights are in this folder of it."""
    return trained(folder) if way == "params" else by_paths(folder)


def files_in(folder: pathlib.Path) -> dict[str, bytes]:
    """All files with their content."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def assert_has_weights(run: PopulationController) -> None:
    """Each slot can continue from the step where it is."""
    for worker_id in range(3):
        found = work(run, worker_id)
        assert found.step == probe.newest(run)[worker_id].step > 0
        if isinstance(found.params, str):
            text = pathlib.Path(found.params).read_text()
            assert text.endswith(f" {found.step}")
        else:
            assert found.params["w"].tolist() == [float(found.step)] * 3


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder that all users can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o777)
        yield folder
        for place in (folder, *folder.rglob("*")):
            if not place.is_symlink():
                place.chmod(0o777)


@contextlib.contextmanager
def as_anybody() -> Iterator[None]:
    """Continue as a user for whom the modes of files count."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(NOBODY, NOBODY, 0)  # `os.access` checks the real user.
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


@pytest.mark.parametrize("depth", ["folder", "generations", "files", "within"])
@pytest.mark.parametrize("way", WAYS)
def test_a_fork_that_would_write_into_the_run_itself_is_refused(
    way: str, depth: str, tmp_path: pathlib.Path
) -> None:
    """This includes links at any depth; all that they lead to is unchanged."""
    old, new, big = tmp_path / "old", tmp_path / "new", tmp_path / "big"
    run_of(way, old).close()
    os.rename(old / way, big)
    (old / way).symlink_to(big)
    new.mkdir()
    if depth == "folder":
        (new / way).symlink_to(big)
    elif depth == "within":
        (new / way).symlink_to(big / "new")
        (big / "new").mkdir()
    else:
        (new / way).mkdir()
        for place in big.iterdir():
            if depth == "generations":
                (new / way / place.name).symlink_to(place)
            else:
                (new / way / place.name).mkdir()
                for file in place.iterdir():
                    (new / way / place.name / file.name).symlink_to(file)
    before = files_in(big)
    with pytest.raises(JournalError, match=r"in a folder of its own.*Choose another"):
        population.fork(old, new, mutator=winner())
    assert files_in(big) == before
    assert not (new / "journal.sqlite").exists()
    population.fork(old, tmp_path / "other", mutator=winner()).close()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_overwritten_through_a_link_out_of_the_new_folder(
    way: str, tmp_path: pathlib.Path
) -> None:
    """A file elsewhere is not what a fork has left in this folder."""
    old, new, other = tmp_path / "old", tmp_path / "new", tmp_path / "other"
    run_of(way, old).close()
    name = sorted((old / way).glob("*/*"))[-1].relative_to(old / way)
    (other / name).parent.mkdir(parents=True)
    (other / name).write_text("precious")
    new.mkdir()
    (new / way).symlink_to(other)
    with pytest.raises(JournalError, match="which is there already"):
        population.fork(old, new, mutator=winner())
    assert files_in(other) == {str(name): b"precious"}
    (other / name).unlink()
    forked = population.fork(old, new, mutator=winner())
    assert_has_weights(forked)
    forked.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_takes_the_place_of_one_that_was_killed(
    way: str, tmp_path: pathlib.Path
) -> None:
    """Half of a file, or a hard link to one of the run, does not block it."""
    old, new = tmp_path / "old", tmp_path / "new"
    run_of(way, old).close()
    before = files_in(old / way)
    for number, file in enumerate(sorted((old / way).glob("*/*"))):
        place = new / way / file.relative_to(old / way)
        place.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            os.link(file, place)
        else:
            place.write_text("half")
            place.chmod(0o444)
    (new / ".journal.sqlite.fork-1").touch()
    forked = population.fork(old, new, mutator=winner())
    assert_has_weights(forked)
    assert not list(new.glob(".journal*"))
    assert files_in(old / way) == before
    forked.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_that_fails_removes_only_what_it_has_made(
    way: str, tmp_path: pathlib.Path
) -> None:
    """Other files in the new folder stay, and the fork can be tried again."""
    old, new = tmp_path / "old", tmp_path / "new"
    run_of(way, old).close()
    place = new / way / next((old / way).iterdir()).name
    place.mkdir(parents=True)
    (place / "notes").write_text("mine")

    def fail() -> None:
        assert len(files_in(new / way)) > 1
        raise OSError("of the user's own")

    with pytest.raises(OSError, match="of the user's own"):
        population.fork(old, new, mutator=meanwhile(fail))
    assert files_in(new) == {str((place / "notes").relative_to(new)): b"mine"}
    forked = population.fork(old, new, mutator=winner())
    assert_has_weights(forked)
    forked.close()


@pytest.mark.parametrize("call", ["link", "replace"])
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_published_keeps_its_weights(
    way: str, call: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt just after the new journal is renamed undoes nothing."""
    old, new = tmp_path / "old", tmp_path / "new"
    run_of(way, old).close()
    publish = getattr(os, call)

    def interrupted(source: Any, place: Any) -> None:
        if str(place).endswith("journal.sqlite"):
            publish(source, place)
            raise KeyboardInterrupt
        publish(source, place)

    def no_link(source: Any, place: Any) -> None:
        raise OSError("no links here")

    with monkeypatch.context() as patch:
        patch.setattr("os.link", no_link)
        patch.setattr(f"os.{call}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            population.fork(old, new, mutator=winner())
    assert not list(new.glob(".journal*"))
    again = PopulationController([None] * 3, winner(), new)
    assert_has_weights(again)
    again.close()


@pytest.mark.parametrize("way", WAYS)
def test_without_locks_a_fork_leaves_another_one_alone(
    way: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary file may belong to a fork that is at work."""
    fcntl = pytest.importorskip("fcntl")
    old, new = tmp_path / "old", tmp_path / "new"
    run = run_of(way, old)

    def flock(handle: int, kind: int) -> None:
        raise OSError("no locks here")

    def second() -> None:
        with pytest.raises(JournalError, match="which is there already"):
            population.fork(old, new, mutator=winner())
        assert len(list(new.glob(".journal.sqlite.fork-*"))) >= 1

    monkeypatch.setattr(fcntl, "flock", flock)
    forked = population.fork(old, new, mutator=meanwhile(second))
    assert told(forked)[-1][0] == told(run)[-1][0]
    assert_has_weights(forked)
    assert not list(new.glob(".journal*"))
    forked.close()
    run.close()


def test_without_locks_the_first_of_two_forks_to_end_has_the_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is refused, and removes nothing."""
    fcntl = pytest.importorskip("fcntl")
    old, new = tmp_path / "old", tmp_path / "new"
    run = PopulationController([1.0] * 3, winner(), old)  # Nothing is shared yet.
    made: list[PopulationController] = []

    def flock(handle: int, kind: int) -> None:
        raise OSError("no locks here")

    def second() -> None:
        made.append(population.fork(old, new, mutator=winner()))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(JournalError, match="a folder without a run"):
        population.fork(old, new, mutator=meanwhile(second))
    assert told(made[0]) == told(run)
    assert not list(new.glob(".journal*"))
    made[0].close()
    run.close()


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


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (closed_to_all, "must be the log_dir of a run"),
        (new_in_a_protected_folder, "new_dir must be .*Permission denied"),
        (new_is_protected, "new_dir must be .*Permission denied"),
        (new_is_closed, "new_dir must be .*Permission denied"),
        (new_in_a_closed_folder, "new_dir must be .*Permission denied"),
        (new_below_a_file, "new_dir must be .*Not a directory"),
        (new_leads_nowhere, "new_dir must be .*File exists"),
        (params_are_closed, "cannot be copied: Permission denied"),
        (own_files_are_closed, "cannot be copied: Permission denied"),
        (own_files_are_secret, "cannot be copied: Permission denied"),
    ],
)
def test_what_the_system_forbids_is_said_in_words(
    make: Callable[[pathlib.Path], tuple[pathlib.Path, pathlib.Path]],
    says: str,
    public: pathlib.Path,
) -> None:
    """No caller has to know what the library calls."""
    trained(public / "old").close()
    by_paths(public / "paths").close()
    (public / "theirs").mkdir()
    (public / "theirs").chmod(0o777)
    old, new = make(public)
    with as_anybody(), pytest.raises(JournalError, match=says):
        population.fork(old, new, mutator=winner())
    assert not list((public / "theirs").rglob("*journal*"))
    assert not [p for p in (public / "theirs").rglob("*/*/*") if p.is_file()]


def test_a_run_in_a_folder_that_one_may_not_enter_is_not_replayed(
    public: pathlib.Path,
) -> None:
    """The error has the path that cannot be accessed."""
    trained(public / "old").close()
    (public / "old").chmod(0)
    with as_anybody(), pytest.raises(JournalError, match="Ask for access"):
        population.replay(public / "old", winner())


def test_a_journal_in_a_folder_that_one_may_not_enter_is_not_opened(
    public: pathlib.Path,
) -> None:
    """As any other file that cannot be used."""
    trained(public / "old").close()
    (public / "old").chmod(0)
    with as_anybody(), pytest.raises(JournalError, match="cannot be used: Permission"):
        SqliteJournal(public / "old" / "journal.sqlite")


def test_decisions_name_paths_where_the_run_is(tmp_path: pathlib.Path) -> None:
    """Relative paths of the journal are absolute for the user and the mutator."""
    run = by_paths(tmp_path / "old")
    seen: list[object] = []

    class Watching(WinnerTakeAllGenetic):
        """Records the paths that it is shown."""

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
        assert isinstance(branch, population.Branch)
        assert branch.parent is not None
        assert branch.parent == run.graph.checkpoint(branch.parent.ref)
        assert pathlib.Path(branch.parent.params).is_file()
    assert seen
    assert all(pathlib.Path(str(params)).is_file() for params in seen)
    run.close()


@pytest.mark.parametrize("way", WAYS)
def test_pipes_and_links_to_nothing_are_left_out(
    way: str, tmp_path: pathlib.Path, public: pathlib.Path
) -> None:
    """Loops may leave such things beside what they save, or in its folder."""
    old, new = tmp_path / "old", tmp_path / "new"
    run_of(way, old).close()
    for file in sorted((old / way).glob("*/*")):
        content = file.read_bytes()
        if way == "own":
            os.mkfifo(file.with_name(f"{file.name}.pipe"))
            file.with_name(f"{file.name}.gone").symlink_to("nothing")
            file.with_name(f"{file.name}.self").symlink_to(f"{file.name}.self")
        file.unlink()
        file.mkdir()
        (file / "data").write_bytes(content)
        os.mkfifo(file / "pipe")
        (file / "gone").symlink_to("nothing")
        (file / "loop").symlink_to(".")
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
            made.bind(str(public / "socket"))  # Its path must be short.
        shutil.move(public / "socket", file / "socket")
    forked = population.fork(old, new, mutator=winner())
    kept = {path.name for path in (new / way).glob("*/*/*")}
    assert kept == {"data"}
    for path in (new / way).rglob("*"):
        assert stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
    forked.close()


def test_weights_that_are_no_files_count_as_removed(tmp_path: pathlib.Path) -> None:
    """A link without a target, for example: the slots begin where weights exist."""
    old, new = tmp_path / "old", tmp_path / "new"
    trained(old).close()
    for file in sorted((old / "params").glob("*/*")):
        file.unlink()
        file.symlink_to("nothing")
    forked = population.fork(old, new, mutator=winner())
    assert work(forked, 0).step == 0
    assert not files_in(new / "params")
    forked.close()


def test_linked_weights_are_shared_as_the_files_they_lead_to(
    tmp_path: pathlib.Path,
) -> None:
    """A relative link would lead elsewhere from the new folder."""
    old, new = tmp_path / "old", tmp_path / "new"
    trained(old).close()
    (old / "elsewhere").mkdir()
    for number, file in enumerate(sorted((old / "params").glob("*/*"))):
        os.rename(file, old / "elsewhere" / str(number))
        file.symlink_to(f"../../elsewhere/{number}")
    forked = population.fork(old, new, mutator=winner())
    assert_has_weights(forked)
    assert not any(path.is_symlink() for path in new.rglob("*"))
    forked.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_of_an_archived_run_can_be_removed(
    way: str, public: pathlib.Path
) -> None:
    """Read-only files and folders do not stay read-only."""
    old = public / "old"
    run_of(way, old).close()
    for file in sorted((old / way).glob("*/*")):
        content = file.read_bytes()
        if way == "own":
            file.unlink()
            file.mkdir()
            (file / "data").write_bytes(content)
    for place in (old, *old.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)
    with as_anybody():
        new = public / "new"
        population.fork(old, new, mutator=winner()).close()
        assert files_in(new / way)
        for place in sorted(new.rglob("*"), reverse=True):
            if place.is_dir():
                place.rmdir()
            else:
                place.unlink()
