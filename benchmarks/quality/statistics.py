"""Means of independent repetitions, with intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy import stats

from benchmarks.record import Interval

CONFIDENCE = 0.95


def interval(samples: Sequence[float]) -> Interval:
    """The mean of independent samples, and its 95 % interval by Student's t.

    It assumes that the samples, for example one per seed, are roughly normal. Compare
    two arms within each seed, where both have the same randomness:
    `interval(differences(arm, reference))`.

    Args:
        samples: Finite numbers, at least two.

    Raises:
        ValueError: There are fewer samples, or one is not finite.
    """
    if len(samples) < 2 or not all(map(math.isfinite, samples)):
        raise ValueError(
            f"An interval needs two or more finite samples, got {list(samples)!r}."
        )
    mean = statistics.fmean(samples)
    error = statistics.stdev(samples) / math.sqrt(len(samples))
    margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(samples) - 1)) * error
    return Interval(mean, mean - margin, mean + margin)


def differences(samples: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Each sample minus the reference of the same repetition."""
    return [a - b for a, b in zip(samples, reference, strict=True)]
