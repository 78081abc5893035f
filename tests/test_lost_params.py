"""A save that is lost on the disk: the slot goes on from the one before, by itself.

Only where that is safe: a rejection is recorded, and cannot be taken back.
"""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from population import Keep, ParamsError, PopulationController
from population.base import Branch, LostParamsError, PopulationView, Report
from population.params import FileParams, MemoryParams
from tests import probe
from tests.helpers import Clock, Scripted, content, generation, work


def init(meta_params: Any) -> dict[str, Any]:
    """A fresh state."""
    return {"w": np.zeros(3), "n": 0}


def opened(
    log_dir: pathlib.Path, size: int = 1, **options: Any
) -> PopulationController:
    """A run whose saves all stay."""
    mutator = options.pop("mutator", Scripted())
    options.setdefault("keep", Keep(everything=True))
    return PopulationController([1.0] * size, mutator, log_dir, **options)


def train(
    controller: PopulationController, count: int, clock: Clock, every_s: float = 1.0
) -> None:
    """Train slot 0 for some reports; the state says after which step it was saved."""
    with controller.worker(0) as worker:
        worker.poll()
        worker.restore(init)
        for _ in range(count):
            clock.advance(every_s)
            worker.step += 1
            worker.report(float(-worker.step), state_of(worker.step))


def state_of(step: int) -> dict[str, Any]:
    """The state that is saved at a step."""
    return {"w": np.full(3, float(step)), "n": step}


def file_of(controller: PopulationController, step: int) -> pathlib.Path:
    """The file of the newest save at a step of slot 0."""
    found = [c for c in controller.graph.history() if c.step == step and c.params]
    path = found[-1].params.path
    assert controller.log_dir is not None
    (file,) = controller.log_dir.rglob(pathlib.PurePosixPath(path).name)
    return file


def missing(file: pathlib.Path) -> None:
    """The file is not there."""
    file.unlink()


def torn(file: pathlib.Path) -> None:
    """Its second half was not written."""
    os.truncate(file, file.stat().st_size // 2)


def empty(file: pathlib.Path) -> None:
    """Its name was written, and nothing of its content."""
    os.truncate(file, 0)


def flipped(file: pathlib.Path) -> None:
    """One bit of it is another."""
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)


def zeros(file: pathlib.Path) -> None:
    """Its size was written, and its content was not."""
    file.write_bytes(bytes(file.stat().st_size))


LOSSES = [missing, torn, empty, flipped, zeros]


