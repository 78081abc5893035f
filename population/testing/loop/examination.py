"""Runs all checks of a training loop, in the order in which they are possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from population.params import MemoryParams
from population.testing.loop import hyperparameters, keys, states
from population.testing.loop.dependence import flow
from population.testing.loop.finding import Finding, LoopReport
from population.testing.loop.hyperparameters import Baseline, Change, Trial
from population.testing.loop.trial import DonatedError, Loop, Run

_FIRST = "Fix this first: the rest could not be checked."
_CHANCE = (
    "Two runs with the same meta_params and keys differ, so that results say nothing. "
    "Draw weights and batches from keys, and a run can be repeated."
)
_UNTRACED = "JAX cannot trace the step, so a fixed key in it would not be seen."
_NOTHING = "There is no number to change in meta_params: pass mutated=."


class Examination:
    """Runs one check after the other.

    Args:
        loop: The user's functions.
        meta_params: The hyperparameters to begin with.
        changes: The hyperparameters to change, one at a time.
    """

    def __init__(self, loop: Loop, meta_params: Any, changes: Sequence[Change]) -> None:
        self._loop = loop
        self._meta_params = meta_params
        self._changes = changes
        self._found: list[Finding | str] = []

    def report(self) -> LoopReport:
        """Return the findings and notes of all checks."""
        try:
            base = self._stored_run()
            if base is None:
                self._found.append(_FIRST)
            else:
                self._check_run(base)
        except DonatedError as error:
            self._found += [states.donated(error), _FIRST]
        return LoopReport(
            [each for each in self._found if isinstance(each, Finding)],
            [each for each in self._found if isinstance(each, str)],
        )

    def _stored_run(self) -> Run | None:
        """Return the first run, if its states can be saved and read back."""
        loop, meta_params = self._loop, self._meta_params
        start = loop.start(meta_params)
        self._found += states.not_storable(start)
        if self._found:
            return None
        run = loop.run(start, meta_params)
        self._found += states.not_storable(run.last)
        if not self._found:
            self._found += states.not_coming_back(loop, meta_params, run)
        return None if self._found else run

    def _check_run(self, base: Run) -> None:
        """Compare a run with others, each with one thing changed."""
        loop, meta_params = self._loop, self._meta_params
        again = loop.run(loop.start(meta_params), meta_params)
        store = MemoryParams()
        path = store.save("state", base.last)
        repeatable = not hyperparameters.effect(base, again)
        baseline = Baseline(loop, meta_params, base, repeatable, store, path)
        tried = [hyperparameters.tried(baseline, change) for change in self._changes]
        trials = [trial for trial in tried if isinstance(trial, Trial)]
        self._found += [] if repeatable else [_CHANCE]
        self._found += [] if tried else [_NOTHING]
        self._found += hyperparameters.rounded(baseline)
        ill = states.not_numbers(base)
        runs = [base, *(trial.run for trial in trials)]
        if all(states.not_training(run) for run in runs):
            ill += states.not_training(base)
        compiling = hyperparameters.compiling_without_change(again)
        self._found += ill + compiling
        for each in tried:
            if isinstance(each, Trial):
                self._check_trial(
                    baseline, each, compiles=bool(compiling), ill=bool(ill)
                )
            else:
                self._found.append(each)
        self._check_keys(baseline)
        # The last check, as it may delete buffers that the functions close over.
        self._found += states.kept_buffers(loop, meta_params)

    def _check_trial(
        self, baseline: Baseline, trial: Trial, *, compiles: bool, ill: bool
    ) -> None:
        """Check what a changed hyperparameter does."""
        unfit = hyperparameters.not_fitting(baseline, trial)
        self._found += unfit
        if not compiles:
            self._found += hyperparameters.compiling(baseline, trial)
        if not unfit and not ill:
            gone = hyperparameters.lost(baseline, trial)
            self._found += gone or hyperparameters.without_effect(baseline, trial)

    def _check_keys(self, baseline: Baseline) -> None:
        """Check whether random numbers are new at each step."""
        loop, meta_params = self._loop, self._meta_params
        found = flow(loop, loop.start(meta_params), meta_params)
        if found is None:
            self._found.append(_UNTRACED)
        elif baseline.repeatable:  # Else a key may come from elsewhere.
            self._found += keys.constant(loop, found, baseline.base)
            self._found += keys.copied(found, baseline.base)
