"""All that a report says can be read again, or is refused before it is recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sqlite3
from typing import Any

import numpy as np
import pytest

from population import PopulationController
from population.mutators import FixedSchedule
from tests import probe
from tests.helpers import Scripted, branch_at, everything, generation, poll

MA: Any = np.ma  # Older releases of NumPy do not declare its types.

UNDECODABLE = "weights-\udcff.npz: no such file"


def opened(log_dir: pathlib.Path, mutator: Any = None) -> PopulationController:
    """A run of one worker."""
    return PopulationController([1.0], mutator or FixedSchedule({0: 1.0}), log_dir)


def test_a_reason_with_undecodable_bytes_is_recorded(tmp_path: pathlib.Path) -> None:
    """For example `worker.reject(str(error))` with a file name that is not text."""
    controller = opened(tmp_path)
    with controller.worker() as worker:
        worker.poll()
        for _ in range(2):
            worker.step += 1
            worker.report(1.0, {"w": np.full(1, worker.step)})
    with controller.worker() as worker:
        worker.poll()
        worker.reject(UNDECODABLE)
        assert worker.poll()
        reason = probe.newest(controller)[0].reason
    assert reason == "rejected: weights-\\udcff.npz: no such file"
    controller.close()
    again = opened(tmp_path)
    assert probe.newest(again)[0].reason == reason
    again.close()


def test_a_branch_may_have_such_a_reason_too(tmp_path: pathlib.Path) -> None:
    """So may meta_params and metrics, and they come back unchanged."""

    def decide(report: Any, view: Any) -> Any:
        found = branch_at(1, {"file": UNDECODABLE})(report, view)
        return {w: dataclasses.replace(b, reason=UNDECODABLE) for w, b in found.items()}

    controller = opened(tmp_path, Scripted(decide))
    name = generation(controller)
    controller.set_eval(0, name, 1, UNDECODABLE, 1.0, {UNDECODABLE: UNDECODABLE})
    controller.close()
    again = opened(tmp_path, Scripted())
    at = probe.newest(again)[0]
    assert at.params == UNDECODABLE
    assert at.meta_params == {"file": UNDECODABLE}
    assert at.reason == UNDECODABLE.replace("\udcff", "\\udcff")
    assert again.graph[name][1].metrics == {UNDECODABLE: UNDECODABLE}
    again.close()


def test_an_id_that_is_no_text_is_unknown(tmp_path: pathlib.Path) -> None:
    """It is like any other unknown id."""
    controller = opened(tmp_path)
    before = everything(controller)
    controller.set_eval(0, "\udcff", 1, "x", 1.0)
    found = poll(controller, 0, "\udcff", 3)
    assert found is not None
    assert found.step == 0
    with pytest.raises(KeyError):
        controller.graph["\udcff"]
    assert everything(controller) == before
    controller.close()


def nested(depth: int) -> Any:
    """Lists in lists."""
    tree: Any = []
    for _ in range(depth - 1):
        tree = [tree]
    return tree


def deep_in_calls(frames: int, call: Any) -> Any:
    """Make a call from deep within a program's stack."""
    return call() if not frames else deep_in_calls(frames - 1, call)


@pytest.mark.parametrize("depth", [101, 490, 100_000])
@pytest.mark.parametrize("what", ["metrics", "params", "meta_params"])
def test_what_could_not_be_read_again_is_refused(
    what: str, depth: int, tmp_path: pathlib.Path
) -> None:
    """The error names it, and the run continues."""
    decide = branch_at(1, nested(depth)) if what == "meta_params" else None
    controller = opened(tmp_path, Scripted(decide))
    before = everything(controller)
    params = nested(depth) if what == "params" else "x"
    metrics = nested(depth) if what == "metrics" else None
    with pytest.raises((TypeError, ValueError), match=rf"{what}.*100"):
        controller.set_eval(0, generation(controller), 1, params, 1.0, metrics)
    assert everything(controller) == before
    controller.set_eval(0, generation(controller), 2, "x", 1.0)
    controller.close()
    again = opened(tmp_path, Scripted())
    assert again.workers[0].step == 2
    again.close()


def test_what_is_accepted_can_be_read_from_deep_within_a_program(
    tmp_path: pathlib.Path,
) -> None:
    """The limit leaves room for the caller's stack."""
    controller = opened(tmp_path)
    name = generation(controller)
    deep_in_calls(
        400, lambda: controller.set_eval(0, name, 1, nested(100), 1.0, nested(100))
    )
    controller.close()
    again = opened(tmp_path)
    found = deep_in_calls(400, lambda: list(again.history()))
    assert found[-1].metrics == found[-1].params == nested(100)
    again.close()


def test_a_deep_tree_of_an_older_version_is_read_and_copied(
    tmp_path: pathlib.Path,
) -> None:
    """The limit is only for new reports."""
    controller = opened(tmp_path)
    name = generation(controller)
    controller.set_eval(0, name, 1, "x", 1.0, "y")
    controller.close()
    deep = "[" * 150 + "]" * 150
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as older:
        older.execute("UPDATE checkpoints SET params = ? WHERE step = 1", (deep,))
        older.execute("UPDATE checkpoints SET metrics = ? WHERE step = 1", (deep,))
        older.execute(
            "UPDATE generations SET meta_params = ?, digest = ?", (deep, deep)
        )
        older.commit()
    again = opened(tmp_path)
    assert again.newest(0).params == again.newest(0).metrics == nested(150)
    again.worker(0)
    with again.worker(0) as second:  # It takes the slot over, in a new generation.
        assert second.meta_params == second.params == nested(150)
    again.close()


@pytest.mark.parametrize(
    "value",
    [np.ma.masked, MA.array(1.0, mask=True), np.datetime64("2026-01-01", "ns")],
)
def test_numbers_that_mean_something_else_are_refused(
    value: Any, tmp_path: pathlib.Path
) -> None:
    """A masked value would be read as the value under the mask."""
    controller = opened(tmp_path)
    name, before = generation(controller), everything(controller)
    for report in ((value, None), (1.0, {"loss": value})):
        with pytest.raises(TypeError, match=r"mask|date"):
            controller.set_eval(0, name, 1, "x", *report)
    with pytest.raises(TypeError, match=r"mask|date"):
        controller.set_eval(0, name, 1, {"w": MA.array([1.0], mask=[True])}, 1.0)
    assert everything(controller) == before
    controller.close()
