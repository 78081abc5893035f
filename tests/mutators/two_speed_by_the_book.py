"""The rule of `TwoSpeedPBT`, written once more: slow, with its numbers in place.

It walks the graph for each score, and knows no failures, divergences or slots that end.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from typing import Any

from population import Branch, Mutator


@dataclasses.dataclass(frozen=True)
class Book:
    """The state: the round, and who is fast."""

    number: int
    fast: list[bool]


class ByTheBook(Mutator[Book]):
    """One step a round, all members in step."""

    def __init__(self, mutate_fn: Any, slow: int) -> None:
        self.mutate_fn = mutate_fn
        self.slow = slow

    def init(self, view: Any) -> Book:
        """A quarter is fast, unless all decide in each round."""
        size = len(view.steps)
        fast = round(size / 4) if self.slow > 1 else 0
        return Book(0, [w < fast for w in range(size)])

    def update(self, state: Book, report: Any, view: Any) -> Any:
        """Decide once all have reported the round."""
        del report
        if min(view.steps) <= state.number:
            return state, {}
        number, size = state.number + 1, len(view.steps)
        everyone = list(range(size))
        slow_ones = [w for w in everyone if not state.fast[w]]
        fast_ones = [w for w in everyone if state.fast[w]]
        core = everyone[size - int(size / 2) :] if self.slow > 1 else []
        window = 5 if self.slow >= 5 else self.slow
        fast = list(state.fast)
        if self.slow == 1 or number % (2 * self.slow) == 0:
            outside = [w for w in everyone if w not in core]
            taken = self.evolve(everyone, outside, window, view)
            for worker_id, (donor, _) in taken.items():
                fast[worker_id] = state.fast[donor]
            taken |= self.evolve(slow_ones, core, window, view)
        else:
            taken = self.evolve(fast_ones, fast_ones, 1, view)
            if number % self.slow == 0:
                taken |= self.evolve(slow_ones, slow_ones, window, view)
        branches = {w: branch for w, (_, branch) in taken.items() if branch}
        return Book(number, fast), branches

    def evolve(self, group: Any, among: Any, window: int, view: Any) -> dict[int, Any]:
        """The donor and the branch of each member that takes something."""
        if len(group) < 2:
            return {}

        def curve(worker_id: int, count: int) -> list[float]:
            walk = view.graph.walk(view.newest(worker_id))
            reports = (view.score(c) for c in walk if c.value is not None)
            return list(itertools.islice(reports, count))

        def triples(values: list[float]) -> Any:
            return zip(values, values[1:], values[2:], strict=False)

        def sigma() -> float:
            squares = [
                (a - 2 * b + c) ** 2
                for worker_id in range(len(view.steps))
                for a, b, c in triples(curve(worker_id, 10))
            ]
            return (statistics.median(squares) / 6 / 0.455) ** 0.5 if squares else 0.0

        score = {w: statistics.fmean(curve(w, window)) for w in group}
        ranked = sorted(group, key=lambda w: (score[w], w))
        size = len(ranked)
        donors = ranked[: -(-size // 8)]
        worst = ranked[size - -(-3 * size // 8) :]
        seen = [(w, view.newest(w).meta_params) for w in donors]
        taken: dict[int, Any] = {}
        for worker_id in ranked[len(donors) :]:
            if worker_id not in among:
                continue
            for _ in range(5):
                donor = donors[int(view.rng.integers(len(donors)))]
                gap = 2 * sigma() * (2 / window) ** 0.5
                if not score[worker_id] - score[donor] > gap:
                    taken.pop(worker_id, None)
                    break
                meta = view.newest(donor).meta_params
                if worker_id not in worst:
                    own = view.newest(worker_id)
                    branch = None if own.meta_params == meta else Branch(own, meta)
                    taken[worker_id] = donor, branch
                    break
                meta = self.mutate_fn(meta, view.rng)
                taken[worker_id] = donor, Branch(view.newest(donor), meta)
                if (donor, meta) not in seen:
                    seen.append((donor, meta))
                    break
        return taken