def rejections(controller: PopulationController) -> list[str]:
    """The reasons of all rejections in the journal."""
    return [r for r in probe.removal_reasons(controller) if r.startswith("rejected")]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_worker_goes_on_from_the_save_before(
    lose: Callable[[pathlib.Path], None],
    tmp_path: pathlib.Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`restore` returns the older state; one warning, and one rejection, say so."""
    controller = opened(tmp_path, clock=clock)
    train(controller, 3, clock)
    lose(file_of(controller, 3))
    controller.close()
    controller = opened(tmp_path, clock=clock)
    with controller.worker(0) as worker:
        assert worker.poll()
        assert worker.step == 3
        state = worker.restore(init)
        assert (worker.step, state["n"]) == (2, 2)
        assert worker.generation_id.endswith("-0-1")
        worker.step += 1
        worker.report(-3.0, state_of(3))
    assert caplog.text.count("goes on from an earlier save") == 1
    assert len(rejections(controller)) == 1
    assert controller.graph.resume_point(controller.newest(0)).step == 3
    controller.close()


@pytest.mark.parametrize("lose", LOSSES)
def test_the_two_calls_go_on_from_the_save_before(
    lose: Callable[[pathlib.Path], None],
    tmp_path: pathlib.Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`maybe_get_worker_data` returns older arrays, and their step."""
    controller = opened(tmp_path, clock=clock)
    name = generation(controller)
    for step in (1, 2, 3):
        controller.set_eval(0, name, step, {"w": np.full(3, float(step))}, 1.0)
    lose(file_of(controller, 3))
    controller.close()
    controller = opened(tmp_path, clock=clock)
    found = work(controller)
    assert found.step == 2
    assert np.all(found.params["w"] == 2.0)
    assert found.generation_id != name
    assert caplog.text.count("goes on from an earlier save") == 1
    assert len(rejections(controller)) == 1
    assert work(controller).step == 2
    controller.close()


def test_all_that_a_power_cut_costs_is_replaced_at_once(
    tmp_path: pathlib.Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The saves of the last minute count as one loss, and cause one warning."""
    controller = opened(tmp_path, clock=clock)
    train(controller, 40, clock)
    for step in range(11, 41):
        torn(file_of(controller, step))
    with controller.worker(0) as worker:
        worker.poll()
        state = worker.restore(init)
        assert (worker.step, state["n"]) == (10, 10)
    assert caplog.text.count("goes on from an earlier save") == 1
    controller.close()


@pytest.mark.parametrize("again", [False, True])
def test_a_second_loss_on_one_lineage_is_left_to_people(
    again: bool, tmp_path: pathlib.Path, clock: Clock
) -> None:
    """Saves of two days ago are not lost by a power cut: nothing more is rejected."""
    controller = opened(tmp_path, clock=clock)
    train(controller, 4, clock, every_s=61.0)
    files = [file_of(controller, step) for step in (1, 2, 3, 4)]
    whole = [file.read_bytes() for file in files]
    for file in files[1:]:
        file.unlink()
    for _ in range(2 if again else 1):
        with controller.worker(0) as worker:
            worker.poll()
            with pytest.raises(ParamsError, match=r"A newer save of worker 0 is lost"):
                worker.restore(init)
            assert worker.step == 3
        assert len(rejections(controller)) == 1
        controller.close()
        controller = opened(tmp_path, clock=clock)
    files[2].write_bytes(whole[2])
    with controller.worker(0) as worker:
        worker.poll()
        assert worker.restore(init)["n"] == 3
        worker.step += 1
        worker.report(0.0, state_of(4))
    # It has trained since: the next loss is a first one.
    missing(file_of(controller, 4))
    with controller.worker(0) as worker:
        worker.poll()
        assert worker.restore(init)["n"] == 3
    assert len(rejections(controller)) == 2
    controller.close()


def test_a_folder_without_the_mark_of_the_run_is_left_to_people(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    """An unmounted disk leaves an empty folder: nothing may be rejected then."""
    controller = opened(tmp_path / "run", clock=clock)
    train(controller, 3, clock)
    controller.close()
    away = shutil.move(tmp_path / "run" / "params", tmp_path / "away")
    for make in (False, True):
        if make:
            (tmp_path / "run" / "params").mkdir()
        controller = opened(tmp_path / "run", clock=clock)
        with controller.worker(0) as worker:
            worker.poll()
            with pytest.raises(LostParamsError, match="missing"):
                worker.restore(init)
        with pytest.raises(LostParamsError, match="missing"):
            work(controller)
        assert not rejections(controller)
        controller.close()
    (tmp_path / "run" / "params").rmdir()
    shutil.move(away, tmp_path / "run" / "params")
    controller = opened(tmp_path / "run", clock=clock)
    assert work(controller, 0).step == 3
    controller.close()


@pytest.mark.parametrize("saved_before", [False, True])
def test_a_folder_that_was_moved_away_under_an_open_run_is_left_to_people(
    saved_before: bool, tmp_path: pathlib.Path, clock: Clock
) -> None:
    """Another slot may have saved in a new folder of that name since."""
    controller = opened(tmp_path / "run", 2, clock=clock)
    for slot in (0, 1):
        name = generation(controller, slot)
        for step in (1, 2, 3):
            controller.set_eval(slot, name, step, state_of(step), 1.0)
    if not saved_before:
        controller.close()
        controller = opened(tmp_path / "run", 2, clock=clock)
    away = shutil.move(tmp_path / "run" / "params", tmp_path / "away")
    for step in (4, 5):
        controller.set_eval(0, generation(controller, 0), step, state_of(step), 1.0)
    controller.close()
    controller = opened(tmp_path / "run", 2, clock=clock)
    with pytest.raises(LostParamsError, match=r"missing\. Nothing was rejected, as"):
        work(controller, 1)
    assert not rejections(controller)
    controller.close()
    shutil.copytree(away, tmp_path / "run" / "params", dirs_exist_ok=True)
    controller = opened(tmp_path / "run", 2, clock=clock)
    assert work(controller, 1).step == 3
    assert work(controller, 0).step == 5
    controller.close()


def test_a_wrong_store_is_left_to_people(tmp_path: pathlib.Path, clock: Clock) -> None:
    """Also if it is used for a while: it never becomes the store of this run."""
    controller = opened(tmp_path / "run", params=FileParams(tmp_path / "a"))
    train(controller, 3, clock)
    controller.close()
    for _ in range(2):
        with pytest.warns(UserWarning, match="looked for elsewhere") as _caught:
            controller = opened(tmp_path / "run")
        with controller.worker(0) as worker:
            worker.poll()
            with pytest.raises(LostParamsError, match="missing"):
                worker.restore(init)
        assert not rejections(controller)
        controller.close()
        controller = opened(tmp_path / "run", params=FileParams(tmp_path / "b"))
        with pytest.raises(LostParamsError, match="missing"):
            work(controller)
        assert not rejections(controller)
        controller.close()
    controller = opened(tmp_path / "run", params=FileParams(tmp_path / "a"))
    missing(next(iter((tmp_path / "a").rglob("3-*"))))
    assert work(controller).step == 2
    controller.close()


class Failing(FileParams):
    """A store on a disk with an error."""

    error: BaseException | None = None

    def load(self, path: str, like: Any = None) -> Any:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error
        return super().load(path, like)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EACCES, "Permission denied"),
        OSError(errno.ESTALE, "Stale file handle"),
        TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
        ParamsError("It cannot be read."),
        MemoryError("no memory"),
    ],
    ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")),
)
def test_an_error_of_the_disk_rejects_nothing(
    error: BaseException, tmp_path: pathlib.Path, clock: Clock
) -> None:
    """It may be gone a minute later: so it is raised, and nothing is recorded."""
    store = Failing(tmp_path / "params")
    controller = opened(tmp_path, params=store, clock=clock)
    train(controller, 3, clock)
    before = content(controller)
    store.error = error
    with controller.worker(0) as worker:
        worker.poll()
        with pytest.raises(type(error)):
            worker.restore(init)
    with pytest.raises(type(error)):
        work(controller)
    assert not rejections(controller)
    assert len(content(controller)) == len(before)
    store.error = None
    assert work(controller).step == 3
    controller.close()


@pytest.mark.parametrize("adapts", [False, True])
def test_what_init_cannot_load_is_no_save_of_the_run(
    adapts: bool, tmp_path: pathlib.Path, clock: Clock
) -> None:
    """Pretrained weights, for example, that are not there: nothing is rejected."""
    controller = opened(tmp_path, clock=clock)
    train(controller, 3, clock)
    others = FileParams(tmp_path / "pretrained")

    def load(*_: Any) -> Any:
        return others.load("x-00000000.safetensors")

    def other(meta_params: Any) -> Any:
        return {"other": np.zeros(2)}

    arguments = (other, load) if adapts else (load, None)
    with controller.worker(0) as worker:
        worker.poll()
        with pytest.raises(LostParamsError, match="pretrained"):
            worker.restore(arguments[0], adapt=arguments[1])
        assert worker.step == 3
    assert not rejections(controller)
    controller.close()


def test_a_disk_that_is_mounted_meanwhile_rejects_nothing(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    """A save that can be read again is not lost."""

    class Late(FileParams):
        calls = 0

        def load(self, path: str, like: Any = None) -> Any:
            self.calls += 1
            if self.calls == 1:
                raise LostParamsError("missing")
            return super().load(path, like)

    controller = opened(tmp_path, params=Late(tmp_path / "params"), clock=clock)
    train(controller, 3, clock)
    with pytest.raises(LostParamsError, match="missing"):
        work(controller)
    assert work(controller).step == 3
    assert not rejections(controller)
    controller.close()


def test_another_structure_rejects_nothing(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    """What does not fit is not lost."""
    controller = opened(tmp_path, clock=clock)
    train(controller, 3, clock)
    with controller.worker(0) as worker:
        worker.poll()
        with pytest.raises(ParamsError, match="do not fit"):
            worker.restore(lambda meta_params: {"other": np.zeros(2)})
        assert worker.step == 3
    assert not rejections(controller)
    controller.close()


def test_a_store_without_marks_rejects_nothing(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    """It cannot prove that it is the right one."""

    class Own:
        def __init__(self) -> None:
            self._inner = MemoryParams()

        def save(self, name: str, tree: Any) -> str:
            return self._inner.save(name, tree)

        def load(self, path: str, like: Any = None) -> Any:
            raise LostParamsError("gone")

        def remove(self, path: str) -> None:
            self._inner.remove(path)

    controller = opened(tmp_path, params=Own(), clock=clock)
    train(controller, 2, clock)
    with pytest.raises(LostParamsError, match="gone"):
        work(controller)
    assert not rejections(controller)
    controller.close()


def test_a_copy_that_has_lost_its_donors_save_goes_on_from_before(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    """A branch shares its save with the donor: both have lost it, once."""

    def decide(report: Report, view: PopulationView) -> dict[int, Branch]:
        at = report.checkpoint
        return {1: Branch(at, 2.0)} if (at.worker_id, at.step) == (0, 3) else {}

    controller = opened(tmp_path, 2, mutator=Scripted(decide), clock=clock)
    train(controller, 4, clock)
    assert controller.workers[1].step == 3
    missing(file_of(controller, 3))
    with controller.worker(1) as worker:
        worker.poll()
        assert worker.restore(init)["n"] == 2
    assert len(rejections(controller)) == 1
    with controller.worker(0) as worker:
        worker.poll()
        assert worker.restore(init)["n"] == 4
    controller.close()


@pytest.mark.parametrize("spare", [0, 1, 3])
def test_spare_saves_are_kept_for_this(
    spare: int, tmp_path: pathlib.Path, clock: Clock
) -> None:
    """`Keep(spare=)` keeps so many older saves of each slot, and no others."""
    controller = opened(tmp_path, 1, keep=Keep(spare=spare), clock=clock)
    train(controller, 20, clock)
    probe.settle()
    kept = sorted(
        int(file.name.split("-")[0])
        for file in (tmp_path / "params").rglob("*-*.*")
        if file.parent.name != ".runs"
    )
    assert kept == list(range(20 - spare, 21))
    missing(file_of(controller, 20))
    controller.close()
    controller = opened(tmp_path, 1, clock=clock, keep=None)
    with controller.worker(0) as worker:
        worker.poll()
        assert worker.restore(init)["n"] == (19 if spare else 0)
    controller.close()
