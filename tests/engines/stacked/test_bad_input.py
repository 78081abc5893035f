"""What the stacked engine says about bad input, and what is left when a run fails."""

from __future__ import annotations

import itertools
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import PopulationController, Start, Stop
from population.base.errors import ClaimError, ParamsError
from population.base.types import Saved
from population.engines import vectorized
from population.mutators import FixedSchedule, PopulationBasedTraining
from population.space import Integer
from tests import probe
from tests.engines.stacked import problems
from tests.engines.stacked.problems import PLAIN, Functions


def refused(
    functions: Functions,
    kind: type[BaseException],
    *parts: str,
    starts: Any = None,
    mutator: Any = None,
    **options: Any,
) -> str:
    """The message of a run that fails; check that no slot is claimed afterwards.

    Args:
        functions: The functions of one member.
        kind: The exception.
        parts: What the message must say.
        starts: The first population.
        mutator: The policy.
        options: Further arguments of `vectorized.run`.
    """
    mutator = problems.still() if mutator is None else mutator
    found = problems.controller(mutator, starts=starts)
    with pytest.raises(kind) as raised:
        problems.run(found, functions, **options)
    assert_free(found)
    message = str(raised.value)
    for part in parts:
        assert part in message, message
    return message


def assert_free(found: PopulationController) -> None:
    """Check that no slot is held any more."""
    assert probe.lease_holders(found) == []


# Hyperparameters that change shapes.


def starts() -> list[dict[str, Any]]:
    """Two members with a hyperparameter that the functions use as a plain number."""
    rates = problems.metas(2)
    return [{**rates[0], "width": 2, "deep": 0.5}, {**rates[1], "width": 3, "deep": 1}]


def _by_zeros(key: Any, meta: Any) -> Any:
    return {"w": jnp.zeros(meta["width"]), "b": jnp.zeros(())}


def _by_range(key: Any, meta: Any) -> Any:
    return [jnp.zeros(()) for _ in range(meta["width"])]


def _by_if(key: Any, meta: Any) -> Any:
    return jnp.zeros(2) if meta["deep"] > 0 else jnp.ones(2)


def _by_index(key: Any, meta: Any) -> Any:
    return jnp.zeros([4, 8, 16, 32][meta["width"]])


def _by_numpy(key: Any, meta: Any) -> Any:
    return jnp.zeros(2) + np.log(meta["deep"])


def _by_float(key: Any, meta: Any) -> Any:
    return jnp.zeros(2) + float(meta["deep"])


def _by_both(key: Any, meta: Any) -> Any:
    return jnp.zeros(meta["width"]) if meta["deep"] > 0 else jnp.ones(2)


NEEDS: dict[str, tuple[Callable[..., Any], str]] = {
    "zeros": (_by_zeros, "width"),
    "range": (_by_range, "width"),
    "if": (_by_if, "deep"),
    "index": (_by_index, "width"),
    "numpy": (_by_numpy, "deep"),
    "float": (_by_float, "deep"),
}


@pytest.mark.parametrize("how", NEEDS)
@pytest.mark.parametrize("name", Functions._fields)
def test_a_shape_that_depends_on_meta_params_is_refused(name: str, how: str) -> None:
    """The message names the function and the key, and says what to do."""
    needs, key = NEEDS[how]

    def init(k: Any, meta: Any) -> Any:
        return needs(k, meta) if name == "init" else PLAIN.init(k, meta)

    def step(state: Any, meta: Any, batch: Any, k: Any) -> Any:
        if name == "step":
            needs(k, meta)
        return state

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        if name == "evaluate":
            needs(None, meta)
        return 0.0

    functions = Functions(init, step, evaluate)
    message = refused(functions, ValueError, name, key, starts=starts())
    assert ("jnp.sqrt(x)" if how == "float" else "mask") in message
    assert "population.engines.threads" in message
    assert message.count("width") + message.count("deep") == 1


def test_all_names_are_told_where_several_are_needed() -> None:
    """No single name explains the error; together they do."""
    functions = PLAIN._replace(init=_by_both)
    refused(functions, ValueError, "init", "width", "deep", starts=starts())


