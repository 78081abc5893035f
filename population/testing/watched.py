"""Wraps a mutator to check what goes into each call, and what comes out of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from population.base import codec
from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Failure, Ref, Report, Retire
from population.testing.runner import ScriptRunner
from population.testing.wrapped import Decided, WrappedMutator

STORABLE = "keeps its state as plain data that can be stored and read back"
ARGUMENTS = "leaves its arguments as they were"
SAME_OBJECT = "returns the same state object when nothing has changed"
PURE = "decides the same when it is asked again with the same arguments"
DIVERGED = "copies no checkpoint that has diverged over one that has not"
DEAD = "branches only from checkpoints whose params are kept"


class WatchedMutator(WrappedMutator):
    """Calls another mutator, and notes the promises that it breaks.

    Args:
        mutator: The other mutator.
        breaches: Collects the first breach of each promise.
    """

    def __init__(self, mutator: Mutator[Any], breaches: Breaches) -> None:
        super().__init__(mutator)
        self._breaches = breaches
        self._kind: type = type(None)

    def init(self, view: PopulationView) -> Any:
        """Return the other mutator's first state; this calls `init` twice."""
        state = self._mutator.init(view)
        self._kind = type(state)
        text = self._stored(state)
        again = self._mutator.init(view)
        if _text(again) != text:
            self._breaches.note(
                PURE, f"init returned {_shortly(state)}, then {_shortly(again)}."
            )
        return state

    def update(self, state: Any, report: Report, view: PopulationView) -> Decided:
        """Return the other mutator's decision; this calls `update` twice."""
        return self._decided("update", self._mutator.update, state, report, view)

    def failed(self, state: Any, failure: Failure, view: PopulationView) -> Decided:
        """Return the other mutator's decision; this calls `failed` twice."""
        return self._decided("failed", self._mutator.failed, state, failure, view)

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """Return the other mutator's `first`, which this calls twice."""
        before = _text(meta_params)
        found = self._mutator.first(worker_id, step, meta_params)
        text, after = _text(found), _text(meta_params)
        names = ("the meta_params",)
        self._compare(
            ARGUMENTS, "first changed {} in place", names, (before,), (after,)
        )
        if before == after:
            again = _text(self._mutator.first(worker_id, step, meta_params))
            what = "asked again, first returned {}"
            self._compare(PURE, what, ("other meta_params",), (text,), (again,))
        return found

    def wait_at(self, state: Any, worker_id: int, view: PopulationView) -> int | None:
        """Return the other mutator's `wait_at`, which this calls twice."""
        before = _text(state)
        found = self._mutator.wait_at(state, worker_id, view)
        again = self._mutator.wait_at(state, worker_id, view)
        if _text(state) != before:
            what = f"wait_at changed the state: {_change(before, _text(state))}."
            self._breaches.note(ARGUMENTS, what)
        if again != found:
            what = f"wait_at of worker {worker_id} was {found}, then {again}."
            self._breaches.note(PURE, what)
        return found

    def _decided(
        self,
        call: str,
        decide: Callable[[Any, Any, PopulationView], Decided],
        state: Any,
        shown: Report | Failure,
        view: PopulationView,
    ) -> Decided:
        """Return what `update` or `failed` decides, which this calls twice."""
        kind = "report" if isinstance(shown, Report) else "failure"
        spare = copy.deepcopy(view.rng)
        before = _text(state), _seen(shown, view)
        following, branches = decide(state, shown, view)
        text = before[0] if following is state else self._stored(following)
        after = _text(state), _seen(shown, view)
        names = ("the state", f"the {kind} and the newest checkpoints")
        self._compare(ARGUMENTS, f"{call} changed {{}} in place", names, before, after)
        if before == after:
            if following is not state and not branches and text == before[0]:
                what = f"{call} returned an equal copy of {_shortly(state)}."
                self._breaches.note(SAME_OBJECT, what)
            same = SameNumbers.of(view, spare)
            again, others = decide(state, shown, same)
            self._compare(
                PURE,
                f"asked again, {call} returned {{}}",
                ("other states", "other decisions"),
                (text, _plain(branches)),
                (_text(again), _plain(others)),
            )
        for worker_id, branch in branches.items():
            self._check_parent(worker_id, branch, view)
        return following, branches

    def _stored(self, state: Any) -> str:
        """Return the state as it is stored; note a breach if it changes by that."""
        if type(state) is not self._kind:
            what = (
                f"a decision returned a {type(state).__name__}, init a "
                f"{self._kind.__name__}: {_shortly(state)}."
            )
            self._breaches.note(STORABLE, what)
        try:
            text = codec.encode(state, "the state", records=True)
            again = codec.decode(text, type(state))
            back = codec.encode(again, "the state", records=True)
        except (TypeError, ValueError, LookupError, NameError) as error:
            what = f"the state is {_shortly(state)}: {error}"
            self._breaches.note(STORABLE, what)
            return _text(state)
        if type(again) is not type(state) or back != text:
            what = f"{_shortly(state)} came back as {_shortly(again)}."
            self._breaches.note(STORABLE, what)
        return text

    def _compare(
        self,
        promise: str,
        what: str,
        names: Sequence[str],
        before: Sequence[str],
        after: Sequence[str],
    ) -> None:
        """Note a breach for what is not as it was before."""
        for name, old, new in zip(names, before, after, strict=True):
            if old != new:
                seen = f"{what.format(name)}: {_change(old, new)}."
                self._breaches.note(promise, seen)

    def _check_parent(
        self, worker_id: int, branch: Branch | Retire, view: PopulationView
    ) -> None:
        """A parent must be kept; a finite slot may not copy one that diverged."""
        if isinstance(branch, Retire) or branch.parent is None:
            return
        parent = branch.parent
        own = parent.row == view.newest(worker_id).row
        if parent.diverged and not own and np.isfinite(view.scores[worker_id]):
            what = (
                f"worker {worker_id} was to go on from worker {parent.worker_id} at "
                f"step {parent.step}, whose value is {parent.value}. Its own is finite."
                " Choose only donors for which np.isfinite(view.scores) is true."
            )
            self._breaches.note(DIVERGED, what)
        point = view.graph.resume_point(parent)
        if point.params is not None and not self._breaches.keeps(point.ref):
            usable = view.graph.resume_point(view.newest(point.worker_id))
            what = (
                f"worker {worker_id} was to go on from worker {point.worker_id} at "
                f"step {point.step}, whose params may be removed by now. Take the "
                "newest that can be used: "
                f"view.graph.resume_point(view.newest({point.worker_id})), here at "
                f"step {usable.step}; or, to go back on purpose, keep a Ref to it in "
                "the state, which keeps its params."
            )
            self._breaches.note(DEAD, what)


