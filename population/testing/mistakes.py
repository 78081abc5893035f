"""Likely mistakes: decisions that raise nothing, and are hardly ever meant.

Each can be meant, by a policy that goes back on purpose or that keeps what is worse for
its diversity: then `allow` names it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

from population.base.types import Branch, Retire
from population.testing import draws, lost
from population.testing.breach import Breach
from population.testing.observed import Move, Observation, Observations, observe
from population.testing.promises import watch
from population.testing.ranked import CLEAR, is_ranked
from population.testing.runner import Case

PLACES = "places for ids"
NOT_LIVE = "slots not live"
WORSE = "worse donors"
BEST = "best replaced"
OLDER = "older checkpoints"
LOST = "lost hyperparameters"
SAME = "same draw"
Sightings = Iterator[tuple[int, str]]


class Mistake(NamedTuple):
    """A likely mistake.

    Attributes:
        kind: Its name, for `allow`.
        scripts: The kinds of scripts in which it is looked for.
        see: Yields the position and a description of each instance in a run.
        meant_by: Which policy means it; "": none.
    """

    kind: str
    scripts: Sequence[str]
    see: Callable[[Observations], Sightings]
    meant_by: str = ""

    def follows(self, known: Set[str], allowed: Set[str]) -> bool:
        """Whether it would only follow from mistakes that are known already."""
        if self.kind != PLACES:
            return False
        # Who brings slots back decides about others than the live ones, and who ranks
        # by something else than the score means another order.
        return not known.isdisjoint({WORSE, BEST}) or bool(
            allowed - {OLDER, LOST, SAME}
        )

    def find(self, case: Case) -> Breach | None:
        """Return the first instance in a case, or None."""
        if set(self.scripts) <= {"ranked", "nan", "away"} and not is_ranked(
            case.script
        ):
            return None
        for position, seen in self.see(case.once(decisions)):
            meant = f", as by {self.meant_by}" if self.meant_by else ""
            excuse = f"If that is meant{meant}, pass allow={self.kind!r}."
            return Breach(f"{seen} {excuse}", position)
        return None


def decisions(case: Case) -> Observations:
    """Return the decisions of a run; workers wait as they should if they have ranks."""
    if is_ranked(case.script):
        return observe(case, draws.are_alike)
    return case.once(watch).decisions


def moves_of(case: Case) -> list[Move]:
    """Return the branches and retirements of a run."""
    return [move for seen in case.once(decisions) for move in seen.moves]


def places(found: Observations) -> Sightings:
    """A place in a list of some slots was taken for a worker id, in all decisions."""
    away = [seen for seen in found if len(seen.live) < len(seen.scores)]
    yield from _places(
        [(seen, move) for seen in away for move in _branches(seen)],
        lambda seen: seen.live,
        "view.live was",
    )
    with_nan = [seen for seen in found if len(_finite(seen)) < len(seen.live)]
    yield from _places(
        [(seen, m) for seen in with_nan for m in _branches(seen) if m.is_copy],
        _finite,
        "those with a finite score were",
    )


def _places(
    moves: Sequence[tuple[Observation, Move]],
    ids: Callable[[Observation], Sequence[int]],
    what: str,
) -> Sightings:
    """Yield decisions that make sense only if places in a list are worker ids.

    Args:
        moves: The decisions while the list was shorter than the population.
        ids: Returns the list: the worker ids that are at its places.
        what: The list in words.
    """
    wrong = [(s, m) for s, m in moves if _is_nonsense(s, m.worker_id, m.donor)]
    if not any(_is_worse(s, m.worker_id, s.scores[m.donor]) for s, m in wrong):
        return
    for target, donor in itertools.product((_id_at, _same, _place_of), repeat=2):
        pairs = [
            (s, target(ids(s), m.worker_id), donor(ids(s), m.donor)) for s, m in moves
        ]
        if any(t is None or d is None or _misses(s, t, d) for s, t, d in pairs):
            continue
        for seen, move in wrong:
            listed = ids(seen)
            yield (
                seen.position,
                f"{_copied(move)}, {_scores(seen, move)}, while {what} "
                f"{list(listed)}. If places in that list are worker ids it makes "
                f"sense: with ({target(listed, move.worker_id)}, "
                f"{donor(listed, move.donor)}) for ({move.worker_id}, {move.donor}). "
                "view.steps and view.scores are indexed by worker id; so should what "
                "you keep of them be. With live = np.array(view.live) and order = "
                "np.argsort(view.scores[live]), the worker ids are live[order], not "
                "order.",
            )
        return


def not_live(found: Observations) -> Sightings:
    """A slot was branched that is retired, or was given up."""
    for seen in found:
        for move in seen.moves:
            if isinstance(move.decision, Branch) and move.worker_id not in seen.live:
                why = "its slot is retired, and trains again by this"
                if move.worker_id in seen.given_up:
                    why = "its slot was given up, and no worker trains it"
                yield (
                    seen.position,
                    f"worker {move.worker_id} was branched at step {move.own.step}, "
                    f"but view.live is {list(seen.live)}: {why}. Decide only for "
                    "workers in view.live, also for that of the report or of the "
                    "failure. If it is a place in a list, list[place] is the id.",
                )


def worse(found: Observations) -> Sightings:
    """A member was replaced by a copy of one that is among the worse half."""
    for seen in found:
        for move in seen.moves:
            if not math.isfinite(move.score) or not move.is_copy:
                continue  # Nobody knows how good it is.
            if seen.failing == move.worker_id:
                continue  # It cannot go on as it is.
            if not _is_worse(seen, move.worker_id, _score_of(seen, move)):
                continue
            if not _is_old(move) and not seen.is_better(
                move.worker_id, move.donor, CLEAR
            ):
                continue  # By a mean, or at another step, it may be better.
            known = [w for w in seen.live if seen.scores[w] < math.inf]
            if 2 * seen.rank(_score_of(seen, move), CLEAR) >= len(known):
                yield (
                    seen.position,
                    f"{_copied(move)}, which is worse: {_scores(seen, move)}. Lower is "
                    "better in view.scores in every mode: take the donor from the "
                    "front of np.argsort(view.scores), the member to replace from the "
                    "end, and only if its score is higher than the donor's.",
                )


def best_replaced(found: Observations) -> Sightings:
    """The best live member was overwritten or retired, and no slot continues it."""
    for seen in found:
        if len(seen.live) > 1 and _nothing_is_left(seen):
            yield (
                seen.position,
                f"all live workers, {list(seen.live)}, were replaced or retired at "
                f"step {seen.moves[0].own.step}, and no slot continues any of them. "
                "Leave the best one out, or give one slot a copy of it.",
            )
        best = seen.best(CLEAR)
        kept = {m.donor for m in seen.moves if m.is_copy}
        for move in seen.moves:
            if best is None or move.worker_id != best or best in kept:
                continue
            if seen.failing == best:
                continue  # It cannot go on as it is.
            what = f"step {move.own.step}, with score {seen.scores[best]:.4g}, the best"
            if isinstance(move.decision, Retire):
                after = _trained_after(found, seen, best)
                if after is not None:
                    yield (
                        seen.position,
                        f"worker {best} was retired at {what} of all, and worker "
                        f"{after} trained on, whose score was {seen.scores[after]:.4g}."
                        " Lower is better in view.scores in every mode: retire from "
                        "the end of np.argsort(view.scores).",
                    )
            elif move.replaces:
                by = "fresh params" if move.donor < 0 else f"worker {move.donor}"
                yield (
                    seen.position,
                    f"worker {best} was replaced by {by} at {what} of all, and no slot "
                    "continues it. Leave the best one out, say by order[1:] of order = "
                    "np.argsort(view.scores), or give one slot a copy of it.",
                )


def older(found: Observations) -> Sightings:
    """A slot continues behind the newest checkpoint that its donor has."""
    for seen in found:
        for move in seen.moves:
            point, usable = move.point, move.usable
            if point is None or usable is None or not _is_old(move):
                continue
            if move.is_own and move.is_named and not _has_improved(seen, move):
                continue  # It goes back, to a checkpoint that it has kept.
            whose = move.worker_id if move.is_own else move.donor
            lost = usable.step - point.step
            better = ""
            if move.is_own and move.is_named:
                better = f", although it is better by now: {_scores(seen, move)}"
            yield (
                seen.position,
                f"worker {move.worker_id} continues from worker {point.worker_id} at "
                f"step {point.step}, but worker {whose} has params at step "
                f"{usable.step} by now: {lost} step{'s' * (lost > 1)} of training "
                f"{'are' if lost > 1 else 'is'} lost{better}. Branch to "
                f"view.graph.resume_point(view.newest({whose})).",
            )


def _branches(seen: Observation) -> list[Move]:
    return [m for m in seen.moves if isinstance(m.decision, Branch) and m.donor >= 0]


def _score_of(seen: Observation, move: Move) -> float:
    """Return the donor's score; that of now if an older checkpoint is the mistake."""
    now = seen.scores[move.donor]
    return now if _is_old(move) and math.isfinite(now) else move.score