@pytest.mark.parametrize("name", Functions._fields)
@pytest.mark.parametrize("kind", [TypeError, IndexError, KeyError])
def test_an_error_of_the_users_own_comes_as_it_is(
    name: str, kind: type[Exception]
) -> None:
    """An error that has nothing to do with meta_params is not explained away."""

    def broken(*args: Any) -> Any:
        raise kind("my own")

    refused(PLAIN._replace(**{name: broken}), kind, "my own")


# What the functions return.


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (jnp.zeros(3), "float32[3]"),
        (np.zeros(3), "array([0., 0., 0.])"),
        ("good", "'good'"),
        (None, "None"),
        (jnp.complex64(1), "complex64"),
        ({"loss": 1.0}, "loss"),
        ((1.0, {}, {}), "(1.0, {}, {})"),
        (jax.random.key(0), "key"),
    ],
    ids=["vector", "numpy", "string", "None", "complex", "dict", "triple", "key"],
)
def test_an_evaluate_that_returns_no_number_is_refused(value: Any, told: str) -> None:
    """The message says what was returned instead."""
    functions = PLAIN._replace(evaluate=lambda state, meta, batch: value)
    refused(functions, ValueError, "evaluate must return a number", told)


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"losses": jnp.zeros(3)}, "float32[3]"),
        ({"name": "good"}, "'good'"),
        (jnp.zeros(3), "float32[3]"),
        ({"none": None, "of": {"it": jnp.complex64(1)}}, "complex64"),
    ],
    ids=["vector", "string", "array", "complex"],
)
def test_metrics_that_are_no_numbers_are_refused(metrics: Any, told: str) -> None:
    """The message says what the metric was instead."""
    functions = PLAIN._replace(evaluate=lambda state, meta, batch: (0.0, metrics))
    refused(functions, ValueError, "metrics must be a dict of numbers", told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: {**s, "b": s["b"][None]}, ("['b']", "float32[]", "float32[1]")),
        (lambda s: {**s, "b": s["b"] > 0}, ("['b']", "float32[]", "bool[]")),
        (lambda s: {**s, "b": jnp.bfloat16(1)}, ("['b']", "float32[]", "bfloat16")),
        (lambda s: {**s, "c": s["b"]}, ("['c'] was missing and became an array",)),
        (lambda s: {"w": s["w"]}, ("['b'] was an array and became missing",)),
        (lambda s: (s["w"], s["b"]), ("a dict of 2 and became a tuple of 2",)),
        (lambda s: (s, s["b"]), ("does step return more than the state?",)),
        (lambda s: [*s.values()], ("a dict of 2 and became a list of 2",)),
        (lambda s: None, ("a dict of 2 and became None",)),
        (lambda s: {**s, "b": "text"}, ("['b'] was an array and became 'text'",)),
    ],
    ids="shape bool dtype more less tuple loss list nothing text".split(),
)
def test_a_step_that_changes_what_a_state_looks_like_is_refused(
    change: Callable[[Any], Any], told: tuple[str, ...]
) -> None:
    """The message names the path, the old and the new type."""

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        return change(state)

    refused(PLAIN._replace(step=step), ValueError, "step", *told)


# Arguments.


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "2", None])
def test_steps_are_a_positive_int(count: Any) -> None:
    """A run with other steps does not begin."""
    for options in ({"every": count}, {"save_every": count}):
        name = "save_every" if "save_every" in options else "steps_per_report"
        refused(PLAIN, ValueError, name, "positive int", repr(count), **options)


def test_an_unknown_way_of_batching_is_refused() -> None:
    """The message lists the known ways."""
    options: Any = {"batching": "pmap"}
    refused(PLAIN, ValueError, "batching", "'pmap'", "vmap", "loop", "auto", **options)


def test_no_devices_are_refused() -> None:
    """There must be one at least, and all must be devices."""
    refused(PLAIN, ValueError, "devices", "['cpu']", devices=["cpu"])
    refused(PLAIN, ValueError, "devices", "jax.devices()", devices=[])


