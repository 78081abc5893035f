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
        self._findings: list[Finding] = []
        self._notes: list[str] = []

    def report(self) -> LoopReport:
        """The findings of all checks."""
        try:
            base = self._stored_run()
            if base is None:
                self._notes.append(_FIRST)
            else:
                self._ask(base)
        except DonatedError as error:
            self._findings.append(states.donated(error))
            self._notes.append(_FIRST)
        return LoopReport(self._findings, self._notes)

    def _stored_run(self) -> Run | None:
        """The first run, if its states can be saved and read back."""
        loop, meta_params = self._loop, self._meta_params
        start = loop.start(meta_params)
        self._findings += states.not_storable(start)
        if self._findings:
            return None
        run = loop.run(start, meta_params)
        self._findings += states.not_storable(run.last)
        if not self._findings:
            self._findings += states.not_coming_back(loop, meta_params, run)
        return None if self._findings else run

    def _ask(self, base: Run) -> None:
        loop, meta_params = self._loop, self._meta_params
        again = loop.run(loop.start(meta_params), meta_params)
        store = MemoryParams()
        path = store.save("state", base.last)
        repeatable = not hyperparameters.effect(base, again)
        baseline = Baseline(loop, meta_params, base, repeatable, store, path)
        trials = [hyperparameters.tried(baseline, change) for change in self._changes]
        self._notes += [] if repeatable else [_CHANCE]
        self._notes += [] if trials else [_NOTHING]
        self._notes += hyperparameters.rounded(baseline)
        ill = states.not_numbers(base)
        runs = [base, *(trial.run for trial in trials if trial.run)]
        if all(states.not_training(run) for run in runs):
            ill += states.not_training(base)
        compiling = hyperparameters.compiling_without_change(again)
        self._findings += ill + compiling
        for trial in trials:
            self._ask_of(baseline, trial, compiles=bool(compiling), ill=bool(ill))
        self._ask_for_keys(baseline)
        # The last check, as it may delete buffers that the functions close over.
        self._findings += states.kept_buffers(loop, meta_params)

    def _ask_of(
        self, baseline: Baseline, trial: Trial, *, compiles: bool, ill: bool
    ) -> None:
        """Check what a changed hyperparameter does."""
        if trial.run is None:
            name, error = trial.change.name, trial.error
            self._notes.append(
                f"No other {name} could be tried, pass mutated=: "
                f"{type(error).__name__}: {error}"
            )
            return
        unfit = hyperparameters.not_fitting(baseline, trial)
        self._findings += unfit
        if not compiles:
            self._take(hyperparameters.compiling(baseline, trial, trial.run))
        if not unfit and not ill:
            gone = hyperparameters.lost(baseline, trial, trial.run)
            self._findings += gone
            if not gone:
                self._take(hyperparameters.without_effect(baseline, trial, trial.run))

    def _ask_for_keys(self, baseline: Baseline) -> None:
        """Check whether random numbers are new at each step."""
        loop, meta_params = self._loop, self._meta_params
        found = flow(loop, loop.start(meta_params), meta_params)
        if found is None:
            self._notes.append(_UNTRACED)
        elif baseline.repeatable:  # Else a key may come from elsewhere.
            self._findings += keys.constant(loop, found, baseline.base)
            self._notes += keys.copied(found, baseline.base)

    def _take(self, found: Finding | str | None) -> None:
        """Add a finding or a note."""
        if isinstance(found, Finding):
            self._findings.append(found)
        elif found is not None:
            self._notes.append(found)
