"""Checks of one hyperparameter: does it have an effect, and what does a change cost?"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax

from population.base.errors import ParamsError
from population.in_force import findings, injected, watch
from population.in_force.restoring import USER_ERRORS, Restored
from population.params import MemoryParams
from population.testing.loop import states, trees
from population.testing.loop.dependence import META, flow
from population.testing.loop.finding import (
    COMPILES_AGAIN,
    LOST,
    NO_EFFECT,
    PARAMS,
    Finding,
)
from population.testing.loop.trial import Loop, Run


class Change(NamedTuple):
    """A hyperparameter to change.

    Attributes:
        path: Its path in meta_params.
        old: Its value.
        new: The values to try, until one works.
        given: Whether the user has given the new value.
    """

    path: trees.Path
    old: Any
    new: list[Any]
    given: bool

    @property
    def name(self) -> str:
        """Its name, as in "optimizer.betas[0]"."""
        return trees.name_of(self.path)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A loop, and its run with the unchanged meta_params.

    Attributes:
        loop: The user's functions.
        meta_params: The unchanged meta_params.
        base: The run with them.
        repeatable: Whether a second run was exactly the same.
        store: The store with the last state of the run.
        path: The name of that save.
    """

    loop: Loop
    meta_params: Any
    base: Run
    repeatable: bool
    store: MemoryParams
    path: str


class Trial(NamedTuple):
    """A run with one hyperparameter changed.

    Attributes:
        change: The change.
        value: The new value.
        meta_params: The meta_params with it.
        run: The run.
    """

    change: Change
    value: Any
    meta_params: Any
    run: Run

    @property
    def from_to(self) -> str:
        """The change as text: "from 0.1 to 0.2"."""
        return f"from {self.change.old!r} to {self.value!r}"


def changes(meta_params: Any, mutated: Any) -> list[Change]:
    """Return the changes to try, one hyperparameter at a time.

    Raises:
        ValueError: `mutated` has another structure than `meta_params`.
    """
    before = dict(trees.leaves_of(meta_params))
    if mutated is None:
        found = [Change(p, old, trees.moved(old), False) for p, old in before.items()]
        return [change for change in found if change.new]
    after = dict(trees.leaves_of(mutated))
    if before.keys() != after.keys():
        differ = sorted(trees.name_of(p) for p in before.keys() ^ after.keys())
        raise ValueError(
            f"mutated must have the structure of meta_params, got {mutated!r}, where "
            f"{', '.join(differ)} differ. Change only numbers, texts and bools."
        )
    return [
        Change(path, old, [after[path]], True)
        for path, old in before.items()
        if repr(old) != repr(after[path])
    ]


def tried(baseline: Baseline, change: Change) -> Trial | str:
    """Return the run with the first new value that the loop accepts, or a note."""
    note = ""
    for value in change.new:
        try:
            return _with_value(baseline, change, value)
        except USER_ERRORS as error:
            if change.given:
                raise
            note = (
                f"No other {change.name} could be tried, pass mutated=: "
                f"{type(error).__name__}: {error}"
            )
    return note


def effect(one: Run, two: Run, apart_from: Collection[str] = ()) -> bool:
    """Whether two runs differ, not counting some places of the state."""
    pairs = zip(one.states[1:], two.states[1:], strict=True)
    if any(trees.differing(*pair) - set(apart_from) for pair in pairs):
        return True
    beside = zip(one.results, two.results, strict=True)
    return any(trees.differing(*pair) for pair in beside)


def compiling_without_change(again: Run) -> list[Finding]:
    """Return a finding for functions compiled again although nothing has changed."""
    names = _named(again)
    if not names:
        return []
    message = (
        f"A second run with the same meta_params compiled {names} anew. Make jitted "
        "functions once, outside of the step, and jit the whole step. If the state is "
        "a TrainState, make its optimiser once, too: a new one is compiled anew."
    )
    return [Finding(COMPILES_AGAIN, "step", message)]


def compiling(baseline: Baseline, trial: Trial) -> Sequence[Finding | str]:
    """Return a finding for functions that a new value compiles; a note if no float."""
    names = _named(trial.run)
    if not names:
        return []
    name, shapes = trial.change.name, trees.shapes(trial.run.states[0])
    if type(trial.change.old) is float and shapes == trees.shapes(
        baseline.base.states[0]
    ):
        message = (
            f"{names} compiled anew when it went {trial.from_to}. Let the jitted step "
            f"take {name} as an argument that is not static, or keep it in the state "
            "by optax.inject_hyperparams; a number that a jitted function closes over "
            "is part of the program."
        )
        return [Finding(COMPILES_AGAIN, name, message)]
    note = (
        f"{names} compiled anew when {name} went {trial.from_to}. That must be where "
        "shapes or the program change; otherwise pass it as an array."
    )
    return [note]


def rounded(baseline: Baseline) -> list[str]:
    """Notes on numbers that the dtype of the optimiser's state cannot hold."""
    meta_params = baseline.meta_params
    numbers = findings.on_host(injected.numbers(baseline.loop.start(meta_params)))
    notices = findings.found("The loop", meta_params, numbers, lambda _: None)
    return [notice.text for notice in notices if notice.kind == findings.ROUNDED]


def not_fitting(baseline: Baseline, trial: Trial) -> list[Finding]:
    """Return a finding for a change after which a saved state cannot be restored."""
    try:
        _restored(baseline, trial)
    except ParamsError as error:
        message = (
            f"A state saved before it went {trial.from_to} cannot be restored after. "
            f"{states.plain_text(error)} Give all workers the same value, or pass "
            "adapt= here and to worker.restore. If it never changes in a run, pass "
            "mutated= with the old value."
        )
        return [Finding(PARAMS, trial.change.name, message)]
    return []


