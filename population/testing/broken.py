"""The error that `check_mutator` raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from population.testing.report import LikelyMistake, numbered
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
        mistakes: The likely mistakes that were seen as well.

    Attributes:
        promise: The promise, without its subject.
        seen: The behaviour that was seen instead.
        script: The smallest script that shows it.
        population: The first meta_params of each worker.
        seed: The run's seed.
        mistakes: The likely mistakes that were seen as well.
    """

    def __init__(
        self,
        mutator: str,
        promise: str,
        seen: str,
        script: Sequence[ScriptEvent],
        population: Sequence[Any],
        seed: int,
        mistakes: Sequence[LikelyMistake] = (),
    ) -> None:
        self.promise = promise
        self.seen = seen
        self.script = tuple(script)
        self.population = list(population)
        self.seed = seed
        self.mistakes = tuple(mistakes)
        events = numbered(self.script)
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
        if self.mistakes:
            lines.append("A likely mistake, which may be the reason:")
            lines += [f"  {mistake.kind}: {mistake.message}" for mistake in mistakes]
        super().__init__("\n".join(lines))
