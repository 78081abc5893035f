"""The error that `check_mutator` raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from population.testing.runner import ScriptEvent

_SHOWN = 8


class BrokenPromise(AssertionError):
    """A mutator breaks a promise; the text shows a script that makes it do so.

    `check_mutator(make, error.population, seed=error.seed, script=error.script)` plays
    that script alone.

    Args:
        mutator: The name of the mutator's class.
        promise: The promise, without its subject.
        seen: The behaviour that was seen instead.
        script: The smallest script that shows it.
        population: The first meta_params of each worker.
        seed: The run's seed.

    Attributes:
        promise: The promise, without its subject.
        seen: The behaviour that was seen instead.
        script: The smallest script that shows it.
        population: The first meta_params of each worker.
        seed: The run's seed.
    """

    def __init__(
        self,
        mutator: str,
        promise: str,
        seen: str,
        script: Sequence[ScriptEvent],
        population: Sequence[Any],
        seed: int,
    ) -> None:
        self.promise = promise
        self.seen = seen
        self.script = tuple(script)
        self.population = list(population)
        self.seed = seed
        events = [f"  {i}. {event}" for i, event in enumerate(self.script, 1)]
        metas = [f"  worker {i}: {meta!r}" for i, meta in enumerate(self.population)]
        if len(metas) > _SHOWN:
            metas[_SHOWN:] = ["  ..."]
        lines = [
            f"{mutator} does not keep the promise that it {promise}.",
            f"Seen: {seen}",
            f"The smallest sequence that shows it (seed {seed}, mode 'min', "
            f"{len(self.population)} workers):",
            *(events or ["  (no report is needed)"]),
            "First meta_params:",
            *metas,
        ]
        super().__init__("\n".join(lines))
