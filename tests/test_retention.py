"""Only saved arrays that nothing can need are removed, so the disk does not fill up."""

from __future__ import annotations

import math
import os
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from population import (
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Ref,
    Report,
    Worker,
)
from population.base.types import Checkpoint, Saved
from population.core.retention import Keep
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
from population.params import FileParams
from tests import probe
from tests.helpers import Scripted, generation, poll, work

ROOT = pathlib.Path(__file__).parent.parent
BYTES = 8 * 4  # Bytes of one save.


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal())


def tree(number: int) -> dict[str, Any]:
    """Params that name their report."""
    return {"w": np.full(4, float(number))}


def opened(
    log_dir: pathlib.Path,
    mutator: Mutator[Any] | None = None,
    keep: Keep | None = None,
    size: int = 1,
) -> PopulationController:
    """A run whose policy by default decides nothing."""
    return PopulationController(
        [float(slot) for slot in range(size)],
        mutator or Scripted(),
        log_dir,
        keep=keep,
    )


def report(controller: PopulationController, worker_id: int, step: int) -> None:
    """Report for the slot's present generation; later values are worse."""
    generation_id = generation(controller, worker_id)
    controller.set_eval(worker_id, generation_id, step, tree(step), float(step))


def files(log_dir: pathlib.Path) -> list[str]:
    """The files in the folder of params, after all removals."""
    probe.settle()
    folder = log_dir / "params"
    names = (
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )
    return sorted(name for name in names if not name.startswith(".runs/"))


def steps(log_dir: pathlib.Path) -> list[int]:
    """The steps of the files on the disk, by their names."""
    return sorted(int(name.split("/")[1].split("-")[0]) for name in files(log_dir))


def saved(checkpoints: Sequence[Checkpoint] | Iterator[Checkpoint]) -> set[str]:
    """The paths of the saves that checkpoints name."""
    return {c.params.path for c in checkpoints if type(c.params) is Saved}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(), {1, 40}),  # The best and the newest.
        (Keep(everything=True), set(range(1, 41))),
        (Keep(every=10), {1, 10, 20, 30, 40}),
        (Keep(last=3), {1, 38, 39, 40}),
        (Keep(every=10, last=2), {1, 10, 20, 30, 39, 40}),
        (Keep(bytes=10 * BYTES), {1, *range(32, 41)}),
        (Keep(every=10, bytes=3 * BYTES), {1, 30, 40}),
        (Keep(last=20, bytes=5 * BYTES), {1, 37, 38, 39, 40}),
    ],
    ids=str,
)
def test_what_is_kept_is_what_the_policy_names_and_what_is_reachable(
    keep: Keep, kept: set[int], tmp_path: pathlib.Path
) -> None:
    """Except for a fifth that may wait for the next removal."""
    controller = opened(tmp_path, keep=keep)
    for step in range(1, 41):
        report(controller, 0, step)
    found = set(steps(tmp_path))
    assert kept <= found
    assert len(found) <= 1.2 * len(kept)
    checkpoints = list(controller.history())
    assert saved(checkpoints) == set(files(tmp_path))
    for checkpoint in checkpoints:
        if checkpoint.params is not None:
            assert controller.load(checkpoint)["w"][0] == checkpoint.step


def test_a_policy_may_change_when_the_run_is_opened_again(
    tmp_path: pathlib.Path,
) -> None:
    """The next removal takes what the old policy kept, but nothing reachable."""
    first = opened(tmp_path, keep=Keep(everything=True))
    for step in range(1, 21):
        report(first, 0, step)
    first.close()
    assert len(steps(tmp_path)) == 20
    with pytest.warns(UserWarning, match=r"goes on with Keep\(every=10"):
        second = opened(tmp_path, keep=Keep(every=10))
    report(second, 0, 21)
    assert steps(tmp_path) == [1, 10, 20, 21]


