"""Ten hyperparameters of a CNN: all have an effect, none causes a compilation."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples import datasets
from examples.complex_cnn import model, train_threads
from examples.complex_cnn.space import FULL, NEUTRAL, curriculum, space
from examples.simple_cnn.model import CNN, Functions, State
from population import PopulationController, Stop, hyperparams
from population.mutators import (
    FixedSchedule,
    PopulationBasedTraining,
    TwoSpeedPBT,
    WinnerTakeAllGenetic,
)
from population.mutators.exploit import Truncation
from population.space import Gaussian, Perturb, contains, sample

MAX_BATCH = 16
SPACE = space(MAX_BATCH)
PLAIN = {
    "learning_rate": 1e-3,
    "beta1": 0.9,
    "beta2": 0.999,
    "label_smoothing": 0.0,
    "batch_size": MAX_BATCH,
    **NEUTRAL,
}
NAMES = {
    "learning_rate",
    "beta1",
    "beta2",
    "hue",
    "contrast_low",
    "contrast_high",
    "saturation_low",
    "saturation_high",
    "label_smoothing",
    "batch_size",
}
TINY = ["--width", "2", "--max_batch", "16", "--workers", "2", "--threads", "1"]
CNN_MODEL = CNN(10, 2)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def dataset() -> datasets.Dataset:
    """The colour digits."""
    return datasets.colour_digits()


@pytest.fixture(scope="module")
def images(dataset: datasets.Dataset) -> datasets.Split:
    """As many images as a step gets."""
    return datasets.batch(dataset.train, MAX_BATCH, 0, 0, 0)


@pytest.fixture(scope="module")
def weights(images: datasets.Split) -> Any:
    """Random weights, large enough that colours matter."""
    first = CNN_MODEL.init(jax.random.key(3), images.images[:1])
    return jax.tree.map(lambda array: 3 * array, first)


_value_and_gradient = jax.jit(jax.value_and_grad(model.training_loss), static_argnums=1)


augmented = jax.jit(model.augmented)


def loss_and_gradient(
    weights: Any, split: datasets.Split, meta_params: Mapping[str, Any]
) -> tuple[float, Any]:
    """The training loss and its gradient under such meta_params."""
    chosen = model.numbers(meta_params)
    value, gradient = _value_and_gradient(weights, CNN_MODEL, split, chosen, KEY)
    return float(value), gradient


def assert_close(first: Any, second: Any) -> None:
    """Two trees of arrays are equal up to rounding."""
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


class TestSpace:
    """The search space of the ten hyperparameters."""

    def test_it_names_exactly_ten(self) -> None:
        """They have the names of the original example."""
        assert set(SPACE) == NAMES

    @pytest.mark.parametrize("explore", [Perturb(SPACE), Gaussian(SPACE, 0.5)])
    def test_low_is_never_above_high(self, explore: Any) -> None:
        """After a thousand moves every range is still ordered, and within the space."""
        rng = np.random.default_rng(0)
        meta_params = sample(SPACE, rng)
        for _ in range(1000):
            meta_params = explore(meta_params, rng)
            assert contains(SPACE, meta_params)
            for name in ("contrast", "saturation"):
                assert meta_params[f"{name}_low"] <= 1 <= meta_params[f"{name}_high"]

    def test_a_curriculum_goes_from_nothing_to_full_strength(self) -> None:
        """Each entry is complete and in the space; only the augmentation changes."""
        schedule = curriculum(100, MAX_BATCH)
        assert min(schedule) == 0
        assert max(schedule) == 100
        assert NEUTRAL.items() <= schedule[0].items()
        assert FULL.items() <= schedule[100].items()
        hues = [schedule[step]["hue"] for step in sorted(schedule)]
        assert hues == sorted(set(hues))
        for entry in schedule.values():
            assert contains(SPACE, entry)
            others = NAMES - set(NEUTRAL)
            assert {n: entry[n] for n in others} == {n: schedule[0][n] for n in others}


class TestLoss:
    """The loss that the compiled step minimises."""

    @pytest.mark.parametrize("size", [5, MAX_BATCH])
    def test_a_size_is_as_good_as_a_plain_batch(
        self, weights: Any, images: datasets.Split, size: int
    ) -> None:
        """Loss and gradient are those of a batch that holds only these images."""

        def plain(weights: Any) -> jax.Array:
            centred = model.centred(images.images[:size])
            logits: Any = CNN_MODEL.apply(weights, centred)
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, images.labels[:size]
            )
            mean: jax.Array = losses.mean()
            return mean

        expected, expected_gradient = jax.jit(jax.value_and_grad(plain))(weights)
        meta_params = PLAIN | {"batch_size": size}
        value, gradient = loss_and_gradient(weights, images, meta_params)
        assert value == pytest.approx(float(expected), rel=1e-4)
        assert_close(gradient, expected_gradient)

    def test_images_beyond_the_size_have_no_influence(
        self, weights: Any, images: datasets.Split
    ) -> None:
        """Their content does not matter, even with full augmentation."""
        meta_params = PLAIN | FULL | {"batch_size": 5, "label_smoothing": 0.2}
        others = datasets.Split(images.images.copy(), images.labels.copy())
        others.images[5:] = 1 - others.images[5:]
        others.labels[5:] = 9 - others.labels[5:]
        value, gradient = loss_and_gradient(weights, images, meta_params)
        other_value, other_gradient = loss_and_gradient(weights, others, meta_params)
        assert value == other_value
        jax.tree.map(np.testing.assert_array_equal, gradient, other_gradient)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("hue", 0.5),
            ("contrast_low", 0.2),
            ("contrast_high", 2.0),
            ("saturation_low", 0.0),
            ("saturation_high", 2.0),
            ("label_smoothing", 0.3),
            ("batch_size", 3),
        ],
    )
    def test_each_number_counts(
        self, weights: Any, images: datasets.Split, name: str, value: float
    ) -> None:
        """Each of them changes the result."""
        before, _ = loss_and_gradient(weights, images, PLAIN)
        after, _ = loss_and_gradient(weights, images, PLAIN | {name: value})
        assert abs(after - before) > 1e-3


class TestAugmentation:
    """Colours are drawn for each image and each step."""

    def test_neutral_numbers_change_nothing(self, images: datasets.Split) -> None:
        """A member may train without augmentation."""
        chosen = model.numbers(PLAIN)
        for image in images.images[:4]:
            same = augmented(KEY, image, chosen)
            np.testing.assert_allclose(same, image, atol=2e-6)

    def test_images_stay_images(self, images: datasets.Split) -> None:
        """At full strength all values are from 0 to 1, also those of black padding."""
        chosen = model.numbers(PLAIN | FULL)
        for image in (*images.images[:4], np.zeros((32, 32, 3), np.float32)):
            found = augmented(KEY, image, chosen)
            assert found.shape == image.shape
            assert bool(jnp.isfinite(found).all())
            assert 0 <= float(found.min()) <= float(found.max()) <= 1

    def test_each_key_gives_other_colours(self, images: datasets.Split) -> None:
        """The same image looks different at the next step, but equal when resumed."""
        chosen = model.numbers(PLAIN | FULL)
        first, again, other = (
            augmented(jax.random.key(seed), images.images[0], chosen)
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert float(abs(first - other).max()) > 0.01


def test_small_batches_draw_from_all_images() -> None:
    """A small batch leaves out different images at each step."""
    count = 100
    numbered = datasets.Split(
        np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1) + 1,
        np.arange(count, dtype=np.int32),
    )
    drawn: list[int] = []
    for step in range(500):
        split = model.minibatch(numbered, 2, MAX_BATCH, 0, 0, step)
        assert split.images.shape == (MAX_BATCH, 1, 1, 1)
        assert not split.images[2:].any()
        assert (split.images[:2, 0, 0, 0] == split.labels[:2] + 1).all()
        drawn += split.labels[:2].tolist()
    assert set(drawn) == set(range(count))


def test_a_hundred_steps_of_all_hyperparameters_compile_once(
    dataset: datasets.Dataset,
) -> None:
    """All ten change at every report, even the batch size; there is one program."""
    rng = np.random.default_rng(0)
    schedule = {step: sample(SPACE, rng, first=False) for step in range(100)}
    assert len({meta_params["batch_size"] for meta_params in schedule.values()}) > 5
    functions = model.make(dataset, 3, seed=0)  # A width that no other test has.
    controller = PopulationController(
        [schedule[0]], FixedSchedule(schedule), stop=Stop(steps=100), space=SPACE
    )
    with controller.worker() as worker:
        small = dataset._replace(validation=datasets.batch(dataset.train, 8, 0, 0, 0))
        model.train_worker(worker, functions, small, MAX_BATCH, every=1)
    assert controller.workers[0].step == 100
    assert controller.workers[0].meta_params == schedule[99]
    step: Any = functions.step
    assert step._cache_size() == 1


def test_the_optimiser_has_the_workers_numbers(dataset: datasets.Dataset) -> None:
    """Learning rate and both betas have the names of the meta_params."""
    functions = model.make(dataset, 2, seed=0)
    meta_params = PLAIN | {"learning_rate": 0.25, "beta1": 0.5, "beta2": 0.75}
    controller = PopulationController([meta_params], FixedSchedule({0: meta_params}))
    with controller.worker() as worker:
        assert worker.poll()
        in_force = hyperparams.read(worker.restore(functions.init))
    assert in_force == {"learning_rate": 0.25, "beta1": 0.5, "beta2": 0.75}


def test_the_update_is_that_of_optax(images: datasets.Split, weights: Any) -> None:
    """Two steps with other betas are those of an Adam that was made with them."""
    del weights
    dataset = datasets.Dataset("few", images, images, images, 10)
    functions = model.make(dataset, 2, seed=0)
    numbers = {"learning_rate": 0.01, "beta1": 0.5, "beta2": 0.9}
    state = functions.init({})
    plain = jax.tree.map(jnp.copy, state.weights)
    state = state._replace(opt_state=hyperparams.put(state.opt_state, numbers))
    adam = optax.adam(0.01, b1=0.5, b2=0.9)
    adam_state = adam.init(plain)
    for _ in range(2):
        _, gradient = loss_and_gradient(plain, images, PLAIN)
        updates, adam_state = adam.update(gradient, adam_state, plain)
        plain = optax.apply_updates(plain, updates)
        state, _ = functions.step(state, images, model.numbers(PLAIN), KEY)
    assert_close(state.weights, plain)


class TestPolicies:
    """The command line chooses the policy."""

    def test_the_default_copies_the_winner_every_ten_seconds(self) -> None:
        """The original example did so, too."""
        mutator = train_threads.mutator_of(train_threads.flags().parse_args([]))
        assert isinstance(mutator, WinnerTakeAllGenetic)
        assert mutator.seconds_per_exploit == 10
        assert mutator.steps_per_exploit is None

    def test_pbt_is_truncation_at_barriers(self) -> None:
        """Timing cannot change such a run."""
        options = train_threads.flags().parse_args(["--mutator", "pbt"])
        mutator = train_threads.mutator_of(options)
        assert isinstance(mutator, PopulationBasedTraining)
        assert mutator.exploit == Truncation(0.2)
        assert mutator.synchronous

    def test_two_speeds_have_a_round_a_report(self) -> None:
        """The length of the run decides how rarely slow members decide."""
        options = train_threads.flags().parse_args(["--mutator", "two_speed"])
        mutator = train_threads.mutator_of(options)
        assert isinstance(mutator, TwoSpeedPBT)
        assert mutator.steps_per_exploit == options.every == 25
        assert mutator.slow == 8
        assert mutator.mutate_fn == Perturb(space(128), share=0.5)

    def test_random_search_never_branches(self) -> None:
        """No member copies, and none explores."""
        options = train_threads.flags().parse_args(["--mutator", "random"])
        mutator = train_threads.mutator_of(options)
        assert isinstance(mutator, PopulationBasedTraining)
        assert mutator.exploit is None
        assert mutator.mutate_fn is None

    def test_a_curriculum_leaves_no_choice_of_another_policy(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A schedule and a search exclude each other."""
        flags = ["--mutator", "pbt", "--curriculum"]
        with pytest.raises(SystemExit):
            train_threads.flags().parse_args(flags)
        assert "not allowed with" in capsys.readouterr().err


