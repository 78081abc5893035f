"""Questions about one hyperparameter: does it arrive, and what does a change cost?"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
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
    """A hyperparameter that is to be changed.

    Attributes:
        path: Where it is in meta_params.
        old: Its value.
        new: What to try, the first that works counts.
        given: Whether the user has asked for this value.
    """

    path: trees.Path
    old: Any
    new: list[Any]
    given: bool

    @property
    def name(self) -> str:
        """What the user calls it."""
        return trees.name_of(self.path)


@dataclasses.dataclass(frozen=True)
class Patient:
    """A loop, and what it did with the first meta_params.

    Attributes:
        loop: The user's functions.
        meta_params: The first ones.
        base: The run with them.
        repeatable: Whether a second run did exactly the same.
        store: Where the end of the run is kept.
        path: The name of it there.
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
        change: What was to be changed.
        meta_params: With the change.
        run: What came of it; None if every new value made the loop raise.
        error: What it raised last.
    """

    change: Change
    meta_params: Any
    run: Run | None
    error: Exception | None = None

    @property
    def from_to(self) -> str:
        """The change in words."""
        now = dict(trees.leaves_of(self.meta_params))[self.change.path]
        return f"from {self.change.old!r} to {now!r}"


def changes(meta_params: Any, mutated: Any) -> list[Change]:
    """What to change, one hyperparameter at a time.

    Raises:
        ValueError: If the two have not the same structure.
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


def tried(patient: Patient, change: Change) -> Trial:
    """The first run with a new value that the user's functions accept."""
    error: Exception | None = None
    for meta_params in _changed(patient, change):
        try:
            return Trial(change, meta_params, _run(patient, meta_params))
        except USER_ERRORS as raised:
            if change.given:
                raise
            error = raised
    return Trial(change, patient.meta_params, None, error)


def effect(one: Run, two: Run, apart_from: Collection[str] = ()) -> bool:
    """Whether two runs differ, but for places that only hold the hyperparameter."""
    pairs = zip(one.states[1:], two.states[1:], strict=True)
    if any(trees.differing(*pair) - set(apart_from) for pair in pairs):
        return True
    beside = zip(one.results, two.results, strict=True)
    return any(trees.differing(*pair) for pair in beside)


def compiling_without_change(again: Run) -> list[Finding]:
    """Functions that a second run compiled, although nothing is new."""
    names = _named(again)
    if not names:
        return []
    message = (
        f"A second run with the same meta_params compiled {names} anew. Make jitted "
        "functions once, outside of the step, and jit the whole step. An optimiser "
        "that init makes anew is another one to a step that gets it in a TrainState."
    )
    return [Finding(COMPILES_AGAIN, "step", message)]


def compiling(patient: Patient, trial: Trial, run: Run) -> Finding | str | None:
    """Functions that a new value compiles; only worth a note if it is no float."""
    names = _named(run)
    if not names:
        return None
    name, shapes = trial.change.name, trees.shapes(run.states[0])
    if type(trial.change.old) is float and shapes == trees.shapes(
        patient.base.states[0]
    ):
        message = (
            f"{names} compiled anew when it went {trial.from_to}. Let the jitted step "
            f"take {name} as an argument that is not static, or keep it in the state "
            "by optax.inject_hyperparams; a number that a jitted function closes over "
            "is part of the program."
        )
        return Finding(COMPILES_AGAIN, name, message)
    return (
        f"{names} compiled anew when {name} went {trial.from_to}. That must be where "
        "shapes or the program change; otherwise pass it as an array."
    )


def rounded(patient: Patient) -> list[str]:
    """Numbers that the dtype of the optimiser's state cannot hold, in words."""
    meta_params = patient.meta_params
    numbers = findings.on_host(injected.numbers(patient.loop.start(meta_params)))
    told = findings.found("The loop", meta_params, numbers, lambda _: None)
    return [one.text for one in told if one.kind == findings.ROUNDED]


def not_fitting(patient: Patient, trial: Trial) -> list[Finding]:
    """A state of other meta_params that a worker could not go on from."""
    try:
        _restored(patient, trial)
    except ParamsError as error:
        message = (
            f"A state saved before it went {trial.from_to} cannot be restored after. "
            f"{states.told(error)} Keep it the same for all workers, or pass adapt= "
            "here and there. If it never changes in a run, pass mutated= with the old "
            "value."
        )
        return [Finding(PARAMS, trial.change.name, message)]
    return []