def _restored(baseline: Baseline, trial: Trial) -> Any:
    """Return the last state of the first run, restored by a worker with the change."""
    return baseline.loop.restored(
        baseline.store, baseline.path, trial.meta_params, baseline.meta_params
    )


def lost(baseline: Baseline, trial: Trial) -> list[Finding]:
    """Return a finding for a new value in a fresh state but not in a restored one."""
    loop, meta = baseline.loop, trial.meta_params
    restored = _restored(baseline, trial)
    here, end = trees.on_host(restored), baseline.base.states[-1]
    places = {
        place
        for place in _carriers(baseline.base, trial.run)
        if end[place].ndim == 0
        and not trees.differing({"": here[place]}, {"": end[place]})
    }
    if not places:
        return []
    fresh = trees.by_place(loop.start(meta))
    mended = trees.with_leaves(restored, {place: fresh[place] for place in places})
    old, new = loop.run(restored, meta), loop.run(mended, meta)
    if not effect(old, new, places):
        return []
    where = sorted(places)[0]
    message = (
        f"After it went {trial.from_to}, a restored state still has the old value in "
        f"state{where}. A restore brings back all of the state but the numbers of "
        "optax.inject_hyperparams. Inject it, or take it from worker.meta_params as an "
        "argument of the step, or set it after each worker.restore."
    )
    return [Finding(LOST, trial.change.name, message)]


def without_effect(baseline: Baseline, trial: Trial) -> Sequence[Finding | str]:
    """Return a finding for a hyperparameter without an effect; a note if it is read."""
    change = trial.change
    if baseline.repeatable and _has_effect(baseline, trial):
        return []
    evidence = f"{baseline.loop.steps} steps from each value end in the same"
    read = _is_read(baseline, trial)
    if read and baseline.repeatable:
        note = (
            f"{change.name} is read, but {evidence}. If it acts later or rarely, pass "
            "steps= or mutated= to see it."
        )
        return [note]
    if read or (read is None and not baseline.repeatable):
        return []
    if read is not None:
        evidence = "nothing that a step computes depends on it"
    message = f"Changed {trial.from_to}: {evidence}. {_remedy(baseline, trial)}"
    return [Finding(NO_EFFECT, change.name, message)]


def _is_read(baseline: Baseline, trial: Trial) -> bool | None:
    """Whether the step's jaxpr uses the hyperparameter; None if it is unknown."""
    loop, meta_params, path = baseline.loop, baseline.meta_params, trial.change.path
    plain = flow(loop, loop.start(meta_params), meta_params)
    if plain is None or isinstance(trial.change.old, str):
        return None
    found = flow(loop, loop.start(meta_params), meta_params, path)
    if found is None:
        return True  # With an abstract value it cannot be traced: the value is used.
    sources = {META, *_differing_at_first(baseline.base, trial.run)}
    return bool(found.reached(sources) - _carriers(baseline.base, trial.run))


def _with_value(baseline: Baseline, change: Change, value: Any) -> Trial:
    """Return the run with a new value."""
    meta_params = trees.replaced(baseline.meta_params, change.path, value)
    run = baseline.loop.run(baseline.loop.start(meta_params), meta_params)
    return Trial(change, value, meta_params, run)


def _has_effect(baseline: Baseline, trial: Trial) -> bool:
    """Whether any of the new values changes the run, or raises an error."""

    def has_effect(run: Run) -> bool:
        return effect(baseline.base, run, _carriers(baseline.base, run))

    if has_effect(trial.run):
        return True
    for value in trial.change.new:
        try:
            other = _with_value(baseline, trial.change, value)
        except USER_ERRORS:
            return True
        if has_effect(other.run):
            return True
    return False


def _differing_at_first(one: Run, two: Run) -> set[str]:
    return trees.differing(one.states[0], two.states[0])


def _carriers(one: Run, two: Run) -> set[str]:
    """Places that differ with the hyperparameter and that no step changes."""
    return _differing_at_first(one, two) & one.still() & two.still()


def _named(run: Run) -> str:
    names = dict.fromkeys(name for step in run.compiled for name in step)
    return ", ".join(names)


def _remedy(baseline: Baseline, trial: Trial) -> str:
    """Return the advice for a hyperparameter that has no effect."""
    loop, name = baseline.loop, trial.change.name
    fresh = loop.start(trial.meta_params)
    numbers = findings.on_host(injected.numbers(fresh))
    made = Restored(fresh, numbers, jax.tree.structure(fresh))
    moving = watch.places_that_change(made, lambda: loop.start(baseline.meta_params))
    notices = findings.found("The loop", trial.meta_params, numbers, lambda _: moving)
    for one in notices:
        if one.kind == findings.NOT_IN_FORCE and one.key == name:
            return one.text
    carriers = sorted(_carriers(baseline.base, trial.run))
    if carriers:
        return (
            f"It is in state{carriers[0]}, which the step does not read. Use one and "
            "the same optimiser in init and in step, or read it there."
        )
    if numbers:
        known = sorted({number.name for number in numbers})
        return (
            f"The optimiser in the state has {', '.join(known)}: if it is one of "
            "these, put it there in init, as in hyperparams.put(opt_state, "
            f"{{{known[0]!r}: ...}})."
        )
    return (
        "Give it to the optimiser by optax.inject_hyperparams, or let the step take "
        "meta_params and use it."
    )
