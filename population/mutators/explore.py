"""Calls a user's `mutate_fn`, and makes the branches of members that explore."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Any

from population.base.interfaces import PopulationView
from population.base.types import Branch, Checkpoint

MutateFn = Callable[..., Any]
_BY_NAME = ("rng", "context")


def unchanged(meta_params: Any) -> Any:
    """Return the hyperparameters as they are: a `mutate_fn` that explores nothing."""
    return meta_params


@dataclasses.dataclass(frozen=True)
class MutationContext:
    """What a `mutate_fn` may know of the decision, in its parameter `context`.

    Attributes:
        worker_id: The slot that gets the new hyperparameters.
        donor: The checkpoint from which the slot continues: that of another member, or
            its own. Its meta_params are shared: leave them as they are.
        step: The training steps of the donor, where the slot begins.
        score: The score of the donor, or, if it has no value, of the newest report with
            one that led to it: lower is better; inf if that diverged or there is none.
        view: The run; valid only during the call. `view.scores[worker_id]` is the score
            of the slot itself, and `view.metric("loss")` has one of the metrics of
            each.
    """

    worker_id: int
    donor: Checkpoint
    step: int
    score: float
    view: PopulationView


class Explore:
    """Calls a user's `mutate_fn` on copies, so that it may change them in place.

    Args:
        mutate_fn: `mutate_fn(meta_params, ...)`. A parameter named `rng` gets the
            decision's random generator, and one named `context` a `MutationContext`,
            both by keyword; a function without such a parameter does not get it.
        others: The names of the arguments after meta_params that the policy passes.

    Raises:
        TypeError: `mutate_fn` is not callable, is a class, or needs a parameter for
            which nothing is passed.
    """

    def __init__(self, mutate_fn: MutateFn, others: Collection[str] = ()) -> None:
        if not callable(mutate_fn):
            raise TypeError(
                "mutate_fn must be a function of meta_params, got "
                f"{type(mutate_fn).__name__}."
            )
        if isinstance(mutate_fn, type):
            raise TypeError(
                f"mutate_fn must be a function of meta_params, got the class "
                f"{mutate_fn.__name__}. Make an object: {mutate_fn.__name__}(...)."
            )
        self._mutate_fn = mutate_fn
        self._takes = _taken(mutate_fn, others)

    def __call__(
        self,
        view: PopulationView,
        worker_id: int,
        donor: Checkpoint,
        meta_params: Any,
        *others: Any,
    ) -> Any:
        """Return the new meta_params.

        Args:
            view: The view, with the decision's random generator.
            worker_id: The slot that gets them.
            donor: The checkpoint from which the slot continues.
            meta_params: The old ones, mostly those of the donor.
            *others: Further arguments of `mutate_fn`.

        Raises:
            TypeError: `mutate_fn` returned None.
        """
        given = copy.deepcopy((meta_params, *others))
        keywords = {
            name: view.rng if name == "rng" else _context(view, worker_id, donor)
            for name in self._takes
        }
        changed = self._mutate_fn(*given, **keywords)
        if changed is None and meta_params is not None:
            raise TypeError(
                f"mutate_fn must return the new meta_params, got None for "
                f"{meta_params!r}. Does it change its argument and return nothing?"
            )
        return changed

    def copy(
        self,
        view: PopulationView,
        worker_id: int,
        donor: Checkpoint,
        reason: str,
        meta_params: Any = None,
    ) -> Branch:
        """Return a branch to a donor, with explored hyperparameters.

        Args:
            view: The view.
            worker_id: The slot that copies; or one that explores by itself, and is its
                own donor.
            donor: The checkpoint to copy. The branch begins at its resume point: there
                the weights are that it was trained from, if it has none itself.
            reason: A text for people who read the history.
            meta_params: The hyperparameters to explore from; None: the donor's.
        """
        point = view.graph.resume_point(donor)
        origin = donor.meta_params if meta_params is None else meta_params
        return Branch(point, self(view, worker_id, point, origin), reason)

    def back(
        self,
        view: PopulationView,
        worker_id: int,
        checkpoint: Checkpoint,
        reason: str = "went back, having diverged",
    ) -> Branch:
        """Return a branch to the last checkpoint that did not diverge, explored.

        Args:
            view: The view.
            worker_id: The slot that goes back.
            checkpoint: Where the slot stands; it may have diverged.
            reason: A text for people who read the history.
        """
        # A checkpoint without a value may come after one that diverged.
        valued = view.graph.newest_value(checkpoint) or checkpoint
        point = view.graph.resume_point(valued)
        changed = self(view, worker_id, point, point.meta_params)
        return Branch(point, changed, reason)


def _context(
    view: PopulationView, worker_id: int, donor: Checkpoint
) -> MutationContext:
    valued = view.graph.newest_value(donor)
    score = view.score(donor if valued is None else valued)
    return MutationContext(worker_id, donor, donor.step, score, view)


def _taken(mutate_fn: MutateFn, others: Collection[str]) -> Collection[str]:
    """Return which of rng and context a function gets, which it does by name.

    Raises:
        TypeError: It needs another argument, or takes one of these without its name.
    """
    try:
        parameters = inspect.signature(mutate_fn).parameters.values()
    except (TypeError, ValueError):  # A built-in function may have no signature.
        return ()
    found = [p.name for p in parameters if p.name in _BY_NAME and p.kind in _NAMED]
    needed = [
        p.name
        for p in parameters
        if p.name not in found and p.default is p.empty and p.kind not in _SEVERAL
    ]
    surplus = needed[1 + len(others) :]
    if surplus:
        passed = ", ".join(("meta_params", *others))
        raise TypeError(
            f"mutate_fn gets {passed}, and by name rng and context, if it has them; it "
            f"also needs {', '.join(surplus)}. Name the random generator rng and the "
            "record of the decision context, or give the others a default."
        )
    by_position = [p.name for p in parameters if p.kind in _BY_POSITION]
    misplaced = [name for name in by_position[: 1 + len(others)] if name in found]
    if misplaced:
        first = ", ".join(("meta_params", *others))
        raise TypeError(
            f"mutate_fn gets {first} first, got {misplaced[0]} in the place of one of "
            f"them. Write mutate_fn({first}, {misplaced[0]})."
        )
    return found


_KINDS = inspect.Parameter
_BY_POSITION = (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD)
_NAMED = (_KINDS.POSITIONAL_OR_KEYWORD, _KINDS.KEYWORD_ONLY)
_SEVERAL = (_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD)