def _restored(patient: Patient, trial: Trial) -> Any:
    """The end of the first run, as a worker with the change goes on from it."""
    return patient.loop.restored(
        patient.store, patient.path, trial.meta_params, patient.meta_params
    )


def lost(patient: Patient, trial: Trial, run: Run) -> list[Finding]:
    """A new value that is in force in a fresh state, and not in a restored one."""
    loop, meta = patient.loop, trial.meta_params
    restored = _restored(patient, trial)
    here, end = trees.on_host(restored), patient.base.states[-1]
    places = {
        place
        for place in _carriers(patient.base, run)
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


def without_effect(patient: Patient, trial: Trial, run: Run) -> Finding | str | None:
    """A hyperparameter that changes nothing, or not that we could see."""
    loop, change = patient.loop, trial.change
    if patient.repeatable and _has_effect(patient, trial, run):
        return None
    evidence = f"{loop.steps} steps from each value end in the same"
    read = _is_read(patient, trial, run)
    if read and patient.repeatable:
        return (
            f"{change.name} is read, but {evidence}. If it acts later or rarely, pass "
            "steps= or mutated= to see it."
        )
    if read or (read is None and not patient.repeatable):
        return None
    if read is not None:
        evidence = "nothing that a step computes depends on it"
    message = f"Changed {trial.from_to}: {evidence}. {_arrive(patient, trial, run)}"
    return Finding(NO_EFFECT, change.name, message)


def _is_read(patient: Patient, trial: Trial, run: Run) -> bool | None:
    """Whether the step's jaxpr has a use for it; None if JAX cannot tell."""
    loop, meta_params, path = patient.loop, patient.meta_params, trial.change.path
    plain = flow(loop, loop.start(meta_params), meta_params)
    if plain is None or isinstance(trial.change.old, str):
        return None
    found = flow(loop, loop.start(meta_params), meta_params, path)
    if found is None:
        return True  # With an abstract value it cannot be traced: the value is used.
    sources = {META, *_differing_at_first(patient.base, run)}
    return bool(found.reached(sources) - _carriers(patient.base, run))


def _changed(patient: Patient, change: Change) -> Iterator[Any]:
    for value in change.new:
        yield trees.replaced(patient.meta_params, change.path, value)


def _run(patient: Patient, meta_params: Any) -> Run:
    return patient.loop.run(patient.loop.start(meta_params), meta_params)


def _has_effect(patient: Patient, trial: Trial, run: Run) -> bool:
    """Whether any of the new values, or an error of it, can be told from the old."""
    if effect(patient.base, run, _carriers(patient.base, run)):
        return True
    for meta_params in _changed(patient, trial.change):
        try:
            other = _run(patient, meta_params)
        except USER_ERRORS:
            return True
        if effect(patient.base, other, _carriers(patient.base, other)):
            return True
    return False


def _differing_at_first(one: Run, two: Run) -> set[str]:
    return trees.differing(one.states[0], two.states[0])


def _carriers(one: Run, two: Run) -> set[str]:
    """Places that follow the hyperparameter and that no step changes."""
    return _differing_at_first(one, two) & one.still() & two.still()


def _named(run: Run) -> str:
    names = dict.fromkeys(name for step in run.compiled for name in step)
    return ", ".join(names)


def _arrive(patient: Patient, trial: Trial, run: Run) -> str:
    """What to do about a hyperparameter that does not arrive."""
    loop, name = patient.loop, trial.change.name
    fresh = loop.start(trial.meta_params)
    numbers = findings.on_host(injected.numbers(fresh))
    made = Restored(fresh, numbers, jax.tree.structure(fresh))
    moving = watch.places_that_change(made, lambda: loop.start(patient.meta_params))
    told = findings.found("The loop", trial.meta_params, numbers, lambda _: moving)
    for one in told:
        if one.kind == findings.NOT_IN_FORCE and one.key == name:
            return one.text
    carriers = sorted(_carriers(patient.base, run))
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