class Whimsical(Mutator[dict[str, Any]]):
    """Branches sometimes, and keeps refs to checkpoints that it may branch to later."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._choose = random.Random(seed)

    def init(self, view: PopulationView) -> dict[str, Any]:
        """There is nothing to go back to yet."""
        return {"refs": []}

    def update(
        self, state: dict[str, Any], report: Report, view: PopulationView
    ) -> tuple[dict[str, Any], dict[int, Branch]]:
        """Remember this checkpoint, drop another, or go back to a third."""
        refs: list[Ref] = state["refs"]
        kind = self._choose.random()
        if kind < 0.2:
            return {"refs": [*refs[-3:], report.checkpoint.ref]}, {}
        if kind < 0.35 and refs:
            parent = view.graph.checkpoint(self._choose.choice(refs))
            worker_id = self._choose.randrange(len(view.workers))
            return state, {worker_id: Branch(parent, self._choose.random())}
        return state, {}


KEEPS = [Keep(), Keep(every=4), Keep(last=2), Keep(bytes=6 * BYTES), Keep(bytes=1)]


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_only_what_is_unreachable_is_removed(
    keep: Keep, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds for any decisions, with two controllers in turns on one run."""
    choose = random.Random(1)
    both = [opened(tmp_path, Whimsical(seed), keep, size=3) for seed in (0, 0)]
    for number in range(100):
        controller = choose.choice(both)
        worker_id = choose.randrange(3)
        at = work(controller, worker_id)
        value = math.nan if choose.random() < 0.2 else choose.random()
        has_value, has_params = choose.random() < 0.8, choose.random() < 0.9
        controller.set_eval(
            worker_id,
            at.generation_id,
            at.step + 1,
            tree(number) if has_params else None,
            value if has_value else None,
        )
        there = set(files(tmp_path))
        for each in both:
            reachable = probe.reachable(each)
            assert saved(iter(reachable)) <= there
    assert saved(list(both[0].history())) == there
    recorded = sum(c.reason == "" and c.params is None for c in both[0].history())
    assert recorded > 15  # Some were removed.


class Remembers(Mutator[dict[Ref, float]]):
    """Keeps the ref of step 5, as a key of its state."""

    def init(self, view: PopulationView) -> dict[Ref, float]:
        """Nothing."""
        return {}

    def update(
        self, state: dict[Ref, float], report: Report, view: PopulationView
    ) -> tuple[dict[Ref, float], Mapping[int, Branch]]:
        """Never a branch."""
        if report.checkpoint.step == 5:
            state = {report.checkpoint.ref: 1.0}
        return state, {}


def test_what_a_key_of_the_mutators_state_names_stays(tmp_path: pathlib.Path) -> None:
    """A ref counts wherever it stands in the state."""
    controller = opened(tmp_path, Remembers())
    for step in range(1, 20):
        report(controller, 0, step)
    assert steps(tmp_path) == [1, 5, 19]


def leaving(step: int) -> Scripted:
    """Worker 1's report of this step resets worker 0 to the start."""

    def decide(report: Report, view: PopulationView) -> dict[int, Branch]:
        due = report.worker_id == 1 and report.checkpoint.step == step
        return {0: Branch(None, 0.5, "as planned")} if due else {}

    return Scripted(decide)


def test_what_a_worker_elsewhere_was_handed_stays_until_it_is_taken_up(
    tmp_path: pathlib.Path,
) -> None:
    """Two processes, step by step: neither removes what the other will load next."""
    here, there = (opened(tmp_path, leaving(10), size=2) for _ in range(2))
    report(there, 1, 1)
    report(there, 0, 5)
    worker = here.worker(0)
    assert worker.poll()
    assert worker.step == 5
    report(there, 1, 10)  # Only the worker may need step 5 now.
    assert there.workers[0].step == 0
    for step in range(11, 40):
        report(there, 1, step)
    assert 5 in steps(tmp_path)
    assert worker.restore(lambda meta: tree(0))["w"][0] == 5.0
    assert worker.poll()
    assert worker.step == 0
    worker.step = 1
    worker.report(0.5, tree(1))
    for step in range(40, 60):
        report(there, 1, step)
    assert 5 not in steps(tmp_path)


