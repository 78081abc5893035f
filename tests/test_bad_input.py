"""Bad input is refused by a message that names it, and nothing changes."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import population
from population import (
    Branch,
    JournalError,
    Mutator,
    PopulationController,
    PopulationError,
    PopulationView,
    Report,
    RunMismatchError,
    Start,
    Stop,
)
from population.journal.sqlite import SqliteJournal
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    WinnerTakeAllGenetic,
)
from population.params import FileParams
from tests import probe
from tests.helpers import Scripted, everything, generation, poll


def same(meta_params: Any, *direction: Any) -> Any:
    """A mutation without effect."""
    return meta_params


@pytest.fixture(params=["memory", "disk"])
def controller(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[PopulationController]:
    """A run of two workers; the first began at step 3 and has reported at 5."""
    log_dir = tmp_path / "run" if request.param == "disk" else None
    starts = [Start({"lr": 0}, step=3), {"lr": 1}]
    made = PopulationController(starts, Scripted(), log_dir)
    made.set_eval(0, generation(made), 5, {"w": np.ones(2)}, 1.0)
    yield made
    made.close()


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file of a folder, except those that SQLite makes itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


@dataclasses.dataclass
class Record:
    """Plain data of a type that no record could name."""

    path: str


class Opaque:
    """An object that no codec accepts."""

    def __repr__(self) -> str:
        return "<opaque>"


NO_FUNCTION: Any = 3
BAD_IDS: list[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, "worker_id must be 0 or more, got -1"),
    (2, ValueError, "worker_id must be below 2, the size of the population, got 2"),
    (0.0, TypeError, r"worker_id must be an int, got float 0\.0"),
    (True, TypeError, "worker_id must be an int, got bool True"),
    ("0", TypeError, "worker_id must be an int, got str '0'"),
    (None, TypeError, "worker_id must be an int, got NoneType"),
]
BAD_STEPS: list[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, "step must be 0 or more, got -1"),
    (6.0, TypeError, r"step must be an int, got float 6\.0"),
    (True, TypeError, "step must be an int, got bool True"),
    (None, TypeError, "step must be an int, got NoneType None"),
    (np.array([1, 2]), TypeError, "step must be an int, got ndarray"),
    (2, ValueError, "step must be 3 or more, where generation .* began, got 2"),
    (2**63, ValueError, "step"),
]


@pytest.mark.parametrize(("worker_id", "error", "message"), BAD_IDS)
def test_a_bad_worker_id_is_refused(
    controller: PopulationController,
    worker_id: Any,
    error: type[Exception],
    message: str,
) -> None:
    """A poll, a report and a claim refuse it."""
    before = everything(controller)
    with pytest.raises(error, match=message):
        poll(controller, worker_id)
    with pytest.raises(error, match=message):
        controller.set_eval(worker_id, generation(controller), 6, "p", 1.0)
    if worker_id is not None:
        with pytest.raises(error, match=message):
            controller.worker(worker_id)
    with pytest.raises(error, match=message):
        controller.newest(worker_id)
    assert everything(controller)[1] == before[1]
    assert not probe.lease_holders(controller)


@pytest.mark.parametrize(("step", "error", "message"), BAD_STEPS)
def test_a_bad_step_is_refused(
    controller: PopulationController, step: Any, error: type[Exception], message: str
) -> None:
    """A poll and a report refuse it."""
    before = everything(controller)
    generation_id = generation(controller)
    with pytest.raises(error, match=message):
        poll(controller, 0, generation_id, step)
    with pytest.raises(error, match=message):
        controller.set_eval(0, generation_id, step, "p", 1.0)
    assert everything(controller) == before


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("0.5", TypeError, "value must be a real number or None, got str '0.5'"),
        (np.zeros(2), ValueError, r"value must be one number, got .* shape \(2,\)"),
        (jnp.zeros((1, 3)), ValueError, r"value must be one number.*\(1, 3\)"),
        (np.zeros(0), ValueError, r"value must be one number.*\(0,\)"),
        ([0.5], TypeError, "value must be a real number or None, got list"),
        (1j, TypeError, "value must be a real number or None, got complex"),
        (True, TypeError, "value must be a real number or None, got bool"),
        (Opaque(), TypeError, "value must be a real number or None, got Opaque"),
        pytest.param(10**400, (TypeError, ValueError), "value", id="too large"),
    ],
)
def test_a_bad_value_is_refused(
    controller: PopulationController, value: Any, error: Any, message: str
) -> None:
    """A value is one real number or None."""
    before = everything(controller)
    with pytest.raises(error, match=message):
        controller.set_eval(0, generation(controller), 6, "p", value)
    assert everything(controller) == before


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (lambda: None, "params"),
        ({"w": np.ones(2), "f": lambda: None}, r"params\['f'\]"),
        ({"deep": [1, {"f": lambda: None}]}, r"params\['deep'\]\[1\]\['f'\]"),
        ({"x": Opaque()}, r"params\['x'\]"),
    ],
)
def test_params_that_cannot_be_stored_are_refused(
    controller: PopulationController,
    params: Any,
    message: str,
    tmp_path: pathlib.Path,
) -> None:
    """The message has the path within the tree, and no file is left."""
    before, saved = everything(controller), files(tmp_path)
    with pytest.raises(TypeError, match=message):
        controller.set_eval(0, generation(controller), 6, params, 1.0)
    assert everything(controller) == before
    assert files(tmp_path) == saved


@pytest.mark.parametrize("params", [Record("p"), {"here": [Record("p")]}])
def test_params_that_would_not_come_back_are_refused(
    controller: PopulationController, params: Any
) -> None:
    """A record of a type that the journal cannot name is refused."""
    before = everything(controller)
    with pytest.raises(TypeError, match="params"):
        controller.set_eval(0, generation(controller), 6, params, 1.0)
    assert everything(controller) == before


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"x": Opaque()}, r"metrics\['x'\]"),
        ({"x": np.zeros(3)}, r"metrics\['x'\] is an array of shape \(3,\)"),
        ({"x": Record("p")}, r"metrics"),
    ],
)
def test_metrics_that_cannot_be_stored_are_refused(
    controller: PopulationController,
    metrics: Any,
    message: str,
    tmp_path: pathlib.Path,
) -> None:
    """The message has the path; the params of the report are not kept."""
    before, saved = everything(controller), files(tmp_path)
    with pytest.raises(TypeError, match=message):
        controller.set_eval(
            0, generation(controller), 6, {"w": np.ones(2)}, 1.0, metrics
        )
    assert everything(controller) == before
    assert files(tmp_path) == saved


@pytest.mark.parametrize("generation_id", [None, 7, b"id"])
def test_a_report_needs_a_generation(
    controller: PopulationController, generation_id: Any
) -> None:
    """Only a poll may omit it."""
    before = everything(controller)
    with pytest.raises(TypeError, match="generation_id must be the str that the poll"):
        controller.set_eval(0, generation_id, 6, "p", 1.0)
    assert everything(controller) == before


def test_a_poll_with_a_generation_that_is_no_string_is_refused(
    controller: PopulationController,
) -> None:
    """Only None and the empty string may replace it."""
    before = everything(controller)
    with pytest.raises(TypeError, match="generation_id must be the str"):
        poll(controller, 0, 7)  # type: ignore[arg-type]
    assert everything(controller) == before


def test_one_bad_report_of_a_batch_refuses_all(
    controller: PopulationController, tmp_path: pathlib.Path
) -> None:
    """Neither the good reports nor their arrays are kept."""
    first = generation(controller)
    good = (0, first, 6, {"w": np.ones(2)}, 1.0)
    before, saved = everything(controller), files(tmp_path)
    for bad in ((0, first, 2, None, 1.0), (0, first, 7, None, "x"), (1, first)):
        with pytest.raises((TypeError, ValueError)):
            controller.set_evals([good, bad])
        assert everything(controller) == before
        assert files(tmp_path) == saved


# The constructor.


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"initial_population": []}, ValueError, "at least one entry, got none"),
        (
            {"initial_population": [{"lr": 1}, {"f": [Opaque()]}]},
            TypeError,
            r"initial_population\[1\]\['f'\]\[0\] cannot be stored: got Opaque",
        ),
        (
            {"initial_population": [{"lr": np.ones(2)}]},
            TypeError,
            r"initial_population\[0\]\['lr'\] is an array of shape \(2,\)",
        ),
        (
            {"initial_population": [Record("p")]},
            TypeError,
            r"initial_population\[0\]",
        ),
        (
            {"initial_population": [Start({}, params=lambda: None)]},
            TypeError,
            "params",
        ),
        ({"mutator": "winner"}, TypeError, "mutator must be a population.Mutator"),
        ({"mode": "least"}, ValueError, "mode must be one of .*'min', 'max'"),
        ({"seed": -1}, ValueError, "seed must be 0 or more"),
        ({"seed": 1.0}, TypeError, "seed must be an int"),
        ({"seed": None}, TypeError, "seed must be an int"),
        ({"journal": "x"}, TypeError, "journal must be a population.Journal, got str"),
        ({"params": "x"}, TypeError, "params must be a store, .* got str"),
        ({"clock": 5}, TypeError, "clock must be a function, got int"),
        ({"log_dir": ""}, ValueError, "log_dir must be the path of a folder, got an"),
    ],
)
def test_bad_arguments_of_the_controller_are_refused(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: pathlib.Path
) -> None:
    """A refused run leaves nothing: the next one can use the folder."""
    arguments: dict[str, Any] = {
        "initial_population": [{}],
        "mutator": Scripted(),
        "log_dir": tmp_path / "run",
    }
    with pytest.raises(error, match=message):
        PopulationController(**{**arguments, **change})
    PopulationController(**arguments).close()


def test_a_mutator_that_cannot_run_the_population_leaves_nothing(
    tmp_path: pathlib.Path,
) -> None:
    """The arrays of a Start are not left, either."""
    log_dir = tmp_path / "run"
    starts = [Start({}, params={"w": np.ones(3)}), Start({})]
    with pytest.raises(ValueError, match="one worker, got a population of 2"):
        PopulationController(starts, BranchingSingleMachine(same, 5, 5), log_dir)
    assert [name for name in files(log_dir) if "journal" not in name] == []
    PopulationController(starts, Scripted(), log_dir).close()


@pytest.mark.parametrize("step", [-1, 1.0, True, "1"])
def test_a_start_at_no_step_is_refused(step: Any) -> None:
    """Steps are counted from 0."""
    with pytest.raises(ValueError, match=r"Start\.step must be an int of 0 or more"):
        Start({}, step=step)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"steps": 0}, r"Stop\.steps must be a positive int or None, got 0"),
        ({"reports": 1.5}, r"Stop\.reports must be a positive int"),
        ({"patience": True}, r"Stop\.patience must be a positive int"),
        ({"seconds": "1"}, r"Stop\.seconds must be a number, got '1'"),
        ({"value": math.nan}, r"Stop\.value must be a number, got NaN"),
        ({"value": True}, r"Stop\.value must be a number"),
    ],
)
def test_a_limit_that_is_none_is_refused(limits: Any, message: str) -> None:
    """A typo must not make a run endless."""
    with pytest.raises(ValueError, match=message):
        Stop(**limits)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: WinnerTakeAllGenetic(same), ValueError, "exactly one of steps_per"),
        (
            lambda: WinnerTakeAllGenetic(same, 5, 1.0),
            ValueError,
            r"exactly one of .* got 5 and 1\.0",
        ),
        (lambda: WinnerTakeAllGenetic(same, 0), ValueError, "steps_per_exploit must"),
        (
            lambda: WinnerTakeAllGenetic(same, seconds_per_exploit=0),
            ValueError,
            "seconds_per_exploit must be a positive number, got 0",
        ),
        (
            lambda: WinnerTakeAllGenetic(NO_FUNCTION, 5),
            TypeError,
            "mutate_fn must be a function",
        ),
        (
            lambda: WinnerTakeAllGenetic(same, None, 1.0, synchronous=True),
            ValueError,
            "Pass steps_per_exploit",
        ),
        (lambda: FixedSchedule({}), ValueError, "at least one entry, got none"),
        (lambda: FixedSchedule({-1: {}}), ValueError, "ints of 0 or more"),
        (lambda: FixedSchedule(NO_FUNCTION), TypeError, "schedule must be"),
        (lambda: BranchingSingleMachine(same, 0, 1), ValueError, "exploit_steps must"),
    ],
)
def test_bad_arguments_of_a_mutator_are_refused(
    make: Callable[[], Mutator[Any]], error: type[Exception], message: str
) -> None:
    """The constructor refuses them, not the first decision."""
    with pytest.raises(error, match=message):
        make()


def test_arrays_without_a_place_are_refused(tmp_path: pathlib.Path) -> None:
    """A durable journal cannot keep them: the message names `params=`."""
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    with pytest.raises(ValueError, match=r"params=FileParams"):
        PopulationController(
            [Start({}, params=np.ones(2))], Scripted(), journal=journal
        )
    controller = PopulationController([{}], Scripted(), journal=journal)
    before = everything(controller)
    with pytest.raises(ValueError, match=r"params=FileParams"):
        controller.set_eval(0, generation(controller), 1, np.ones(2), 1.0)
    assert everything(controller) == before
    controller.close()


def test_arrays_with_a_place_of_their_own_are_kept(tmp_path: pathlib.Path) -> None:
    """The message advises `params=`."""
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    controller = PopulationController(
        [{}], Scripted(), journal=journal, params=FileParams(tmp_path / "weights")
    )
    controller.set_eval(0, generation(controller), 1, np.arange(2), 1.0)
    found = poll(controller)
    assert found is not None
    np.testing.assert_array_equal(found.params, np.arange(2))
    controller.close()


# The run folder.


def test_a_log_dir_that_is_a_file_is_refused(tmp_path: pathlib.Path) -> None:
    """The file does not change."""
    place = tmp_path / "file"
    place.write_text("mine")
    for log_dir in (place, place / "below"):
        with pytest.raises(JournalError, match="log_dir must be a folder"):
            PopulationController([{}], Scripted(), log_dir)
    assert place.read_text() == "mine"


def test_a_journal_that_is_a_folder_is_refused(tmp_path: pathlib.Path) -> None:
    """The message says what is wrong."""
    (tmp_path / "journal.sqlite").mkdir()
    with pytest.raises(JournalError, match="is a folder"):
        PopulationController([{}], Scripted(), tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "journal.sqlite"]


@pytest.fixture
def open_folder() -> Iterator[pathlib.Path]:
    """A folder that everybody can read and only its owner can write."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