def _nothing_is_left(seen: Observation) -> bool:
    """Whether what all live members had trained is given up, though some is finite."""
    kept = {m.donor for m in seen.moves if m.is_copy}
    gone = {
        m.worker_id for m in seen.moves if m.replaces or isinstance(m.decision, Retire)
    }
    return bool(_finite(seen)) and gone >= set(seen.live) and kept.isdisjoint(seen.live)


def _has_improved(seen: Observation, move: Move) -> bool:
    """Whether a slot that goes back is clearly better by now than it was there."""
    score = seen.scores[move.worker_id]
    return move.own.worker_id == move.worker_id and move.score > score + CLEAR


def _is_old(move: Move) -> bool:
    """Whether a slot continues behind the newest checkpoint that its donor has."""
    point, usable = move.point, move.usable
    return point is not None and usable is not None and point.step < usable.step


def _is_worse(seen: Observation, worker_id: int, score: float) -> bool:
    return score > seen.scores[worker_id] + CLEAR


def _is_nonsense(seen: Observation, worker_id: int, donor: int) -> bool:
    """Whether a slot that is not live, or a better one, would copy a donor."""
    if worker_id not in seen.live:
        return True
    return donor >= 0 and _is_worse(seen, worker_id, seen.scores[donor])


def _finite(seen: Observation) -> Sequence[int]:
    """Return the live slots with a finite score."""
    return [w for w in seen.live if math.isfinite(seen.scores[w])]