def test_batches_come_from_one_place() -> None:
    """Only one of the three arguments for batches may be given."""
    options: Any = {"data": problems.INPUTS, "batches": lambda seed, w, s: 0}
    refused(PLAIN, ValueError, "data", "batches", "one place", **options)
    refused(PLAIN, TypeError, "batches", "function", "data=", batches=problems.INPUTS)


def test_what_is_no_function_is_refused() -> None:
    """The message names it."""
    for name in Functions._fields:
        nothing: Any = {name: None}
        functions = PLAIN._replace(**nothing)
        refused(functions, TypeError, name, "function", "None")


def test_data_that_are_no_arrays_are_refused() -> None:
    """Strings never reach a device; the message names the argument and the path."""
    bad = {"x": np.zeros(2), "name": np.array(["a", "b"])}
    refused(PLAIN, TypeError, "data", "['name']", data=bad)
    refused(PLAIN, TypeError, "evaluation", "['name']", evaluation=bad)
    refused(PLAIN, TypeError, "batches[0]", "'a'", batches=lambda seed, w, s: ["a"])


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (itertools.repeat(np.ones(999)), "repeat repeat(array([1., 1., "),
        (lambda seed, worker_id, step: 0, "function <function"),
    ],
)
def test_a_source_of_batches_is_no_data(bad: Any, kind: str) -> None:
    """The message says which argument takes one, and does not print all arrays."""
    message = refused(PLAIN, TypeError, "got " + kind, "batches=", data=bad)
    assert len(message) < 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", 64), "mask needs one number as batch_size, got str 'a'. Call mask"),
        ((None, 64), "batch_size, got NoneType None"),
        ((True, 64), "batch_size, got bool True"),
        ((np.bool_(True), 64), "batch_size, got bool"),
        ((np.array([1, 2]), 64), r"batch_size, got ndarray array\(\[1, 2\]\)"),
        ((4, 2.0), "size must be an int, got float 2.0"),
        ((4, "b"), "size must be an int, got str 'b'"),
    ],
)
def test_a_mask_of_what_is_no_number_is_refused(arguments: Any, said: str) -> None:
    """The message names the argument, and what it was."""
    with pytest.raises(TypeError, match=said):
        vectorized.mask(*arguments)


def test_a_mask_takes_every_kind_of_number() -> None:
    """Of Python, NumPy and JAX, traced or not."""
    size: Any = np.int64(3)
    numbers = (2, 2.0, np.int64(2), np.array(2), jnp.float32(2), jnp.array(2))
    for number in numbers:
        assert vectorized.mask(number, size).tolist() == [True, True, False]
    traced = jax.jit(lambda n: vectorized.mask(n, 3))(2)
    assert traced.tolist() == [True, True, False]


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_batches_that_change_their_shape_are_refused(batching: str) -> None:
    """The message names worker and step, and what to do with a smaller one."""

    def batches(seed: int, worker_id: int, step: int) -> Any:
        return np.zeros(3 if (worker_id, step) == (2, 5) else 4)

    told = "worker 2, step 5", "[3]", "[4]", "Pad"
    refused(PLAIN, ValueError, *told, batches=batches, batching=batching)


def test_a_batch_size_needs_a_largest_one() -> None:
    """It comes from `max_batch`, or from a space: with one of them, the run trains."""
    begin = [{**meta, "batch_size": 2} for meta in problems.metas(2)]
    refused(PLAIN, ValueError, "batch_size", "max_batch=", "mask", starts=begin)
    found = problems.controller(problems.still(), starts=begin, steps=2)
    problems.run(found, PLAIN, max_batch=4)
    assert found.finished


def test_a_batch_size_may_be_a_mask() -> None:
    """Which examples count follows each member's own batch size."""

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        return jnp.sum(vectorized.mask(meta["batch_size"], 4))

    begin = [{"learning_rate": 0.1, "batch_size": size} for size in (1, 4, 3)]
    found = problems.controller(problems.still(), starts=begin, steps=2)
    problems.run(found, PLAIN._replace(evaluate=evaluate), max_batch=4)
    assert [found.newest(w).value for w in range(3)] == [1, 4, 3]


