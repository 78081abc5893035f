"""The same population under Ray Tune's `PopulationBasedTraining`, if it is there.

`make bench-peers` installs it. A trial's state is a checkpoint in memory-backed files,
as Tune wants them; results bring the value and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import pickle
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.speed import problems
from benchmarks.speed.ways import EXPLOIT_STEPS, SEED, Task, Timing, compiled

MISSING = "not measured: ray[tune] is not installed (make bench-peers)"
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


def by_tune(task: Task, folder: pathlib.Path) -> Timing:
    """A trial for each member, as many at a time as members."""
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
        trainable = tune.with_resources(_trainable(tune, task), {"cpu": share})
        scheduler = schedulers.PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=max(1, EXPLOIT_STEPS // task.every),
            hyperparam_mutations={"learning_rate": tune.loguniform(1e-4, 1e-1)},
            metric="value",
            mode="min",
        )
        tuner = tune.Tuner(
            trainable,
            param_space={"learning_rate": tune.loguniform(1e-4, 1e-1)},
            tune_config=tune.TuneConfig(
                scheduler=scheduler, num_samples=task.size, reuse_actors=True
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
    return _timing(task, times, began)


def _timing(task: Task, times: list[tuple[float, str]], began: float) -> Timing:
    """From when all trials have reported once to when the first has ended.

    If it has ended before the last one began, to the last report of all.
    """
    firsts = {trial: at for at, trial in reversed(times)}
    lasts = {trial: at for at, trial in times}
    begin, end = max(firsts.values()), min(lasts.values())
    end = end if end > begin else max(lasts.values())
    done = task.every * sum(begin < at <= end for at, _ in times)
    return Timing(begin - began, end - begin, done)


def _watch(tune: Any, times: list[tuple[float, str]]) -> Any:
    """Notes when each result reaches the driver."""

    class Watch(tune.Callback):  # type: ignore[misc]
        """The callback."""

        def on_trial_result(self, *, trial: Any, **told: Any) -> None:
            """A trial has reported."""
            del told
            times.append((time.time(), trial.trial_id))

    return Watch()


def _trainable(tune: Any, task: Task) -> Any:
    """One member: a step of Tune is one report's worth of training."""

    class Member(tune.Trainable):  # type: ignore[misc]
        """The trial."""

        def setup(self, config: dict[str, Any]) -> None:
            """Begin afresh."""
            problem = problems.named(task.problem)
            self._step, self._evaluate = compiled(task.problem)
            self._data, self._held_out = jax.device_put(
                (problem.data, problem.evaluation)
            )
            self._key, self._count = jax.random.key(SEED), jnp.int32(0)
            self.reset_config(config)
            self._state = jax.jit(problem.init)(self._key, self._meta)
            self._state = self._with_rate()

        def reset_config(self, config: dict[str, Any]) -> bool:
            """Other hyperparameters, in the same actor."""
            self._meta = {"learning_rate": jnp.float32(config["learning_rate"])}
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
            self._state = self._with_rate()

        def _with_rate(self) -> Any:
            from population import hyperparams

            rate = float(self._meta["learning_rate"])
            return hyperparams.put_known(self._state, {"learning_rate": rate})

    return Member