class _Powerless:
    """Takes this process's right to write where root or its owner may write."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        for path in [self._folder, *self._folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        self._root = os.geteuid() == 0
        if self._root:
            os.seteuid(65534)

    def __exit__(self, *exc: object) -> None:
        if self._root:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["", "new"])
def test_a_read_only_log_dir_is_refused(open_folder: pathlib.Path, name: str) -> None:
    """The message advises a folder that can be written to."""
    with _Powerless(open_folder), pytest.raises(JournalError, match=r"writ|access to"):
        PopulationController([{}], Scripted(), open_folder / name)
    assert list(open_folder.iterdir()) == []


def test_a_run_that_may_not_be_written_is_only_shown(open_folder: pathlib.Path) -> None:
    """To train is refused, and no file changes."""
    with PopulationControllerOn(open_folder) as controller:
        controller.set_eval(0, generation(controller), 1, "p", 1.0)
    before = files(open_folder)
    with _Powerless(open_folder):
        controller = PopulationController([{}], Scripted(), open_folder)
        assert controller.newest(0).step == 1
        with pytest.raises(JournalError, match="opened to look"):
            controller.worker()
        controller.close()
    assert files(open_folder) == before


class PopulationControllerOn:
    """A run of one worker in a folder, closed at the end."""

    def __init__(self, log_dir: pathlib.Path) -> None:
        self._controller = PopulationController([{}], Scripted(), log_dir)

    def __enter__(self) -> PopulationController:
        return self._controller

    def __exit__(self, *exc: object) -> None:
        self._controller.close()


def test_a_database_of_another_program_is_refused(tmp_path: pathlib.Path) -> None:
    """No byte of it changes."""
    with sqlite3.connect(tmp_path / "journal.sqlite") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = files(tmp_path)
    with pytest.raises(JournalError, match="database of another program"):
        PopulationController([{}], Scripted(), tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("left", [1, 60, 100, 1000, 5000, -1])
def test_a_truncated_journal_is_refused(tmp_path: pathlib.Path, left: int) -> None:
    """No byte of it changes, and the message says that it is damaged."""
    with PopulationControllerOn(tmp_path) as controller:
        for step in range(1, 50):
            controller.set_eval(0, generation(controller), step, "p", 1.0)
    place = tmp_path / "journal.sqlite"
    place.write_bytes(place.read_bytes()[:left])
    before = files(tmp_path)
    with pytest.raises(JournalError, match="damaged"):
        PopulationController([{}], Scripted(), tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_population": [{}] * 3}, "workers 2, got 3"),
        ({"seed": 1}, "seed 0, got 1"),
        ({"mode": "max"}, "mode 'min', got 'max'"),
        ({"mutator": FixedSchedule({0: {}})}, "mutator .*Scripted.*FixedSchedule"),
    ],
)
def test_a_run_under_other_rules_is_refused(
    change: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    """The journal has the size, seed, mode and mutator; the run does not change."""
    arguments: dict[str, Any] = {
        "initial_population": [{}] * 2,
        "mutator": Scripted(),
        "log_dir": tmp_path,
    }
    controller = PopulationController(**arguments)
    controller.set_eval(0, generation(controller), 1, "p", 1.0)
    controller.close()
    before = files(tmp_path)
    with pytest.raises(RunMismatchError, match=message) as caught:
        PopulationController(**{**arguments, **change})
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, PopulationError)
    assert files(tmp_path) == before
    again = PopulationController(**arguments)
    assert again.workers[0].params == "p"
    again.close()


# Values that are not finite.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("synchronous", [False, True])
def test_a_value_that_is_not_finite_is_never_a_donor(
    bad: float | None, mode: str, synchronous: bool
) -> None:
    """The other worker wins, however bad it is, and the first continues from it."""
    mutator = WinnerTakeAllGenetic(same, steps_per_exploit=2, synchronous=synchronous)
    controller = PopulationController([{"lr": 0}, {"lr": 1}], mutator, mode=mode)
    ids = [generation(controller, i) for i in (0, 1)]
    worst = 1e300 if mode == "min" else -1e300
    controller.set_eval(0, ids[0], 2, "bad", bad)
    controller.set_eval(1, ids[1], 2, "good", worst)
    if bad is None:  # This report decides nothing: a later one does.
        assert [generation(controller, i) for i in (0, 1)] == ids
        controller.set_eval(0, ids[0], 3, "worse", math.nan)
    assert [w.params for w in controller.workers] == ["good", "good"]
    assert [w.meta_params for w in controller.workers] == [{"lr": 1}] * 2
    best = controller.best()
    assert best is not None
    assert best.params == "good"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("synchronous", [False, True])
def test_when_all_diverge_each_goes_on_from_its_own_last_finite_one(
    bad: float, synchronous: bool
) -> None:
    """The run does not crash, and no poll returns weights that diverged."""
    mutator = WinnerTakeAllGenetic(same, steps_per_exploit=4, synchronous=synchronous)
    controller = PopulationController([{"lr": 0}, {"lr": 1}], mutator)
    ids = [generation(controller, i) for i in (0, 1)]
    for i in (0, 1):
        controller.set_eval(i, ids[i], 2, f"good {i}", 1.0)
        controller.set_eval(i, ids[i], 4, f"bad {i}", bad)
    assert [w.params for w in controller.workers] == ["good 0", "good 1"]
    assert [w.meta_params["lr"] for w in controller.workers] == [0, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
@pytest.mark.parametrize(
    "make",
    [
        lambda: WinnerTakeAllGenetic(same, 1),
        lambda: WinnerTakeAllGenetic(same, 1, synchronous=True),
        lambda: WinnerTakeAllGenetic(same, None, 0.5, average_over_samples=False),
        lambda: BranchingSingleMachine(same, 2, 1),
        lambda: FixedSchedule({0: {"lr": 0}, 3: {"lr": 1}}),
    ],
)
def test_a_run_in_which_nothing_ever_succeeds_goes_on(
    bad: float | None, make: Callable[[], Mutator[Any]]
) -> None:
    """If failures retire no slot: no error, and no best."""
    now = [0.0]
    controller = PopulationController(
        [{"lr": 0}], make(), clock=lambda: now[0], max_failures=None
    )
    generation_id, step = "", 0
    for _ in range(50):
        now[0] += 1.0
        found = poll(controller, 0, generation_id, step)
        if found is not None:
            generation_id, step = found.generation_id, found.step
        step += 1
        controller.set_eval(0, generation_id, step, f"at {step}", bad)
    assert controller.best() is None


@pytest.mark.parametrize("call", ["lineage", "schedule", "load"])
@pytest.mark.parametrize(
    ("given", "hint"), [(None, "no best one"), (0, r"newest\(worker_id\) has the")]
)
def test_what_needs_a_checkpoint_says_so(call: str, given: Any, hint: str) -> None:
    """`best()` is None at the start, so users will pass it; or the slot's id."""
    controller = PopulationController([{}], Scripted())
    with pytest.raises(TypeError, match=f"{call} needs a checkpoint.*{hint}"):
        getattr(controller, call)(given)