def test_a_largest_batch_size_of_an_unknown_name_is_refused() -> None:
    """The message lists the known names."""
    found = PopulationController.from_space(
        {"learning_rate": 0.1, "batch_size": Integer(1, 4)}, 2, problems.still()
    )
    with pytest.raises(ValueError, match=r"max_batch must name .*'batch_size'"):
        problems.run(found, PLAIN, max_batch={"batch": 4})
    assert_free(found)


@pytest.mark.parametrize(
    ("later", "told"),
    [
        ({"learning_rate": 0.1, "extra": 1.0}, ("extra", "additional")),
        ({}, ("learning_rate", "missing")),
        ({"learning_rate": "fast"}, ("learning_rate", "'fast'")),
        ({"learning_rate": None}, ("learning_rate", "None")),
        ([0.1], ("not a dict", "[0.1]")),
    ],
    ids=["unknown", "missing", "string", "None", "list"],
)
def test_a_policy_that_brings_what_does_not_fit_is_refused(
    later: Any, told: tuple[str, ...], tmp_path: pathlib.Path
) -> None:
    """The message names key and worker; nothing is recorded, and the run continues."""
    mutator = FixedSchedule({0: {"learning_rate": 0.1}, 4: later})
    found = problems.controller(mutator, starts=problems.metas(2), log_dir=tmp_path)
    with pytest.raises(ValueError, match=r"worker [01]") as raised:
        problems.run(found, PLAIN, save_every=1)
    for part in told:
        assert part in str(raised.value)
    assert_free(found)
    assert max(c.step for c in found.history() if c.value is not None) == 2
    found.close()
    mended = FixedSchedule({0: {"learning_rate": 0.1}, 4: {"learning_rate": 0.2}})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The run goes on with other arguments")
        again = problems.controller(mended, starts=problems.metas(2), log_dir=tmp_path)
    problems.run(again, PLAIN)
    assert again.finished
    assert all(w.meta_params == {"learning_rate": 0.2} for w in again.workers)


def test_categories_are_the_same_for_ever(tmp_path: pathlib.Path) -> None:
    """Another order would mean other codes: a member would train with another value."""
    functions = PLAIN._replace(
        step=lambda state, meta, batch, key: {
            "w": state["w"] * jax.lax.switch(meta["kind"], [lambda: 0.9, lambda: 0.8]),
            "b": state["b"],
        }
    )

    def run(kinds: list[str], steps: int) -> None:
        mutator = FixedSchedule({0: {"kind": "a"}})
        starts = [{"kind": "a"}, {"kind": "b"}]
        found = problems.controller(
            mutator, starts=starts, log_dir=tmp_path, steps=steps
        )
        try:
            problems.run(found, functions, categories={"kind": kinds})
        finally:
            found.close()

    run(["a", "b"], 4)
    with pytest.raises(ValueError, match="categories must be those"):
        run(["b", "a"], 8)
    run(["a", "b"], 8)


def test_weights_of_a_loop_of_its_own_are_refused() -> None:
    """A path says nothing about a tree; the message says what to pass."""
    begin = [Start(meta, params="weights.npz") for meta in problems.metas(2)]
    told = "Worker 0", "'weights.npz'", "Start(meta_params, params=tree)"
    refused(PLAIN, ValueError, *told, starts=begin)


def test_weights_of_another_model_are_refused() -> None:
    """Shapes must be those of `init`; the message names both."""
    tree = {"w": np.zeros(5, np.float32), "b": np.zeros((), np.float32)}
    begin = [Start(meta, params=tree) for meta in problems.metas(2)]
    refused(PLAIN, ParamsError, "['w']", "(2,)", "(5,)", starts=begin)


def test_a_slot_that_somebody_trains_is_left_alone() -> None:
    """The engine needs all slots; the worker keeps its slot, the others stay free."""
    found = problems.controller(problems.still())
    worker = found.worker(1)
    with pytest.raises(ClaimError, match="1 by"):
        problems.run(found, PLAIN)
    assert [told[0] for told in probe.lease_holders(found)] == ["1"]
    worker.release()
    problems.run(found, PLAIN)
    assert found.finished


# Members that diverge, and a population of one.