def run(dataset: datasets.Dataset, flags: list[str]) -> PopulationController:
    """Train without a table and pictures."""
    options = train_threads.flags().parse_args([*TINY, *flags])
    functions = model.make(dataset, options.width, options.seed)
    return train_threads.train(options, functions, dataset)


def test_pbt_improves_goes_on_and_shows_everything(
    dataset: datasets.Dataset,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It improves on validation, resumes, and ends with a table and pictures."""
    flags = ["--mutator", "pbt", "--steps_per_exploit", "20", "--every", "10"]
    flags += ["--log_dir", str(tmp_path), "--workers", "3", "--seed", "3"]
    first = run(dataset, [*flags, "--steps", "40"])
    half, before = [c._replace(params=None) for c in first.history()], first.best()
    first.close()
    whole = train_threads.main([*TINY, *flags, "--steps", "120"])
    # Most of the saves are not needed any more.
    history, after = [c._replace(params=None) for c in whole.history()], whole.best()
    assert history[: len(half)] == half
    assert [worker.step for worker in whole.workers] == [120] * 3
    assert any(checkpoint.reason.startswith("copied") for checkpoint in history)
    assert before is not None
    assert after is not None
    assert (after.value or 9) < (before.value or 0)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("test accuracy", "validation loss", *NAMES))
    pictures = {file.stem for file in (tmp_path / "plots").glob("*.png")}
    usual = {"learning_curves", "winner", "lineage_tree", "progress", "explored"}
    assert pictures == usual | NAMES


def test_validation_is_what_is_reported(dataset: datasets.Dataset) -> None:
    """The value is the plain cross entropy on the validation set, never on the test."""
    functions = model.make(dataset, 2, seed=0)
    meta_params = PLAIN | FULL | {"label_smoothing": 0.3}
    controller = PopulationController(
        [meta_params], FixedSchedule({0: meta_params}), stop=Stop(steps=2)
    )
    with controller.worker() as worker:
        nothing = datasets.batch(dataset.test, 1, 0, 0, 0)
        unseen = dataset._replace(test=nothing)
        model.train_worker(worker, functions, unseen, MAX_BATCH, every=2)
    best = controller.best()
    assert best is not None
    state = controller.load(best, functions.init({}))
    centred = model.centred(dataset.validation.images)
    logits: Any = CNN_MODEL.apply(state.weights, centred)
    right = logits.argmax(axis=-1) == dataset.validation.labels
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, dataset.validation.labels
    )
    assert best.value == pytest.approx(float(losses.mean()), rel=1e-5)
    assert best.metrics["validation_accuracy"] == pytest.approx(float(right.mean()))


def test_a_curriculum_is_followed_by_all_alike(dataset: datasets.Dataset) -> None:
    """Each slot has the schedule's meta_params at each step."""
    found = run(dataset, ["--curriculum", "20", "--steps", "24", "--every", "4"])
    schedules = [found.schedule(found.newest(worker_id)) for worker_id in range(2)]
    assert [dict(schedule) for schedule in schedules] == [curriculum(20, MAX_BATCH)] * 2


def test_the_winner_is_copied_by_the_clock(dataset: datasets.Dataset) -> None:
    """With almost no time between two decisions, each report can be one."""
    flags = ["--steps", "12", "--every", "2", "--seconds_per_exploit", "1e-9"]
    found = run(dataset, flags)
    assert any(" won with " in checkpoint.reason for checkpoint in found.history())


def test_random_search_is_as_good_as_its_luck(dataset: datasets.Dataset) -> None:
    """Each slot keeps its first hyperparameters to the end."""
    found = run(dataset, ["--mutator", "random", "--steps", "4", "--every", "2"])
    assert {checkpoint.reason for checkpoint in found.history()} == {"start"}


def test_missing_data_end_the_program_with_advice(tmp_path: pathlib.Path) -> None:
    """A user without CIFAR-10 is told how to get it, and sees no traceback."""
    with pytest.raises(SystemExit, match="prepare_cifar10"):
        train_threads.main(["--dataset", "cifar10", "--data_dir", str(tmp_path)])


def test_each_step_has_one_key_of_its_own(images: datasets.Split) -> None:
    """It is `worker.key`, a function of seed, slot and step: never the same twice."""
    dataset = datasets.Dataset("some", images, images, images, 10)
    controller = PopulationController.from_space(
        space(8), 2, FixedSchedule(curriculum(2, 8)), stop=Stop(steps=4)
    )
    given: list[tuple[int, ...]] = []
    zero = jnp.zeros(())

    def step(state: Any, split: Any, chosen: Any, key: jax.Array) -> tuple[Any, Any]:
        given.append(tuple(jax.random.key_data(key).tolist()))
        return state, zero

    functions = Functions(
        lambda meta: State(zero, zero), step, lambda state, split: (zero, zero)
    )
    with controller.worker() as worker:
        model.train_worker(worker, functions, dataset, 8, 2)
    assert len(given) == len(set(given)) == 8