class Breaches(dict[str, tuple[int, str]]):
    """The first breach of each promise: the position in the script, and what was seen.

    Attributes:
        run: The run that is watched.
    """

    run: ScriptRunner

    def note(self, promise: str, what: str) -> None:
        """Note a breach, unless there is one of this promise already."""
        self.setdefault(promise, (self.run.position, what))

    def keeps(self, ref: Ref) -> bool:
        """Whether the params of a checkpoint are kept until this update."""
        return ref in self.run.controller.reachable()


class SameNumbers:
    """A view with another random generator."""

    @classmethod
    def of(cls, view: PopulationView, rng: np.random.Generator) -> PopulationView:
        """Return it as a view."""
        return cast(PopulationView, cls(view, rng))

    def __init__(self, view: PopulationView, rng: np.random.Generator) -> None:
        self._view = view
        self.rng = rng

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def _text(state: Any) -> str:
    try:
        return codec.encode(state, "the state", records=True)
    except (TypeError, ValueError):
        return repr(state)


def _seen(shown: Report | Failure, view: PopulationView) -> str:
    """Return all that a mutator could change, as text, as NaN does not equal NaN."""
    return repr((shown, [view.newest(w) for w in range(len(view.steps))]))


def _plain(branches: Mapping[int, Branch | Retire]) -> str:
    """Return the decisions as text, parents by name."""
    plain = {
        worker_id: (
            branch
            if isinstance(branch, Retire)
            else (
                None if branch.parent is None else branch.parent.ref,
                repr(branch.meta_params),
                branch.reason,
            )
        )
        for worker_id, branch in sorted(branches.items())
    }
    return str(plain)


def _change(old: str, new: str) -> str:
    """Return the first difference of two texts, with some context."""
    first = max(_alike(old, new) - 40, 0)
    last = max(_alike(old[first:][::-1], new[first:][::-1]) - 20, 0)
    shown = [text[first : len(text) - last] for text in (old, new)]
    dots = "..." if first else ""
    return f"from {dots}{_cut(shown[0])} to {dots}{_cut(shown[1])}"


def _alike(one: str, two: str) -> int:
    """Return the length of the common beginning."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))


def _shortly(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
