"""`check_loop` finds the defect of a loop, and accepts right loops."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from population.testing import Finding, LoopReport, check_loop
from population.testing.loop import trees
from population.testing.loop.finding import KINDS
from tests.testing import loops
from tests.testing.loops import RATE, RIGHT, WRONG, Case


@pytest.fixture(autouse=True)
def traced_anew() -> None:
    """Older releases of JAX name the place where a function was traced first."""
    jax.clear_caches()


@pytest.mark.parametrize("case", RIGHT, ids=str)
def test_nothing_is_found_in_a_right_loop(case: Case) -> None:
    """A false finding would teach its reader to ignore the next one."""
    report = check_loop(case.init, case.step, case.meta_params)
    assert not report, str(report)
    assert re.search(case.notes, " ".join(report.notes))
    assert bool(case.notes) == bool(report.notes), report.notes


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_a_planted_defect_is_named(case: Case) -> None:
    """There is one finding: the defect, its place, what to change; and no other."""
    report = check_loop(case.init, case.step, case.meta_params)
    assert len({found.place for found in report}) == 1, str(report)
    for found in report:
        assert case.kind in found.kind
        assert re.fullmatch(case.place, found.place), str(report)
        assert re.search(case.words, found.message), str(report)


def test_there_is_a_planted_defect_of_each_kind() -> None:
    """Every kind of finding is tested."""
    for kind in KINDS:
        assert any(case.kind in kind for case in WRONG), kind


def test_a_report_prints_what_to_change_and_is_true_if_there_is_something() -> None:
    """A test of a loop needs only `assert not report, str(report)`."""
    report = check_loop(loops.init, loops.step, {"lr": 0.1})
    assert report
    assert isinstance(report, tuple)
    assert str(report).startswith("no effect: lr\n  Changed from 0.1 to 0.1063: ")
    assert str(LoopReport()) == "Nothing wrong was found."
    told = LoopReport([Finding("no effect", "lr", "Rename it.")], ["Too late."])
    assert str(told) == "no effect: lr\n  Rename it.\nnote: Too late."


def test_the_gravest_is_told_first_and_each_finding_once() -> None:
    """A user who corrects only the first one corrects the right one."""
    findings = [Finding(kind, "step", "") for kind in reversed(KINDS)]
    report = LoopReport(findings + findings)
    assert [found.kind for found in report] == list(KINDS)


def test_several_defects_are_found_at_once() -> None:
    """One does not hide the other."""

    @jax.jit
    def step(state: Any) -> Any:
        return loops.update(state, offset=loops.noise(jax.random.key(0)))

    report = check_loop(loops.lr_init, step, {"lr": 0.1, "unused": 1.0})
    assert (report[0].kind, report[0].place) == ("no effect", "unused")
    assert report[1].kind == "constant key"


def test_only_what_differs_in_mutated_is_looked_at() -> None:
    """A width that never changes in a run may determine shapes."""

    def step(state: Any, meta_params: Any) -> Any:
        return {"weights": state["weights"] + meta_params["rate"]}

    meta = {"width": 8, "rate": 0.1}
    assert check_loop(loops.wide_init, step, meta)[0].place == "width"
    assert not check_loop(loops.wide_init, step, meta, mutated={**meta, "rate": 0.3})
    wider = {**meta, "width": 16}
    report = check_loop(loops.wide_init, step, meta, mutated=wider)
    assert "from 8 to 16" in report[0].message


@pytest.mark.parametrize("value", [True, "up"])
def test_texts_and_bools_are_looked_at_if_they_differ_in_mutated(value: Any) -> None:
    """Their new values must be given."""
    other = False if value is True else "down"
    meta, mutated = {**RATE, "kind": value}, {**RATE, "kind": other}
    report = check_loop(loops.init, loops.step, meta, mutated=mutated)
    assert [(found.kind, found.place) for found in report] == [("no effect", "kind")]

    def step(state: Any, meta_params: Any) -> Any:
        offset = 1.0 if meta_params["kind"] == value else 2.0
        return loops.update(state, offset=offset)

    assert not check_loop(loops.init, step, meta, mutated=mutated)


def test_a_whole_number_that_compiles_anew_is_only_noted() -> None:
    """It may be a size, which needs another program."""

    def step(state: Any, meta_params: Any) -> Any:
        return loops.of_text(state, "up", jnp.ones(meta_params["size"]).sum())

    report = check_loop(loops.init, step, {**RATE, "size": 3})
    assert not report, str(report)
    assert "when size went from 3 to 4" in report.notes[0]


def test_a_value_that_the_loop_refuses_is_replaced_or_noted() -> None:
    """Only numbers of heads that divide the width are tried; for three, none is."""

    def init(meta_params: Any) -> Any:
        if meta_params["heads"] not in allowed:
            raise ValueError("heads must divide the width")
        return {"weights": jnp.zeros(3)}

    def step(state: Any, meta_params: Any) -> Any:
        return {"weights": state["weights"] + meta_params["heads"]}

    allowed = {4, 2}
    assert check_loop(init, step, {"heads": 4}) == LoopReport()
    allowed = {4}
    report = check_loop(init, step, {"heads": 4})
    assert "No other heads could be tried" in report.notes[0]
    with pytest.raises(ValueError, match="must divide"):
        check_loop(init, step, {"heads": 4}, mutated={"heads": 7})


def test_meta_params_without_numbers_are_noted() -> None:
    """The report says that nothing was checked."""
    report = check_loop(loops.one_leaf, lambda s: {"weights": s["weights"] + 1}, {})
    assert not report
    assert "pass mutated=" in report.notes[0]


def test_an_error_of_the_loop_comes_through_with_how_it_was_called() -> None:
    """`check_loop` hides no exception of the user's code."""

    def step(state: Any, hyperparams: Any, rng: Any) -> Any:
        del state, rng
        return hyperparams["momentum"]

    with pytest.raises(KeyError, match="momentum") as caught:
        check_loop(loops.init, step, RATE)
    note = "check_loop called step(state, meta_params, key) with meta_params"
    assert caught.value.__notes__[0].startswith(note)

    def init(meta_params: Any) -> Any:
        raise OSError("no data")

    with pytest.raises(OSError, match="no data") as failed:
        check_loop(init, loops.step, RATE)
    assert "init(meta_params)" in failed.value.__notes__[0]


