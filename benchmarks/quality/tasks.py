"""Cheap tasks whose hyperparameters should change while a population trains.

Each trains all members at once, as rows of an array, so that a run takes milliseconds.
Larger values are better. What is random in a task follows from its seed alone, and
shares no numbers with the decisions of a run of that seed, `[seed, decision]`.

- *Toys* (PBT-Zoo, TMLR 2025, https://openreview.net/forum?id=3qmnxysNbi): theta falls
  from 0.9 at a rate that one hyperparameter h slows down; the value is 1.2 - theta^2.
  In the *deceptive* one, what is best at once is worst in the end.
- *Noisy*: the two curvatures of a quadratic with noisy gradients; the value is the
  logarithm of the loss, and reports of it are noisy.
- *Static*: an optimum that stays where it is; each change of a hyperparameter costs.
- *Track*: an optimum that moves.
- *Enduro*: PPO on Enduro-v0, its learning rate and discount in three segments, from a
  table of all 729 schedules with three seeds, which is not part of this repository
  (HPO-RL-Bench, https://github.com/releaunifreiburg/HPO-RL-Bench).
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from population.space import Ordinal, Uniform

Array = npt.NDArray[np.float64]
ROUNDS = 50


class Problem(abc.ABC):
    """One task with one seed.

    Attributes:
        space: The space of a member's hyperparameters.
        rounds: Rounds of a run.
        noise: The standard deviation of the noise of a report.
    """

    space: ClassVar[Any]
    rounds: int = ROUNDS
    noise: float = 0.0

    @abc.abstractmethod
    def begin(self, size: int) -> Array:
        """Return the first states, `[size, d]`."""

    @abc.abstractmethod
    def train(self, states: Array, settings: Array, number: int) -> Array:
        """Return the states after one more round.

        Args:
            states: `[M, d]`.
            settings: `[M, h]` hyperparameters, in the order of the space.
            number: How many rounds were before.
        """

    @abc.abstractmethod
    def values(self, states: Array) -> Array:
        """Return the true value of each state, `[M]`."""

    @abc.abstractmethod
    def statics(self) -> Array:
        """Return the settings among which the best static one is searched, `[K, h]`."""

    def again(self) -> Sequence[Problem]:
        """Return the problems on which a schedule that was found is tried again."""
        return [self]


@dataclasses.dataclass(frozen=True)
class Toy(Problem):
    """The toys: T = 1,000 steps in rounds of 20.

    Args:
        penalty: How much distance from the schedule costs; 0: the plain toy.
        exponent: Of the schedule, which falls from 1 to 0.
    """

    penalty: float = 0.0
    exponent: float = 1.0
    space: ClassVar[Any] = {"h": Uniform(1e-4, 1.1, start=(0.9, 1.1))}

    def begin(self, size: int) -> Array:
        """Theta, and the sum of the distances from the schedule."""
        return np.tile([0.9, 0.0], (size, 1))

    def train(self, states: Array, settings: Array, number: int) -> Array:
        """Let theta fall."""
        (theta, apart), h = states.T, settings[:, 0]
        if self.penalty:
            apart = apart + np.abs(h - (1 - number / ROUNDS) ** self.exponent)
        slope = np.maximum(2 - h - self.penalty * apart, 0)
        return np.stack([theta * (1 - 0.002 * slope) ** 20, apart], axis=1)

    def values(self, states: Array) -> Array:
        """At most 1.2."""
        return 1.2 - states[:, 0] ** 2

    def statics(self) -> Array:
        """A grid."""
        return np.linspace(1e-4, 1.1, 1101)[:, None]


def _unit(dimensions: int) -> Any:
    return {f"u{k}": Uniform(0, 1) for k in range(dimensions)}


@dataclasses.dataclass(frozen=True)
class Noisy(Problem):
    """Gradient descent on a quadratic with curvatures 1 and 0.02 and gradient noise.

    The state has the second moments of both coordinates; a round is 20 steps.

    Args:
        noise: The standard deviation of the noise of a report.
    """

    noise: float = 0.25
    space: ClassVar[Any] = _unit(1)

    def begin(self, size: int) -> Array:
        """The second moments."""
        return np.tile([1.0, 50.0], (size, 1))

    def train(self, states: Array, settings: Array, number: int) -> Array:
        """Descend; the hyperparameter is the learning rate on a logarithmic scale."""
        del number
        rate = 10 ** (3 * settings[:, :1] - 3)
        curvature, variance = np.array([1.0, 0.02]), np.array([1.0, 25.0])
        shrink = (1 - rate * curvature) ** 2
        power = shrink ** (1000 // ROUNDS)
        steady = (rate * curvature) ** 2 * variance / (1 - shrink)
        after: Array = power * states + steady * (1 - power)
        return after

    def values(self, states: Array) -> Array:
        """Minus the logarithm of the expected loss."""
        found: Array = -np.log10(0.5 * states[:, 0] + 0.01 * states[:, 1])
        return found

    def statics(self) -> Array:
        """A grid."""
        return np.linspace(0, 1, 1001)[:, None]


@dataclasses.dataclass(frozen=True)
class Static(Problem):
    """An optimum of two hyperparameters, at the same place throughout.

    Args:
        seed: Of the place.
        noise: The standard deviation of the noise of a report.
        change: What a round costs whose hyperparameters are not those of the last one,
            as a share of the most that a round can add.
    """

    seed: int
    noise: float = 0.03
    change: float = 0.3
    space: ClassVar[Any] = _unit(2)

    @functools.cached_property
    def optimum(self) -> Array:
        """`[2]`."""
        return np.random.default_rng([self.seed, 0, 2]).uniform(0.15, 0.85, 2)

    def begin(self, size: int) -> Array:
        """The sum so far, and the last hyperparameters."""
        return np.tile([0.0, np.nan, np.nan], (size, 1))

    def train(self, states: Array, settings: Array, number: int) -> Array:
        """Add what a round adds."""
        distance = ((settings - self.optimum) ** 2).sum(axis=1)
        changed = (settings != states[:, 1:]).any(axis=1) & (number > 0)
        gain = np.maximum(0, 1 - distance / 0.25) - self.change * changed
        total = states[:, 0] + gain / ROUNDS
        return np.concatenate([total[:, None], settings], axis=1)

    def values(self, states: Array) -> Array:
        """At most 1."""
        return states[:, 0]

    def statics(self) -> Array:
        """The optimum."""
        return self.optimum[None]


@dataclasses.dataclass(frozen=True)
class Track(Problem):
    """An optimum of three hyperparameters that moves, to a new goal every ten rounds.

    Args:
        seed: Of its path.
        speed: How far each coordinate moves at most in a round.
    """

    seed: int
    speed: float = 0.03
    space: ClassVar[Any] = _unit(3)

    @functools.cached_property
    def path(self) -> Array:
        """`[ROUNDS, 3]`."""
        rng = np.random.default_rng([self.seed, 0, 3])
        place, found = rng.random(3), []
        for number in range(ROUNDS):
            if number % 10 == 0:
                goal = rng.random(3)
            place = place + np.clip(goal - place, -self.speed, self.speed)
            found.append(place)
        return np.array(found)

    def begin(self, size: int) -> Array:
        """The sum so far."""
        return np.zeros((size, 1))

    def train(self, states: Array, settings: Array, number: int) -> Array:
        """Add what a round adds."""
        distance = ((settings - self.path[number]) ** 2).sum(axis=1, keepdims=True)
        after: Array = states + np.exp(-distance / 0.08) / ROUNDS
        return after

    def values(self, states: Array) -> Array:
        """At most 1."""
        return states[:, 0]

    def statics(self) -> Array:
        """A grid."""
        return np.array(list(itertools.product(np.linspace(0, 1, 21), repeat=3)))


_RATES, _DISCOUNTS = (-5, -4, -3), (0.95, 0.98, 0.99)
_PAIRS = list(itertools.product(_RATES, _DISCOUNTS))


@functools.cache
def enduro_returns(path: pathlib.Path) -> Array:
    """`[9, 9, 9, 3, 3]`: the return after each segment, by settings and PPO's seed.

    A return is the mean of the last five evaluations of a segment. Schedules that are
    equal up to there have equal ones. Four runs of the table are missing; the mean of
    the other seeds is in their place.

    Args:
        path: An NPZ file with the arrays `returns` `[R, 100]`, `lr` and `gamma`
            `[R, 3]` (exponents of ten, and discounts) and `seed` `[R]`.
    """
    table = np.load(path)
    curves = np.full((9, 9, 9, 3, 100), np.nan)
    columns = (table["returns"], table["lr"], table["gamma"], table["seed"])
    for returns, rates, discounts, seed in zip(*columns, strict=True):
        pairs = zip(rates.tolist(), discounts.tolist(), strict=True)
        first, second, third = (_PAIRS.index((int(a), round(b, 2))) for a, b in pairs)
        curves[first, second, third, int(seed)] = returns
    others = np.broadcast_to(np.nanmean(curves, axis=3, keepdims=True), curves.shape)
    curves = np.where(np.isnan(curves), others, curves)
    ends = [curves[..., end - 5 : end].mean(axis=-1) for end in (30, 60, 100)]
    return np.stack(ends, axis=-1)


@dataclasses.dataclass(frozen=True)
class Enduro(Problem):
    """Three segments of training PPO, looked up in the table.

    Args:
        path: See `enduro_returns`.
        seed: Of the seeds that PPO has for the members.
        remap: Permutes the learning rates and the discounts in each segment, so that
            another schedule is best; 0: none.
        only: All members have this seed of PPO; None: each has its own.
    """

    path: pathlib.Path
    seed: int
    remap: int = 0
    only: int | None = None
    rounds = 3
    space: ClassVar[Any] = {"rate": Ordinal(_RATES), "discount": Ordinal(_DISCOUNTS)}

    @functools.cached_property
    def places(self) -> npt.NDArray[np.int64]:
        """`[3, 9]`: which setting of the table each setting is in each segment."""
        found = []
        rng = np.random.default_rng([self.remap, 4])
        for _ in range(self.rounds):
            orders = [np.arange(3), np.arange(3)]
            if self.remap:
                orders = [rng.permutation(3), rng.permutation(3)]
            found.append((3 * orders[0][:, None] + orders[1]).ravel())
        return np.array(found)

    def begin(self, size: int) -> Array:
        """PPO's seed, and the settings of each segment so far; -1: not trained yet."""
        seeds = np.random.default_rng([self.seed, 0, 5]).integers(3, size=(size, 1))
        if self.only is not None:
            seeds[:] = self.only
        states: Array = np.concatenate([seeds, np.full((size, 3), -1)], axis=1)
        return states.astype(np.float64)

    def train(self, states: Array, settings: Array, number: int) -> Array:
        """Choose the settings of the next segment."""
        rates = np.searchsorted(_RATES, settings[:, 0])
        discounts = np.searchsorted(_DISCOUNTS, settings[:, 1])
        after = states.copy()
        after[:, 1 + number] = self.places[number][3 * rates + discounts]
        return after

    def values(self, states: Array) -> Array:
        """The return at the end of the last segment that was trained."""
        seeds, *parts = states.astype(int).T
        last = np.count_nonzero(states[:, 1:] >= 0, axis=1) - 1
        # What comes after a segment does not count: any setting will do.
        first, second, third = (np.maximum(part, 0) for part in parts)
        found: Array = enduro_returns(self.path)[first, second, third, seeds, last]
        return found

    def statics(self) -> Array:
        """All nine."""
        return np.array(_PAIRS)

    def again(self) -> Sequence[Problem]:
        """With each seed of PPO."""
        return [dataclasses.replace(self, only=seed) for seed in range(3)]
