"""The same population under Ray Tune's `PopulationBasedTraining`, if installed.

`make bench-peers` installs it. Both ways in which Tune takes a training loop are
measured: a class with a method for a step, and a function that reports. A trial's state
is saved, to a temporary folder, when Tune asks for it: at each perturbation. Results
bring the value and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.speed import problems
from benchmarks.speed.ways import SEED, Task, Timing, compiled
from population import hyperparams

MISSING = "not measured, or no result within its time (make bench-peers)"
_BUDGET_S = 120.0  # A perturbation may restart processes: this takes minutes.
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    "RAY_DEDUP_LOGS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def is_installed() -> bool:
    """Whether Ray Tune can be imported."""
    return importlib.util.find_spec("ray") is not None


def by_class(task: Task, folder: pathlib.Path) -> Timing:
    """A trial for each member, all at a time; each trial is a class."""
    return _by_tune(task, folder, _class)


def by_function(task: Task, folder: pathlib.Path) -> Timing:
    """A trial for each member, all at a time; each trial is a function that reports."""
    return _by_tune(task, folder, _function)


def _by_tune(
    task: Task, folder: pathlib.Path, trainable: Callable[[Any, Task], Any]
) -> Timing:
    os.environ.update(_QUIET)
    ray: Any = importlib.import_module("ray")
    tune: Any = importlib.import_module("ray.tune")
    schedulers: Any = importlib.import_module("ray.tune.schedulers")
    began = time.time()
    ray.init(
        num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    times: list[tuple[float, str]] = []
    try:
        share = (os.cpu_count() or 1) / task.size
        scheduler = schedulers.PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=max(1, task.exploit_steps // task.every),
            hyperparam_mutations={"learning_rate": tune.loguniform(1e-4, 1e-1)},
            quantile_fraction=0.2,
            metric="value",
            mode="min",
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable(tune, task), {"cpu": share}),
            param_space={"learning_rate": tune.loguniform(1e-4, 1e-1)},
            tune_config=tune.TuneConfig(
                scheduler=scheduler,
                num_samples=task.size,
                reuse_actors=True,
                time_budget_s=_BUDGET_S,
            ),
            run_config=tune.RunConfig(
                storage_path=str(folder),
                stop={"training_iteration": task.rounds},
                verbose=0,
                callbacks=[_watch(tune, times)],
            ),
        )
        results = tuner.fit()
    finally:
        ray.shutdown()
    if results.errors:
        raise RuntimeError(f"A trial of Ray Tune has failed: {results.errors[0]!r}.")
    return timing(task, times, began)


def timing(task: Task, times: Sequence[tuple[float, str]], began: float) -> Timing:
    """The best speed of Ray Tune: the fastest quarter of its results.

    Trials begin, end and begin again in other processes all the time, so that no moment
    is only start-up, and none only training.

    Args:
        task: What was trained.
        times: When each result came, and from which member.
        began: When the trials began.
    """
    if len(times) < 2:
        return Timing(_BUDGET_S, _BUDGET_S, 0)
    sorted_times = sorted(at for at, _ in times)
    quarter = max(1, len(sorted_times) // 4)
    ends = sorted_times[quarter:]
    seconds = min(b - a for a, b in zip(sorted_times, ends, strict=False))
    return Timing(sorted_times[0] - began, seconds, task.every * quarter)


def _watch(tune: Any, times: list[tuple[float, str]]) -> Any:
    """Notes when each result reaches the driver."""

    class Watch(tune.Callback):  # type: ignore[misc]
        """The callback."""

        def on_trial_result(self, *, trial: Any, **told: Any) -> None:
            """A trial has reported."""
            del told
            times.append((time.time(), trial.trial_id))

    return Watch()


def _function(tune: Any, task: Task) -> Any:
    """One member: a function that reports, and continues from what Tune passes it."""
    apart = max(1, task.exploit_steps // task.every)

    def train(config: dict[str, Any]) -> None:
        problem = problems.named(task.problem)
        step, evaluate = compiled(task.problem)
        data, held_out = jax.device_put((problem.data, problem.evaluation))
        key, meta = jax.random.key(SEED), _meta(config)
        state, count = jax.jit(problem.init)(key, meta), jnp.int32(0)
        if checkpoint := tune.get_checkpoint():
            with checkpoint.as_directory() as place:
                text = (pathlib.Path(place) / "state").read_bytes()
            state, count = jax.device_put(pickle.loads(text))
        state = _with_rate(state, meta)
        for done in range(int(count) // task.every, task.rounds):
            for _ in range(task.every):
                state, count = step(state, meta, data, key, count)
            told = {"value": float(evaluate(state, meta, held_out))}
            if (done + 1) % apart:
                tune.report(told)
                continue
            with tempfile.TemporaryDirectory() as place:
                text = pickle.dumps(jax.device_get((state, count)))
                (pathlib.Path(place) / "state").write_bytes(text)
                tune.report(told, checkpoint=tune.Checkpoint.from_directory(place))

    return train


def _meta(config: dict[str, Any]) -> Any:
    return {"learning_rate": jnp.float32(config["learning_rate"])}


def _with_rate(state: Any, meta: Any) -> Any:
    rate = float(meta["learning_rate"])
    return hyperparams.put(state, {"learning_rate": rate}, strict=False)


def _class(tune: Any, task: Task) -> Any:
    """One member: a step of Tune is one report's worth of training."""

    class Member(tune.Trainable):  # type: ignore[misc]
        """The trial."""

        def setup(self, config: dict[str, Any]) -> None:
            """Begin with a fresh state."""
            problem = problems.named(task.problem)
            self._step, self._evaluate = compiled(task.problem)
            self._data, self._held_out = jax.device_put(
                (problem.data, problem.evaluation)
            )
            self._key, self._count = jax.random.key(SEED), jnp.int32(0)
            self.reset_config(config)
            self._state = jax.jit(problem.init)(self._key, self._meta)
            self._state = _with_rate(self._state, self._meta)

        def reset_config(self, config: dict[str, Any]) -> bool:
            """Other hyperparameters, in the same actor."""
            self._meta = _meta(config)
            return True

        def step(self) -> dict[str, float]:
            """Train, and report."""
            for _ in range(task.every):
                self._state, self._count = self._step(
                    self._state, self._meta, self._data, self._key, self._count
                )
            return {"value": float(self._evaluate(
                self._state, self._meta, self._held_out
            ))}  # fmt: skip

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Write the state."""
            state = jax.device_get((self._state, self._count))
            (pathlib.Path(checkpoint_dir) / "state").write_bytes(pickle.dumps(state))

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            """Read it, with the hyperparameters of this trial."""
            text = (pathlib.Path(checkpoint_dir) / "state").read_bytes()
            self._state, self._count = jax.device_put(pickle.loads(text))
            self._state = _with_rate(self._state, self._meta)

    return Member