@pytest.mark.parametrize(
    "step",
    [
        lambda state: state,
        lambda state, meta_params: state,
        lambda state, key: (state, jax.random.uniform(key)),
        lambda state, rng_key=None, *, train=True: (state, train, rng_key.shape),
        lambda state, m, k: (state, m["learning_rate"], jax.random.uniform(k)),
        lambda state, train=True: (state, train),
        lambda *given: (given[0], given[1]["learning_rate"], given[2]),
        jax.jit(lambda state, hp, key: (state, hp, jax.random.uniform(key))),
    ],
)
def test_a_step_is_given_what_it_takes(step: Any) -> None:
    """It gets state, meta_params and key by position, and by their usual names."""
    kinds = {found.kind for found in check_loop(loops.init, step, RATE)}
    assert "nothing trains" in kinds


@pytest.mark.parametrize(
    "step",
    [
        lambda state, batch: state,
        lambda state, meta_params, key, more: state,
        lambda: None,
        lambda state, key, rng: state,
    ],
)
def test_a_step_that_takes_something_else_is_refused(step: Any) -> None:
    """The message shows how to wrap such a step."""
    with pytest.raises(TypeError, match=r"Wrap it: lambda state, meta_params, key"):
        check_loop(loops.init, step, RATE)


def test_a_step_that_returns_nothing_is_refused() -> None:
    """A step without `return` would train nothing."""
    with pytest.raises(TypeError, match="must return the next state"):
        check_loop(loops.init, lambda state: None, RATE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "positive int"),
        ({"steps": 1.5}, "positive int"),
        ({"mutated": {"lr": 0.1}}, "learning_rate, lr differ"),
        ({"mutated": 0.1}, "structure of meta_params"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: Any, words: str) -> None:
    """Nothing is run before."""
    with pytest.raises(ValueError, match=words):
        check_loop(loops.init, loops.step, RATE, **options)


def test_meta_params_are_given_as_a_run_would_give_them() -> None:
    """A NumPy number becomes a Python one, and a change in place has no effect."""

    def init(meta_params: Any) -> Any:
        rate = meta_params.pop("learning_rate")
        assert type(rate) is float
        return loops.init({"learning_rate": rate})

    meta = {"learning_rate": jnp.float32(0.5)}
    assert not check_loop(init, loops.step, meta)
    assert list(meta) == ["learning_rate"]


def test_what_the_loop_holds_is_left_as_it_was_if_it_is_right() -> None:
    """The user's weights are valid afterwards, even if steps donate."""
    weights = jnp.zeros(3)

    def init(meta_params: Any) -> Any:
        return loops.init(meta_params)._replace(weights=jnp.copy(weights))

    assert not check_loop(init, loops.donating, RATE)
    assert not weights.is_deleted()


def test_the_same_is_found_every_time() -> None:
    """JAX caches compiled functions; the findings do not depend on it."""
    for case in WRONG[::6]:
        one, two = (check_loop(case.init, case.step, case.meta_params) for _ in "12")
        assert [found.kind for found in one] == [found.kind for found in two]


@pytest.mark.parametrize(
    "value", [0.1, 0.999, 0.0, 1.0, 2.5, -3.0, 1e-12, 1e30, 7, 0, 1, -4]
)
def test_a_number_is_moved_to_others_of_its_type(value: Any) -> None:
    """A possible probability stays one."""
    found = trees.moved(value)
    assert found
    assert all(type(other) is type(value) and other != value for other in found)
    if 0 < value < 1:
        assert all(0 < other <= 1 for other in found)


def test_numbers_are_named_as_their_owner_would() -> None:
    """Dots for keys, brackets for positions in a list."""
    meta = {"optimizer": {"betas": (0.9, 0.99)}, "rate": 1}
    paths = dict(trees.leaves_of(meta))
    assert [trees.name_of(path) for path in paths] == [
        "optimizer.betas[0]",
        "optimizer.betas[1]",
        "rate",
    ]
    changed = trees.replaced(meta, ("optimizer", "betas", 1), 0.5)
    assert changed == {"optimizer": {"betas": (0.9, 0.5)}, "rate": 1}
    assert trees.name_of(()) == "meta_params"


def test_the_page_lists_every_kind() -> None:
    """A user with a finding can look up what it means."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "checking-a-loop.md"
    rows = re.findall(r"^\| ([^|]*) \|", page.read_text(), re.MULTILINE)
    assert rows[1:] == list(KINDS)


def test_a_mutator_is_checked_without_loading_jax() -> None:
    """`check_mutator` must not need JAX because of `check_loop`."""
    code = "import population.testing, sys; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
