"""Loading the params of checkpoints: None never stands for weights."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import population
from population import Branch, MisfitError, ParamsError, PopulationController
from population.base import InMemory
from tests import probe
from tests.helpers import Scripted, generation


def opened(log_dir: pathlib.Path | None) -> PopulationController:
    """A run of one slot whose policy decides nothing."""
    return PopulationController([1.0], Scripted(), log_dir)


def report(controller: PopulationController, step: int) -> None:
    """Report a step with arrays; each value is worse than the one before."""
    tree = {"w": np.full(2, float(step))}
    controller.set_eval(0, generation(controller), step, tree, float(step))


@pytest.fixture(params=["memory", "disk"])
def place(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> pathlib.Path | None:
    """Where the run is kept."""
    return tmp_path / "run" if request.param == "disk" else None


def test_params_that_never_were_are_an_error(place: pathlib.Path | None) -> None:
    """A report without a state has none; the message names what has some."""
    controller = opened(place)
    controller.set_eval(0, generation(controller), 1, None, 1.0)
    with pytest.raises(ParamsError, match=r"step 1 of .* without a state.*resume_poi"):
        controller.load(controller.newest(0))


def test_fresh_weights_are_an_error(place: pathlib.Path | None) -> None:
    """A root has no params: `init` makes them."""
    controller = opened(place)
    with pytest.raises(ParamsError, match=r"step 0 of .* begins with fresh weights"):
        controller.load(controller.newest(0))
    with pytest.raises(ParamsError, match="begins with fresh weights"):
        controller.load(controller.graph.root(generation(controller)), {"w": 0})


def test_a_branch_to_fresh_weights_has_none(place: pathlib.Path | None) -> None:
    """It begins anew at step 0, whatever its donors had."""

    def afresh(report: population.Report, view: object) -> dict[int, Branch]:
        del view
        return {0: Branch(None, 2.0)} if report.checkpoint.step == 2 else {}

    controller = PopulationController([1.0], Scripted(afresh), place)
    report(controller, 1)
    report(controller, 2)
    root = controller.graph.root(generation(controller))
    assert root.step == 0
    with pytest.raises(ParamsError, match="begins with fresh weights"):
        controller.load(root)


@pytest.mark.parametrize("stale", [False, True])
def test_params_that_were_removed_are_an_error_that_says_so(
    place: pathlib.Path | None, stale: bool
) -> None:
    """Also if the checkpoint object is from before the removal."""
    controller = opened(place)
    report(controller, 1)
    report(controller, 2)
    kept = controller.newest(0)
    np.testing.assert_array_equal(controller.load(kept)["w"], 2.0)
    for step in range(3, 60):
        report(controller, step)
    now = controller.graph.checkpoint(kept.ref)
    assert now.params is None
    assert kept.params is not None
    with pytest.raises(ParamsError, match=r"step 2 of .* removed.*keep=Keep\("):
        controller.load(kept if stale else now)
    best, newest = controller.best(), controller.newest(0)
    assert best is not None
    np.testing.assert_array_equal(controller.load(best)["w"], 1.0)
    np.testing.assert_array_equal(controller.load(newest)["w"], 59.0)


def test_a_removal_while_they_are_read_is_said(tmp_path: pathlib.Path) -> None:
    """Another thread reports meanwhile; the file is gone when it is opened."""
    controller = opened(tmp_path)
    report(controller, 1)
    report(controller, 2)
    kept = controller.newest(0)

    def meanwhile() -> None:
        for step in range(3, 60):
            report(controller, step)
        probe.settle()

    probe.before_next_load(controller, meanwhile)
    with pytest.raises(ParamsError, match=r"step 2 of .* were removed"):
        controller.load(kept)


@pytest.mark.parametrize("stale", [False, True])
def test_rejected_params_are_an_error_with_the_reason(
    tmp_path: pathlib.Path, stale: bool
) -> None:
    """Also for a path, which a loop has saved itself and which still exists."""
    for params in ({"w": np.ones(2)}, "a path"):
        controller = opened(tmp_path / type(params).__name__)
        with controller.worker() as worker:
            worker.poll()
            worker.step = 1
            controller.set_eval(0, worker.generation_id, 1, params, 1.0)
        kept = controller.newest(0)
        assert controller.load(kept) is not None
        with controller.worker(0) as worker:
            worker.poll()
            worker.reject("a bad sector")
        now = controller.graph.checkpoint(kept.ref)
        with pytest.raises(ParamsError, match="were removed: rejected: a bad sector"):
            controller.load(kept if stale else now)
        controller.close()


def test_weights_in_memory_are_an_error_before_and_after_they_are_lost() -> None:
    """The message says where they are, or that they are lost."""
    controller = opened(None)
    lease = controller.claim_all()
    place = 0, generation(controller), 1
    lease.report([lease.encode(*place, InMemory(), 1.0)])
    held = controller.newest(0)
    with pytest.raises(ParamsError, match="in the memory of the process that trains"):
        controller.load(held)
    with pytest.raises(ParamsError, match="in the memory of the process that trains"):
        lease.load(held.params)
    lease.release()
    for stale in (held, controller.graph.checkpoint(held.ref)):
        with pytest.raises(ParamsError, match="lost: they were only in the memory"):
            controller.load(stale)


def test_weights_that_were_saved_since_are_loaded_by_an_older_object() -> None:
    """The checkpoint had them in memory when the object was returned."""
    controller = opened(None)
    lease = controller.claim_all()
    place = 0, generation(controller), 1
    lease.report([lease.encode(*place, InMemory(), 1.0)])
    held = controller.newest(0)
    lease.report([lease.encode(*place, {"w": np.ones(2)}, None)])
    np.testing.assert_array_equal(controller.load(held)["w"], 1.0)


def test_a_lease_loads_no_none(place: pathlib.Path | None) -> None:
    """Fresh weights are made by `init`, never loaded."""
    controller = opened(place)
    lease = controller.claim_all()
    with pytest.raises(ParamsError, match=r"got None: .* fresh weights, which init"):
        lease.load(lease[0].params)


def test_a_lease_says_that_params_were_removed(place: pathlib.Path | None) -> None:
    """They are params of an older checkpoint object."""
    controller = opened(place)
    lease = controller.claim_all()
    report(controller, 1)
    report(controller, 2)
    kept = controller.newest(0)
    np.testing.assert_array_equal(lease.load(kept.params)["w"], 2.0)
    for step in range(3, 60):
        report(controller, step)
    probe.settle()
    with pytest.raises(ParamsError, match=r"were removed, as nothing .*keep=Keep\("):
        lease.load(kept.params)


def test_a_misfit_stays_one(place: pathlib.Path | None) -> None:
    """It is no removal: the saved tree is there, and has another structure."""
    controller = opened(place)
    report(controller, 1)
    newest = controller.newest(0)
    with pytest.raises(MisfitError):
        controller.load(newest, {"v": np.ones(2)})
    with pytest.raises(MisfitError):
        controller.claim_all().load(newest.params, {"v": np.ones(2)})


def test_a_file_that_someone_removed_is_an_error_of_the_store(
    tmp_path: pathlib.Path,
) -> None:
    """The library did not remove it, and does not say so."""
    controller = opened(tmp_path)
    report(controller, 1)
    for file in (tmp_path / "params").rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(ParamsError) as error:
        controller.load(controller.newest(0))
    assert "keep=Keep" not in str(error.value)


def test_a_checkpoint_of_another_run_has_what_it_names(tmp_path: pathlib.Path) -> None:
    """Without params it is an error here, too."""
    other, controller = opened(None), opened(tmp_path)
    with pytest.raises(ParamsError, match="got None"):
        controller.load(other.newest(0))
