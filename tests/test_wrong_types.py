"""What an author returns by mistake is named, with what to write instead."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable
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
    Retire,
    replay,
)
from tests.helpers import Scripted

Answer = Callable[[Any, Report, PopulationView], Any]


class Mistaken(Mutator[Any]):
    """Returns what a function returns."""

    def __init__(self, answer: Answer, first: Any = None) -> None:
        self._answer = answer
        self._first = first

    def init(self, view: PopulationView) -> Any:
        """Return the first state."""
        del view
        return self._first

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """Return what the function returns."""
        return self._answer(state, report, view)


def fails(answer: Answer) -> str:
    """The message of the TypeError with which a report of worker 1 is rolled back."""
    controller = PopulationController([{"h": 0}] * 3, Mistaken(answer))
    first = [work.generation_id for work in controller.workers]
    with pytest.raises(TypeError) as caught:
        controller.set_eval(1, first[1], 1, "p", 1.0)
    assert [work.generation_id for work in controller.workers] == first
    assert controller.newest(1).step == 0
    return str(caught.value)


PARENTS: dict[str, tuple[Callable[[Report, PopulationView], Any], str, str]] = {
    "a ref": (lambda r, v: r.checkpoint.ref, "got Ref", "view.graph.checkpoint(ref)"),
    "an id": (
        lambda r, v: r.checkpoint.generation_id,
        "got str",
        "view.graph[generation_id][step]",
    ),
    "a pair": (
        lambda r, v: (r.checkpoint.generation_id, 1),
        "got tuple",
        "view.graph.checkpoint(Ref(generation_id, step))",
    ),
    "a slot": (lambda r, v: r.worker_id, "got int 1", "view.newest(worker_id)"),
    "a slot of numpy": (lambda r, v: np.argmin(v.scores), "int64", "view.newest("),
    "work": (lambda r, v: v.workers[0], "got ActiveWorker", "view.newest(worker_id)"),
    "a report": (lambda r, v: r, "got Report", "report.checkpoint"),
    "a generation": (
        lambda r, v: v.graph[r.checkpoint.generation_id],
        "got CheckpointsByStep",
        "Branch(parent, meta_params, reason)",
    ),
    "params": (lambda r, v: [1.0], "got list [1.0]", "None stands for fresh weights"),
}


@pytest.mark.parametrize("name", PARENTS)
def test_a_parent_that_is_no_checkpoint(name: str) -> None:
    """A name, an id or a number is not the checkpoint."""
    parent, given, instead = PARENTS[name]
    found = fails(lambda s, r, v: (s, {0: Branch(parent(r, v), {"h": 1})}))
    assert found.startswith("Mistaken must branch from a checkpoint, got ")
    assert given in found
    assert instead in found


def test_a_checkpoint_of_another_run_is_named() -> None:
    """The error says how its weights can be used."""
    other = PopulationController([{"h": 0}], Scripted())
    stranger = other.newest(0)
    controller = PopulationController(
        [{"h": 0}], Mistaken(lambda s, r, v: (s, {0: Branch(stranger, {"h": 1})}))
    )
    own = controller.workers[0].generation_id
    with pytest.raises(ValueError, match=r"which is not there\. It is of another run"):
        controller.set_eval(0, own, 1, "p", 1.0)


def test_a_checkpoint_that_was_changed_is_named() -> None:
    """It is no longer one of the graph."""
    controller = PopulationController(
        [{"h": 0}],
        Mistaken(
            lambda s, r, v: (s, {0: Branch(r.checkpoint._replace(step=7), {"h": 1})})
        ),
    )
    own = controller.workers[0].generation_id
    with pytest.raises(ValueError, match=r"not there\. Take it from view\.graph, and"):
        controller.set_eval(0, own, 1, "p", 1.0)


def branch(view: PopulationView) -> Branch:
    """A branch that is right."""
    return Branch(view.newest(0), {"h": 1})


QUESTIONS: dict[str, tuple[Callable[[Report, PopulationView], Any], str]] = {
    "newest of a text": (lambda r, v: v.newest("1"), "must be an int, got str '1'"),  # type: ignore[arg-type]
    "newest of a float": (lambda r, v: v.newest(1.0), "must be an int, got float 1.0"),  # type: ignore[arg-type]
    "barrier of a text": (
        lambda r, v: v.barrier("1", 1),  # type: ignore[arg-type]
        "must be an int, got str '1'",
    ),
    "checkpoint of an id": (
        lambda r, v: v.graph.checkpoint(r.checkpoint.generation_id),  # type: ignore[arg-type]
        "needs a Ref, got str. Write Ref(generation_id, step).",
    ),
    "checkpoint of itself": (
        lambda r, v: v.graph.checkpoint(r.checkpoint),  # type: ignore[arg-type]
        "needs a Ref, got Checkpoint. That is the checkpoint itself.",
    ),
    "score of a ref": (
        lambda r, v: v.score(r.checkpoint.ref),  # type: ignore[arg-type]
        "needs a checkpoint, got Ref. graph.checkpoint(ref) has the one of a Ref.",
    ),
    "score of none": (
        lambda r, v: v.score(None),  # type: ignore[arg-type]
        "got NoneType. There is no best one before the first finite value.",
    ),
    "lineage of an id": (
        lambda r, v: v.graph.lineage(r.checkpoint.generation_id),  # type: ignore[arg-type]
        "graph.walk needs a checkpoint, got str",
    ),
    "resume point of a slot": (
        lambda r, v: v.graph.resume_point(np.argmin(v.scores)),  # type: ignore[arg-type]
        "got int64. newest(worker_id) has the newest one of a slot.",
    ),
    "resume point of a ref": (
        lambda r, v: v.graph.resume_point(r.checkpoint.ref),  # type: ignore[arg-type]
        "graph.resume_point needs a checkpoint, got Ref.",
    ),
    "newest value of a ref": (
        lambda r, v: v.graph.newest_value(r.checkpoint.ref),  # type: ignore[arg-type]
        "graph.newest_value needs a checkpoint, got Ref.",
    ),
    "reports since a step": (
        lambda r, v: v.graph.reports_since(1, 1),  # type: ignore[arg-type]
        "graph.reports_since needs a checkpoint, got int.",
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_about_something_else(name: str) -> None:
    """The view says what it needs, and what was given."""
    ask, said = QUESTIONS[name]
    assert said in fails(lambda s, r, v: (ask(r, v), {}))


@pytest.mark.parametrize("worker_id", [-1, 3])
def test_a_question_about_no_slot(worker_id: int) -> None:
    """A negative id is not counted from the end: -1 was the last slot."""
    for ask in (
        lambda v: v.newest(worker_id),
        lambda v: v.barrier(worker_id, 0),
    ):
        controller = PopulationController(
            [{"h": 0}] * 3,
            Mistaken(lambda s, r, v, ask=ask: (ask(v), {})),  # type: ignore[misc]
        )
        own = controller.workers[0].generation_id
        with pytest.raises(ValueError, match=f"worker_id must be .* got {worker_id}"):
            controller.set_eval(0, own, 1, "p", 1.0)


ANSWERS: dict[str, tuple[Answer, str, str]] = {
    "nothing": (lambda s, r, v: None, "got None", "end without a return?"),
    "the state": (lambda s, r, v: s, "got None", "return state, {}"),
    "a list": (lambda s, r, v: [], "got list []", "return state, decisions"),
    "a dict": (lambda s, r, v: {0: branch(v)}, "got dict", "return state, decisions"),
    "a branch": (lambda s, r, v: branch(v), "got Branch", "{report.worker_id:"),
    "three": (lambda s, r, v: (s, {}, 1), "got tuple", "return state, decisions"),
    "no decisions": (lambda s, r, v: (s, None), "got tuple", "return state, {}"),
    "a list of them": (
        lambda s, r, v: (s, [branch(v)]),
        "tuple",
        "{worker_id: Branch(",
    ),
    "one without id": (lambda s, r, v: (s, branch(v)), "tuple", "{report.worker_id:"),
    "swapped": (lambda s, r, v: ({0: branch(v)}, 3), "tuple", "Write the state first"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_update_that_returns_something_else(name: str) -> None:
    """It has to return a state and a mapping."""
    answer, given, instead = ANSWERS[name]
    found = fails(answer)
    assert found.startswith("Mistaken.update must return its next state and a mapping")
    assert given in found
    assert instead in found


DECISIONS: dict[str, tuple[Callable[[PopulationView], Any], str, str]] = {
    "none": (lambda v: None, "got None", "out of the mapping"),
    "a pair": (lambda v: (v.newest(0), {"h": 1}), "got tuple", "Write Branch(parent"),
    "a checkpoint": (
        lambda v: v.newest(0),
        "got Checkpoint",
        "Write Branch(checkpoint",
    ),
    "a text": (lambda v: "stop", "got str 'stop'", "Write Retire(reason)"),
    "a class": (lambda v: Retire, "got the class Retire", "Call it: Retire(...)"),
    "hyperparameters": (
        lambda v: {"h": 1},
        "got dict",
        "Branch(view.graph.resume_point",
    ),
    "a list": (lambda v: [branch(v)], "got list", "Write Branch(parent, meta_params"),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_that_is_neither_a_branch_nor_a_retirement(name: str) -> None:
    """The error names the worker."""
    decision, given, instead = DECISIONS[name]
    found = fails(lambda s, r, v: (s, {2: decision(v)}))
    start = "Mistaken must decide a Branch or a Retire for worker 2, got "
    assert found.startswith(start)
    assert given in found
    assert instead in found


KEYS: dict[str, tuple[Callable[[PopulationView], Any], str, str]] = {
    "a float": (lambda v: 1.0, "got float 1.0", "int(...)"),
    "one of numpy": (lambda v: np.float64(1), "got float64 1.0", "int(...)"),
    "a str": (lambda v: "1", "got str '1'", "int(...)"),
    "a bool": (lambda v: True, "got bool True", "view.live"),
    "none": (lambda v: None, "got None", "view.live"),
    "a ref": (lambda v: v.newest(0).ref, "got Ref", "the checkpoint's worker_id"),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_worker_id_that_is_no_int(name: str) -> None:
    """Also next to ones that are right, which it cannot be compared with."""
    key, given, instead = KEYS[name]
    found = fails(lambda s, r, v: (s, {0: branch(v), key(v): branch(v)}))
    assert found.startswith("Mistaken must decide by worker_id, which must be an int,")
    assert given in found
    assert instead in found


def test_ids_of_numpy_are_ids() -> None:
    """`np.argmin` and `np.flatnonzero` return such ones."""
    controller = PopulationController(
        [{"h": 0}] * 3, Mistaken(lambda s, r, v: (s, {np.int64(2): branch(v)}))
    )
    controller.set_eval(0, controller.workers[0].generation_id, 1, "p", 1.0)
    assert controller.workers[2].meta_params == {"h": 1}


@pytest.mark.parametrize(
    ("meta_params", "given", "instead"),
    [
        (None, "got None", "Does mutate_fn change its argument and return nothing?"),
        ({"h": np.zeros(2)}, "meta_params for worker 1['h'] is an array", "tolist()"),
        ({"h": {1, 2}}, "meta_params for worker 1['h'] cannot be", "sorted(...)"),
    ],
)
def test_hyperparameters_that_are_none_or_cannot_be_stored(
    meta_params: Any, given: str, instead: str
) -> None:
    """The error names the worker and the entry."""
    found = fails(lambda s, r, v: (s, {1: Branch(r.checkpoint, meta_params)}))
    assert given in found
    assert instead in found


def test_a_checkpoint_is_not_its_hyperparameters() -> None:
    """Nor is the work of a slot."""
    found = fails(lambda s, r, v: (s, {1: Branch(r.checkpoint, r.checkpoint)}))
    assert "with which worker 1 goes on, got Checkpoint. Write its" in found
    found = fails(lambda s, r, v: (s, {1: Branch(r.checkpoint, v.workers[0])}))
    assert "with which worker 1 goes on, got ActiveWorker. Write its" in found


def test_hyperparameters_may_be_none_if_they_are_so_from_the_start() -> None:
    """A run without hyperparameters is a run."""
    answer = Mistaken(lambda s, r, v: (s, {0: Branch(r.checkpoint, None)}))
    controller = PopulationController([None, None], answer)
    controller.set_eval(1, controller.workers[1].generation_id, 1, "p", 1.0)
    assert controller.workers[0].step == 1


def test_a_first_that_returns_nothing_is_named() -> None:
    """Before the run begins."""

    class Forgetful(Scripted):
        def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
            meta_params["h"] = step

    with pytest.raises(TypeError, match=r"Forgetful\.first must return .*got None\."):
        PopulationController([{"h": 0}], Forgetful())


@dataclasses.dataclass(frozen=True)
class Holder:
    """A state with one field."""

    x: Any = 0


STATES: dict[str, tuple[Callable[[Report, PopulationView], Any], str, str]] = {
    "an array": (lambda r, v: np.zeros(3), "array of shape (3,)", "array.tolist()"),
    "the view's array": (lambda r, v: v.scores, "array of shape (3,)", "tolist()"),
    "a set": (lambda r, v: {2, 1}, "got set {1, 2}", "list: sorted(...)"),
    "a frozen set": (lambda r, v: frozenset([1]), "got frozenset", "sorted(...)"),
    "a checkpoint": (lambda r, v: r.checkpoint, "is a Checkpoint", "checkpoint.ref"),
    "a report": (lambda r, v: r, "is a Report", "checkpoint.ref"),
    "a branch": (lambda r, v: Branch(r.checkpoint, 1), "is a Checkpoint", ".ref"),
    "a generator": (lambda r, v: v.rng, "a random generator", "view.rng"),
    "a counter": (lambda r, v: collections.Counter("a"), "is a Counter", "dict(...)"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_cannot_be_stored(name: str) -> None:
    """The error names the field, and the plain data to use."""
    value, given, instead = STATES[name]
    mutator = Mistaken(lambda s, r, v: (Holder(value(r, v)), {}), Holder())
    controller = PopulationController([{"h": 0}] * 3, mutator)
    with pytest.raises(TypeError) as caught:
        controller.set_eval(0, controller.workers[0].generation_id, 1, "p", 1.0)
    found = str(caught.value)
    assert found.startswith("the mutator's state.x")
    assert given in found
    assert instead in found


def _decides(
    decisions: Any, state: Any, report: Report, view: PopulationView
) -> tuple[Any, Any]:
    del report, view
    return state, decisions


@pytest.mark.parametrize(
    ("step", "given", "instead"),
    [
        (3.0, "got float 3.0 for worker 0", "int(...)"),
        (np.inf, "got float inf for worker 0", "never waits return None"),
        (Ref("a", 3), "got Ref for worker 0", "never waits return None"),
        (True, "got bool True for worker 0", "never waits return None"),
    ],
)
def test_a_step_to_wait_at_is_an_int(step: Any, given: str, instead: str) -> None:
    """A float could be stored as it is, and then compared for ever."""

    class Waiting(Scripted):
        def wait_at(self, state: None, worker_id: int, view: PopulationView) -> Any:
            return step

    controller = PopulationController([{"h": 0}], Waiting())
    with pytest.raises(TypeError) as caught:
        controller.maybe_get_worker_data(0, None, 0, None, None)
    assert "Waiting.wait_at must return a step, an int, or None" in str(caught.value)
    assert given in str(caught.value)
    assert instead in str(caught.value)


def test_a_step_of_numpy_is_a_step() -> None:
    """It comes to the loop as an int."""

    class Waiting(Scripted):
        def wait_at(self, state: None, worker_id: int, view: PopulationView) -> Any:
            return view.begins.max() + 5

    controller = PopulationController([{"h": 0}], Waiting())
    work = controller.maybe_get_worker_data(0, None, 0, None, None)
    assert work is not None
    assert (work.wait_at, type(work.wait_at)) == (5, int)


def test_a_replay_names_the_same_mistakes(tmp_path: pathlib.Path) -> None:
    """So a new policy can be tried on an old run."""
    controller = PopulationController([{"h": 0}] * 3, Scripted(), tmp_path)
    controller.set_eval(0, controller.workers[0].generation_id, 1, "p", 1.0)
    controller.close()
    wrong: list[tuple[Any, str]] = [
        (2.0, "must decide by worker_id, which must be an int, got float"),
        (2, "must decide a Branch or a Retire for worker 2, got tuple"),
    ]
    for key, message in wrong:
        decisions = {0: Retire(), key: ()}
        with pytest.raises(TypeError, match=message):
            replay(tmp_path, Mistaken(functools.partial(_decides, decisions)))


def asked(ask: Callable[[PopulationView, Any], Any], step: Any) -> Any:
    """What a mutator is told about a slot with reports at the steps 2, 4 and 6."""
    told: list[Any] = []

    def answer(state: Any, report: Report, view: PopulationView) -> Any:
        told.append(ask(view, step))
        return state, {}

    controller = PopulationController([{"h": 0}], Mistaken(answer))
    for at in (2, 4, 6):
        own = controller.workers[0].generation_id
        controller.set_eval(0, own, at, "p", 1.0)
    return told[-1]


def steps_of(found: Any) -> Any:
    """The steps of checkpoints: the ids of generations differ from run to run."""
    return [*map(steps_of, found)] if type(found) is list else found and found.step


STEPS: dict[str, Callable[[PopulationView, Any], Any]] = {
    "barrier": lambda v, step: steps_of(v.barrier(0, step)),
    "as of": lambda v, step: repr(v.as_of(step)),
    "last": lambda v, step: repr(v.last(2, until=step)),
    "reports since": lambda v, step: steps_of(v.graph.reports_since(v.newest(0), step)),
    "newest value": lambda v, step: steps_of(
        v.graph.newest_value(v.newest(0), until=step)
    ),
    "get": lambda v, step: steps_of(v.graph[v.newest(0).generation_id].get(step)),
    "checkpoint": lambda v, step: steps_of(
        v.graph.checkpoint(Ref(v.newest(0).generation_id, step * 0 + 2))
    ),
}


@pytest.mark.parametrize("step", [3, 4])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_an_array_is_a_step(name: str, step: int) -> None:
    """`view.begins` and its like hold int64, which SQLite takes for no number."""
    expected = asked(STEPS[name], step)
    for kind in (np.int64, np.int32, np.array):
        assert asked(STEPS[name], kind(step)) == expected


@pytest.mark.parametrize("name", ["barrier", "as of", "reports since", "newest value"])
@pytest.mark.parametrize("step", [1.5, "1", None, True])
def test_what_is_no_step_is_named(name: str, step: Any) -> None:
    """It was compared with steps by NumPy or SQLite, or called damage."""
    with pytest.raises(TypeError, match=r"must be an int, got (float|str|None|bool)"):
        asked(STEPS[name], step)


@pytest.mark.parametrize("key", [None, 3, Ref("a", 1)])
def test_what_is_no_generation_is_not_in_the_graph(key: Any) -> None:
    """It was called a damaged journal."""
    controller = PopulationController([{"h": 0}], Scripted())
    with pytest.raises(KeyError, match=r"an id, a str, got (NoneType|int|Ref)"):
        controller.graph[key]
    with pytest.raises(KeyError, match=r"an id, a str, got (NoneType|int|Ref)"):
        controller.graph.root(key)
    assert key not in controller.graph


@pytest.mark.parametrize(
    "first", [np.int64(5), np.array(5), np.bool_(True), np.str_("a"), np.float32(0.5)]
)
def test_a_scalar_of_numpy_is_a_state(first: Any, tmp_path: pathlib.Path) -> None:
    """It comes back as one of Python: a run with it could not be opened again."""
    seen: list[Any] = []

    def answer(state: Any, report: Report, view: PopulationView) -> Any:
        seen.append(state)
        return (first if len(seen) % 2 else state), {}

    for begin in (0, 2):
        controller = PopulationController(
            [{"h": 0}], Mistaken(answer, first), tmp_path / "run"
        )
        for step in (begin + 1, begin + 2):
            own = controller.workers[0].generation_id
            controller.set_eval(0, own, step, "p", 1.0)
        controller.close()
    assert {type(state) for state in seen} == {type(first.item())}
    assert {*seen} == {first.item()}


def test_a_ref_in_the_state_that_names_nothing_is_refused() -> None:
    """Before it is recorded; it was called damage, and the run was lost."""
    answers = {1: Ref("a-0-0", 3), 2: None}
    controller = PopulationController(
        [{"h": 0}],
        Mistaken(lambda s, r, v: ([answers[r.checkpoint.step]], {}), [None]),
    )
    own = controller.workers[0].generation_id
    said = r"Mistaken must return a state whose Refs .* got Ref\(generation_id='a-0-0'"
    with pytest.raises(ValueError, match=said):
        controller.set_eval(0, own, 1, "p", 1.0)
    controller.set_eval(0, own, 2, "p", 1.0)
    assert controller.newest(0).step == 2
