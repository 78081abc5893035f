"""Chooses how the members of a run are batched."""

from __future__ import annotations

import collections
import contextlib
import logging
import statistics
from collections.abc import Iterator

from population.engines.stacked import autotune
from population.engines.stacked.builder import Builder
from population.engines.stacked.lease import EngineLease
from population.engines.stacked.programs import Programs

logger = logging.getLogger("population")
_LAST = 5  # Rounds whose median is the time of a round.
_LEAST = 3  # Rounds before anything is decided.


class Impossible(Exception):
    """The members cannot be trained in the present way, and there is another one."""


class Tuner:
    """Chooses the way of batching: a named, recorded or known one, or a likely one.

    It keeps a likely one until the rounds so far show that trying the others pays.

    Args:
        lease: The run.
        found: The user's functions, compiled.
        builder: Makes trials.
        asked: The user's argument: a way of batching, or "auto".

    Attributes:
        batching: The present way.
        settled: Whether no others will be tried.
        keep: Whether later processes should use it without a trial.
    """

    def __init__(
        self, lease: EngineLease, found: Programs, builder: Builder, asked: str
    ) -> None:
        self._lease, self._programs, self._builder = lease, found, builder
        self._rest = list(builder.ways)  # Those that have not failed.
        self._rounds = 0
        self._timed = 0  # Of them, those with the present number of rows.
        self._first_s = 0.0
        self._seconds: collections.deque[float] = collections.deque(maxlen=_LAST)
        self._trained_s = 0.0
        self.settled = True
        self.keep = len(builder.ways) > 1
        if asked != "auto":
            self.batching = asked
            return
        recorded = lease.population.facts(builder.fact).get(builder.fact)
        known = found.fastest.get(builder.place)
        if recorded is not None:
            self.batching = recorded
            logger.info("members are batched by %s, as before", self.batching)
        elif known is not None:
            self.batching = known
            logger.info("members are batched by %s, as in an earlier run", known)
        else:
            self.batching, reason = autotune.likely(
                builder.ways, builder.platform, found.member.cost
            )
            self.settled, self.keep = len(builder.ways) == 1, False
            logger.info("members are batched by %s, %s", self.batching, reason)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Distinguish, around training, an impossible way of batching from errors.

        Raises:
            Impossible: The first round failed, and there is another way: `instead`.
        """
        try:
            yield
        except autotune.IMPOSSIBLE as error:
            self._rest = [way for way in self._rest if way != self.batching]
            if self._rounds or self.settled or not self._rest:
                raise
            logger.warning("members cannot be batched by %s: %s", self.batching, error)
            raise Impossible from None

    def instead(self) -> str:
        """Switch to the first of the ways that have not failed."""
        self.batching = self._rest[0]
        return self.batching

    def trained(self, seconds: float) -> None:
        """Note the seconds that a round took."""
        self._rounds += 1
        self._timed += 1
        self._trained_s += seconds
        if self._timed == 1:
            self._first_s = seconds
            return
        self._seconds.append(seconds)
        # Kept for later runs, which do not compile and so cannot see it.
        key = self.batching, self._builder.place
        found = self._first_s - self._round_s
        known = self._programs.compile_s.get(key, 0.0)
        self._programs.compile_s[key] = max(known, found)

    def resized(self) -> None:
        """Note that the stack has another size: its first round compiles again."""
        self._timed = 0
        self._seconds.clear()

    def is_due(self) -> bool:
        """Whether it is time to try the other ways."""
        if self.settled or self._timed < _LEAST:
            return False
        compile_s = self._programs.compile_s[self.batching, self._builder.place]
        return autotune.pays(self._left_s(), compile_s, len(self._rest))

    def choose(self) -> str:
        """Try the ways, and switch to the fastest."""
        steps = self._builder.trial_length
        what = f"{steps} steps of all members"
        self.settled = True
        try:
            choice = autotune.fastest(self._builder.trial, what, self._rest)
        except autotune.IMPOSSIBLE as error:  # There is no room for copies.
            logger.warning("ways of batching cannot be tried: %s", error)
            return self.batching
        finally:
            self._builder.end_trials()
        self.batching, self.keep = choice
        if choice.keep:
            self._programs.fastest[self._builder.place] = choice.batching
        return self.batching

    def stay(self, batching: str, error: Exception) -> None:
        """Keep a way, as there is no memory to switch to the one that was chosen."""
        logger.warning("members cannot be batched by %s: %s", self.batching, error)
        self._programs.fastest.pop(self._builder.place, None)
        self.batching, self.keep = batching, False

    @property
    def _round_s(self) -> float:
        return statistics.median(self._seconds)

    def _left_s(self) -> float:
        """Estimate the seconds of training left from the limits in `stop`.

        A run without any of them counts as half done.
        """
        lease, stop = self._lease.population, self._lease.controller.stop
        left = [] if stop.seconds is None else [stop.seconds - lease.open_s]
        steps = [slot.newest.step for slot in lease.slots() if not slot.retired]
        if stop.steps is not None and steps:
            rounds = (stop.steps - min(steps)) / self._builder.steps_per_report
            left.append(rounds * self._round_s)
        if stop.reports is not None and steps:
            rounds = (stop.reports - lease.reports) / len(steps)
            left.append(rounds * self._round_s)
        return min(left, default=self._trained_s)