@pytest.mark.parametrize("reports", [[5], ["abcde"], [(0,)], [(0, "g", 1, None)]])
def test_reports_of_another_shape_are_refused(reports: Any) -> None:
    """The error names the parts of a report; nothing is recorded."""
    controller = PopulationController([{}], Scripted())
    with pytest.raises(TypeError, match="set_evals needs tuples"):
        controller.set_evals(reports)
    assert len(list(controller.history())) == 1


@pytest.mark.parametrize(
    "result", [None, 5, {}, (1, [2]), (1, None), (1, {}, {}), [1, {}]]
)
def test_a_mutator_that_returns_something_else_is_named(result: Any) -> None:
    """Nothing is recorded, and the error says what `update` must return."""

    class Wrong(Scripted):
        def update(self, state: Any, report: Report, view: PopulationView) -> Any:
            return result

    controller = PopulationController([{}], Wrong())
    with pytest.raises(TypeError, match=r"Wrong\.update must return its next state"):
        controller.set_eval(0, generation(controller), 1, "p", 1.0)
    assert controller.newest(0).step == 0


def test_a_ref_is_no_parent() -> None:
    """The error says how to get the checkpoint."""

    def decide(report: Report, view: PopulationView) -> Any:
        return {0: Branch(report.checkpoint.ref, {})}  # type: ignore[arg-type]

    controller = PopulationController([{}], Scripted(decide))
    with pytest.raises(TypeError, match=r"from a checkpoint, got Ref.*checkpoint\(ref"):
        controller.set_eval(0, generation(controller), 1, "p", 1.0)


def test_a_run_that_is_read_again_needs_a_run_and_a_mutator(
    tmp_path: pathlib.Path,
) -> None:
    """`replay` and `fork` name what was given."""
    controller = PopulationController([{}], Scripted(), tmp_path)
    with pytest.raises(TypeError, match="run must be the path of a folder, got int"):
        population.replay(5, Scripted())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="replay needs the run's mutator"):
        population.replay(tmp_path, Scripted)  # type: ignore[arg-type]
    ref: Any = controller.newest(0).ref
    with pytest.raises(TypeError, match=r"at must be a checkpoint or an int.*got Ref"):
        population.fork(tmp_path, tmp_path / "new", mutator=Scripted(), at=ref)
    with pytest.raises(ValueError, match="seconds must be 0 or more"):
        Stop(seconds=-1)