def test_members_that_are_nan_are_never_donors() -> None:
    """The others train on, and the diverged member continues from one of them."""

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        after = PLAIN.step(state, meta, batch, key)
        bad = meta["learning_rate"] > 1e6
        return jax.tree.map(lambda x: jnp.where(bad, jnp.nan, x), after)

    begin = problems.metas(4)
    begin[2]["learning_rate"] = 1e7
    mutator = PopulationBasedTraining(lambda meta, rng: meta, 4, synchronous=True)
    found = problems.controller(mutator, starts=begin)
    problems.run(found, PLAIN._replace(step=step))
    assert found.finished
    assert found.diverged()[2] > 0
    history = list(found.history())
    parents = [found.graph.root(g).parent for g in found.graph]
    for parent in filter(None, parents):
        value = found.graph.checkpoint(parent).value
        assert value is None or np.isfinite(value)
    assert any(np.isfinite(c.value or 0.0) for c in history if c.worker_id == 2)
    assert all(np.isfinite(found.newest(w).value or 0.0) for w in range(4))


@pytest.mark.parametrize("batching", problems.BATCHINGS)
def test_a_population_that_is_nan_throughout_comes_to_its_end(batching: str) -> None:
    """There is no donor: each member begins again until `Stop` ends the run."""
    functions = PLAIN._replace(evaluate=lambda state, meta, batch: jnp.nan)
    stop = Stop(reports=9)
    found = PopulationController(problems.metas(3), problems.pbt(), stop=stop)
    problems.run(found, functions, batching=batching)
    assert found.finished
    assert found.best() is None
    assert min(found.diverged()) >= 2
    parents = [found.graph.root(g).parent for g in found.graph]
    assert {parent.step for parent in parents if parent is not None} == {0}


@pytest.mark.parametrize("batching", problems.BATCHINGS)
def test_a_population_of_one_trains(batching: str) -> None:
    """No axis is lost on the way."""
    found = problems.controller(size=1)
    summary = problems.run(found, PLAIN, batching=batching)
    assert summary.num_members == 1
    assert found.finished


# What happens if a call raises.


class Broken(Exception):
    """The exception of a user's function."""


def failing_batches(at: int) -> Callable[[int, int, int], Any]:
    """Batches that end at a step."""

    def batches(seed: int, worker_id: int, step: int) -> Any:
        if step == at:
            raise Broken
        return np.float32(step)

    return batches


@pytest.mark.parametrize("batching", problems.BATCHINGS)
def test_a_step_that_raises_at_run_time_ends_the_run(
    batching: str, tmp_path: pathlib.Path
) -> None:
    """The caller gets it; slots are free, saves are kept, a corrected run continues."""
    failing = [True]

    def check(batch: Any) -> Any:
        if failing[0] and batch >= 5:
            raise Broken("step 5 is broken")
        return np.float32(batch)

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        result = jax.eval_shape(lambda: jnp.float32(0))
        told = jax.pure_callback(check, result, batch, vmap_method="sequential")
        after = PLAIN.step(state, meta, batch, key)
        return jax.tree.map(lambda x: x + 0 * told, after)

    def make() -> PopulationController:
        return problems.controller(size=3, log_dir=tmp_path)

    functions = PLAIN._replace(step=step)
    options: Any = {"batching": batching, "batches": failing_batches(-1)}
    found = make()
    with pytest.raises(Exception, match="step 5 is broken"):
        problems.run(found, functions, save_every=1, **options)
    assert_free(found)
    assert {type(probe.newest(found)[w].params) for w in range(3)} <= {
        Saved,
        type(None),
    }
    assert (
        min(found.graph.resume_point(probe.newest(found)[w]).step for w in range(3))
        == 4
    )
    found.close()
    failing[0] = False
    again = make()
    problems.run(again, functions, save_every=1, **options)
    whole = problems.controller(size=3)
    problems.run(whole, functions, save_every=1, **options)
    problems.assert_alike(again, whole)
    again.close()