def test_a_raw_poll_whose_params_were_removed_meanwhile_gets_newer_work(
    tmp_path: pathlib.Path,
) -> None:
    """A raw poll is not recorded: it looks again."""
    here, there = (opened(tmp_path, leaving(10), size=2) for _ in range(2))
    report(there, 1, 1)
    report(there, 0, 5)

    def others_go_on() -> None:
        report(there, 1, 10)
        report(there, 0, 3)
        for step in range(11, 30):
            report(there, 1, step)
        assert 5 not in steps(tmp_path)

    probe.before_next_load(here, others_go_on)
    found = poll(here, 0)
    assert found is not None
    assert (found.step, found.meta_params) == (3, 0.5)
    assert found.params["w"][0] == 3.0


def test_what_diverged_late_and_was_removed_is_gone_in_memory_too(
    tmp_path: pathlib.Path,
) -> None:
    """A slot's newest params may go once its value turns out to be no number."""
    controller = opened(tmp_path, size=2)
    report(controller, 0, 1)
    place = 0, generation(controller, 0), 2
    controller.set_eval(*place, tree(2), None)
    controller.set_eval(*place, None, math.nan)
    report(controller, 1, 1)
    assert steps(tmp_path) == [1, 1]
    assert controller.newest(0).params is None
    known = probe.in_memory(controller)
    probe.forget(controller)
    assert probe.in_memory(controller) == known


def test_the_files_of_others_stay(tmp_path: pathlib.Path) -> None:
    """The store does not touch files that it has not written, whatever their names."""
    first = opened(tmp_path)
    report(first, 0, 1)
    folder = tmp_path / "params" / generation(first)
    first.close()
    names = [
        "notes.txt",
        "7.safetensors",
        "7-abc.safetensors",
        ".7-x.tmp",
        "7/8-1-2.safetensors",
    ]
    names += ["7-deadbeef-0badcafe.safetensors"]  # No process of this run has saved it.
    others = [folder / name for name in names] + [tmp_path / "params" / "notes.txt"]
    for file in others:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    for _ in range(2):
        controller = opened(tmp_path)
        for step in range(2, 12):
            report(controller, 0, 10 * len(steps_of(controller)) + step)
        controller.close()
    assert all(file.read_text() == "mine" for file in others)


def steps_of(controller: PopulationController) -> list[int]:
    """The recorded steps of the first slot's generation."""
    return list(controller.graph[generation(controller)])


def test_what_a_loop_saved_by_itself_is_never_touched(tmp_path: pathlib.Path) -> None:
    """The loop owns its paths; they stay on the disk and in the history."""
    controller = opened(tmp_path, keep=Keep(bytes=1))
    with controller.worker() as worker:
        assert worker.poll()
        for step in range(1, 30):
            worker.step = step
            path = worker.save_to
            assert path is not None
            pathlib.Path(path).write_text(str(step))
            worker.report(1.0, path if step % 2 else tree(step))
    own = [c for c in controller.history() if type(c.params) is str]
    assert [c.step for c in own] == list(range(1, 30, 2))
    assert all(pathlib.Path(c.params).read_text() == str(c.step) for c in own)
    assert len(list((tmp_path / "own").rglob("*/*"))) == 29


KILLED = """
import os, signal, sys
from tests import probe
from tests import test_retention as tests

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

controller = tests.opened(tests.pathlib.Path(sys.argv[1]))
tests.report(controller, 0, 1)
if sys.argv[2] == "saved":
    store = probe.store(controller)
    save = store.save
    store.save = lambda *arguments: (save(*arguments), die())
else:
    os.replace = die
tests.report(controller, 0, 2)
"""