def _id_at(ids: Sequence[int], place: int) -> int | None:
    """Return the worker id at a place in a list, or None."""
    return ids[place] if place < len(ids) else None


def _same(ids: Sequence[int], worker_id: int) -> int | None:
    del ids
    return worker_id


def _place_of(ids: Sequence[int], worker_id: int) -> int | None:
    """Return the place of a worker id in a list, or None."""
    return ids.index(worker_id) if worker_id in ids else None


def _misses(seen: Observation, target: int, donor: int) -> bool:
    """Whether it would make no sense that one slot copies the other, live or not."""
    return target == donor or _is_worse(seen, target, seen.scores[donor])


def _trained_after(found: Observations, seen: Observation, best: int) -> int | None:
    """Return a clearly worse member that trains beyond a retired one, or None."""
    for w in found.live:
        is_worse = seen.scores[w] > seen.scores[best] + CLEAR
        if is_worse and w in seen.live and found.steps[w] > seen.steps[best]:
            return w
    return None


def _copied(move: Move) -> str:
    step = "" if move.point is None else f" at step {move.point.step}"
    donor = "fresh params" if move.donor < 0 else f"a copy of worker {move.donor}"
    return f"worker {move.worker_id} at step {move.own.step} became {donor}{step}"


def _scores(seen: Observation, move: Move) -> str:
    own, donors = seen.scores[move.worker_id], _score_of(seen, move)
    return f"their scores were {own:.4g} and {donors:.4g}"


_WORSE = Mistake(
    WORSE,
    ("ranked",),
    worse,
    "an evolution in which the worse may survive",
)
_BEST = Mistake(
    BEST,
    ("ranked",),
    best_replaced,
    "an evolution that replaces whole generations, or a trial that is complete",
)
MISTAKES: Sequence[Mistake] = (
    _WORSE,
    _BEST,
    Mistake(PLACES, ("away", "nan"), places),
    Mistake(
        NOT_LIVE,
        ("away", "usual"),
        not_live,
        "a policy that brings retired slots back",
    ),
    _WORSE._replace(scripts=("nan", "away")),
    _BEST._replace(scripts=("nan", "away")),
    Mistake(
        OLDER,
        ("ranked", "nan", "away"),
        older,
        "a policy that goes back, or has a hall of fame",
    ),
    Mistake(
        LOST,
        ("ranked", "usual"),
        lost.lost,
        "a policy whose hyperparameters are optional",
    ),
    Mistake(
        SAME,
        ("ranked", "usual"),
        draws.same_draws,
        "a policy that changes all members alike",
    ),
)
KINDS = tuple(dict.fromkeys(mistake.kind for mistake in MISTAKES))