def test_batches_that_raise_end_the_run(tmp_path: pathlib.Path) -> None:
    """The exception is the user's own, with a note; a corrected run continues."""
    found = problems.controller(log_dir=tmp_path)
    with pytest.raises(Broken) as raised:
        problems.run(found, PLAIN, batches=failing_batches(5), save_every=2)
    assert "worker 0, step 5" in "".join(raised.value.__notes__)
    assert_free(found)
    found.close()
    again = problems.controller(log_dir=tmp_path)
    problems.run(again, PLAIN, batches=failing_batches(-1), save_every=2)
    assert again.finished
    again.close()


def test_a_mutator_that_raises_ends_the_run(tmp_path: pathlib.Path) -> None:
    """Its round is not reported, the saves of it are gone, and the run continues."""
    broken = [True]

    def decide(report: Any, view: Any) -> Any:
        if broken[0] and report.checkpoint.step == 4:
            raise Broken
        return {}

    found = problems.controller(problems.Branching(decide), log_dir=tmp_path)
    with pytest.raises(Broken):
        problems.run(found, PLAIN, save_every=1)
    assert_free(found)
    reported = [c for c in found.history() if c.value is not None]
    assert {c.step for c in reported} == {2}
    files = list((tmp_path / "params").rglob("*.safetensors"))
    assert len(files) == len(reported)
    broken[0] = False
    problems.run(found, PLAIN, save_every=1)
    assert found.finished
    found.close()


def test_what_is_no_controller_is_said() -> None:
    """The message says that the three functions follow the controller."""
    nothing: Any = None
    with pytest.raises(TypeError, match=r"needs a PopulationController .* NoneType"):
        problems.run(nothing, PLAIN)


@pytest.mark.parametrize("name", ["batches", "shared_batches"])
def test_the_very_first_batch_is_told_by_its_place(name: str) -> None:
    """For example, a function with other arguments fails before any compilation."""

    def bad(seed: int) -> None:
        del seed

    given: Any = {name: bad}
    found = problems.controller()
    with pytest.raises(TypeError) as error:
        problems.run(found, PLAIN, **given)
    assert any(f"{name} for" in note for note in error.value.__notes__)


def test_devices_are_named_once_and_may_be_those_of_a_mesh() -> None:
    """`Mesh.devices`, an array of devices, is valid, too."""
    device = jax.devices()[0]
    with pytest.raises(ValueError, match="each once"):
        problems.run(problems.controller(), PLAIN, devices=[device, device])
    found = problems.controller()
    problems.run(found, PLAIN, devices=np.array([[device]]))
    assert found.finished


def test_who_looks_a_code_up_as_a_value_is_told_that_it_is_a_code() -> None:
    """A dict of functions by name is what many people write first."""

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        by_name: dict[str, Any] = {"tanh": jnp.tanh, "relu": jax.nn.relu}
        return by_name[meta["act"]](state)

    starts = [{"act": "tanh"}, {"act": "relu"}]
    found = problems.controller(problems.still(), starts=starts)
    functions = Functions(
        lambda key, meta: jnp.zeros(()), step, lambda state, meta, batch: state
    )
    with pytest.raises(TypeError) as error:
        problems.run(found, functions, categories={"act": ["tanh", "relu"]})
    assert any("arrive as codes" in note for note in error.value.__notes__)


@pytest.mark.parametrize("name", ["batches", "shared_batches"])
def test_a_later_batch_with_too_large_numbers_is_refused(name: str) -> None:
    """Later batches are checked, too."""

    def batch(*place: int) -> Any:
        return np.array([2**40 if place[-1] == 3 else 1])

    found = problems.controller()
    given: Any = {name: batch}
    with pytest.raises(ValueError, match=rf"{name} for .*step 3 must fit int32"):
        problems.run(found, PLAIN, **given)


@pytest.mark.parametrize("name", ["data", "batches", "shared_batches", "evaluation"])
def test_whole_numbers_that_the_device_would_cut_off_are_refused(name: str) -> None:
    """JAX would turn 64 bits into 32 without a warning."""
    large = {"ids": np.array([3, 2**40])}
    given: Any = {name: (lambda *place: large) if "batches" in name else large}
    found = problems.controller()
    with pytest.raises(ValueError, match=rf"{name}\['ids'\] must fit int32"):
        problems.run(found, PLAIN, **given)