@pytest.mark.parametrize("left", ["saved", "draft"])
def test_what_a_killed_session_left_goes_and_what_a_live_one_is_about_to_report_stays(
    left: str, tmp_path: pathlib.Path
) -> None:
    """A save without a report is either a leftover or too new; its owner tells."""
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, left], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    orphans = [name for name in files(tmp_path) if not name.split("/")[1][0] == "1"]
    assert len(orphans) == 1
    live = opened(tmp_path)
    store = probe.store(live)
    save = store.save

    def save_and_wait(name: str, tree: Any) -> Any:
        path = save(name, tree)
        later = opened(tmp_path)
        report(later, 0, 4)
        assert orphans[0] not in files(tmp_path)
        assert path in files(tmp_path)
        return path

    store.save = save_and_wait
    live.set_eval(0, generation(live), 5, tree(5), 5.0)
    assert live.load(live.newest(0))["w"][0] == 5.0


def test_what_a_kill_left_of_a_removal_is_removed_later(tmp_path: pathlib.Path) -> None:
    """The journal says that it is removed; then the file is removed."""
    first = opened(tmp_path)
    removed: list[str] = []
    store = probe.store(first)
    store.remove = removed.append
    for step in range(1, 6):
        report(first, 0, step)
    probe.settle()
    assert removed
    assert set(removed) <= set(files(tmp_path))
    first.close()
    again = opened(tmp_path)
    report(again, 0, 6)
    again.close()
    assert not set(removed) & set(files(tmp_path))


class Counting(FileParams):
    """A store that counts its bytes, without looking at the disk."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder)
        self.held: set[str] = set()

    def save(self, name: str, tree: Any) -> str:
        """Save, and count."""
        path = super().save(name, tree)
        self.held.add(path)
        return path

    def remove(self, path: str) -> None:
        """Remove, and count."""
        super().remove(path)
        self.held.discard(path)


POLICIES: dict[str, Callable[[], Mutator[Any]]] = {
    "pbt": lambda: PopulationBasedTraining(mutate, 5),
    "pbt, synchronous": lambda: PopulationBasedTraining(mutate, 5, synchronous=True),
    "winner": lambda: WinnerTakeAllGenetic(mutate, 5),
}


@pytest.mark.parametrize(
    "saves", [120, pytest.param(10_000, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_disk_never_holds_a_fifth_more_than_what_is_reachable(
    policy: str, size: int, saves: int, tmp_path: pathlib.Path
) -> None:
    """This holds after each report, in a run of any length."""
    store = Counting(tmp_path / "params")
    controller = PopulationController(
        [1.0 + slot for slot in range(size)], POLICIES[policy](), tmp_path, params=store
    )
    most = 0.0
    for number in range(saves):
        workers = controller.workers
        worker_id = min(range(size), key=lambda w: workers[w].step)
        at = workers[worker_id]
        value = abs(at.meta_params) + 1 / (1 + at.step)
        controller.set_eval(
            worker_id, at.generation_id, at.step + 1, tree(number), value
        )
        probe.settle()
        most = max(most, len(store.held) / len(controller.reachable()))
    assert most <= 1.2
    assert store.held == set(files(tmp_path))


def test_a_worker_goes_on_from_what_was_kept(tmp_path: pathlib.Path) -> None:
    """After each restart, with nothing kept except what is reachable."""
    for start in range(0, 50, 10):
        controller = opened(tmp_path, size=2)
        for worker_id in range(2):
            with controller.worker(worker_id) as worker:
                train(worker, start)
        controller.close()
    assert len(files(tmp_path)) <= 4


def train(worker: Worker, start: int) -> None:
    """Ten steps from where the slot was."""
    assert worker.poll()
    assert worker.step == start
    state = worker.restore(lambda meta: tree(0))
    assert state["w"][0] == start
    for _ in range(10):
        worker.step += 1
        worker.report(100.0 - worker.step, tree(worker.step))
