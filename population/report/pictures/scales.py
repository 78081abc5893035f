"""The scale on which a hyperparameter or value is drawn, and the range of its axis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from population.report.hyperparameters import short
from population.report.pictures.averages import robust_range
from population.report.pictures.lineages import Floats, Ints
from population.report.pictures.ticks import LINEAR, LOG, NEAR_ONE
from population.space import Categorical, OneMinusLogUniform, Ordinal
from population.space.domain import Domain, is_number

CATEGORIES = "categories"
KINDS = (LINEAR, LOG, NEAR_ONE)
_DECADES = 2  # Numbers of an unknown space that span more are on a log scale.
_MARGIN = 0.04  # Of an axis, on each side.
_LEAST_DISTANCE = 1e-15  # From one.


@dataclasses.dataclass(frozen=True)
class Scale:
    """How the values of a hyperparameter become places on an axis.

    Attributes:
        kind: "linear", "log", "near one" or "categories".
        categories: The texts of categories in their order; their places are 0, 1, ...
        places: The place of each category by its key.
    """

    kind: str
    categories: tuple[str, ...] = ()
    places: dict[Any, int] = dataclasses.field(default_factory=dict)

    def numbers(self, column: npt.NDArray[Any]) -> Floats:
        """Return the places of the values of a column, `[N]`; NaN for none."""
        if self.kind == CATEGORIES:
            found = [self.places.get(_key(value), math.nan) for value in column]
            return np.array(found, np.float64)
        numbers = column.astype(np.float64)
        return np.where(np.isfinite(numbers), numbers, np.nan)


def scale_of(column: npt.NDArray[Any], domain: Domain | None = None) -> Scale:
    """Return the scale for the values of a hyperparameter.

    Args:
        column: The values of a run; None and NaN are none.
        domain: Its domain in the run's space. Without one, or with values outside it,
            numbers are on a logarithmic scale if they are positive and span more than
            two decades, and other values are categories.
    """
    listed: Sequence[Any] = ()
    if isinstance(domain, (Categorical, Ordinal)):
        listed = domain.values
    values = [value for value in column.tolist() if not _is_none(value)]
    keys = {_key(value): value for value in values}
    if listed and keys.keys() <= {_key(value) for value in listed}:
        return _categories(listed)
    if not all(isinstance(key, float) for key in keys):
        return _categories([*listed, *keys.values()])
    if domain is not None and domain.log and all(key > 0 for key in keys):
        return Scale(LOG)
    if isinstance(domain, OneMinusLogUniform) and all(key < 1 for key in keys):
        return Scale(NEAR_ONE)
    return Scale(LINEAR if domain is not None else _guessed(list(keys)))


def fitting(kind: str, numbers: Floats) -> str:
    """Return a kind of scale, or "linear" if no number has a place on it.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"The scale must be among {KINDS}, got {kind!r}.")
    return kind if on_scale(numbers, kind).any() else LINEAR


def on_scale(numbers: Floats, kind: str) -> npt.NDArray[np.bool_]:
    """Return which numbers have a place on a scale."""
    with np.errstate(invalid="ignore"):
        if kind == LOG:
            return np.isfinite(numbers) & (numbers > 0)
        if kind == NEAR_ONE:
            return np.isfinite(numbers) & (numbers < 1)
    return np.isfinite(numbers)


def forward(numbers: Any, kind: str) -> Floats:
    """Return places that are evenly spaced on the axis; all numbers must be on it."""
    given: Floats = np.asarray(numbers, np.float64)
    if kind == LOG:
        given = np.log10(np.maximum(given, np.finfo(np.float64).tiny))
    elif kind == NEAR_ONE:
        given = -np.log10(np.maximum(1 - given, _LEAST_DISTANCE))
    return given


def backward(places: Any, kind: str) -> Floats:
    """Return the numbers at places; the inverse of `forward`."""
    given: Floats = np.asarray(places, np.float64)
    if kind == LOG:
        given = 10.0 ** np.clip(given, -307, 307)
    elif kind == NEAR_ONE:
        given = 1 - 10.0 ** np.clip(-given, -307, 307)
    return given


def value_range(
    numbers: Floats, kind: str, always: Iterable[float] = ()
) -> tuple[float, float]:
    """Return the ends of an axis for reported values; a few far outliers are outside.

    Args:
        numbers: Those that are not on the scale do not count.
        kind: "linear", "log" or "near one".
        always: Numbers that must be inside.
    """
    shown = numbers[on_scale(numbers, kind)]
    if not shown.size:
        return (0.1, 10.0) if kind == LOG else (0.0, 1.0)
    kept = np.array([*always], np.float64)
    kept = kept[on_scale(kept, kind)]
    places = forward(shown, kind)
    return _padded(*robust_range(places, forward(kept, kind).tolist()), kind)


def full_range(numbers: Floats, scale: Scale) -> tuple[float, float]:
    """Return the ends of an axis that shows all values of a hyperparameter."""
    if scale.kind == CATEGORIES:
        return -0.5, max(len(scale.categories), 1) - 0.5
    shown = numbers[on_scale(numbers, scale.kind)]
    if not shown.size:
        return value_range(shown, scale.kind)
    places = forward(shown, scale.kind)
    return _padded(float(places.min()), float(places.max()), scale.kind)


def step_range(steps: Ints) -> tuple[float, float]:
    """Return the ends of an axis of steps: it shows three whole numbers or more."""
    if not len(steps):
        return 0.0, 2.0
    low, high = float(steps.min()), float(steps.max())
    if low == high:
        return low - 1, high + 1
    high = max(high, low + 2)
    margin = _MARGIN * (high - low) / 2
    return low - margin, high + margin


def _padded(low: float, high: float, kind: str) -> tuple[float, float]:
    """Return the ends of an axis from the places of the least and the largest value."""
    low, high = max(low, -1e300), min(high, 1e300)
    margin = _MARGIN * (high - low)
    if low == high:
        margin = math.log10(2) if kind != LINEAR else 0.1 * abs(low) or 1.0
    elif margin < 1e-12 * max(abs(low), abs(high)):  # Floats could not tell the ticks.
        margin = 1e-9 * max(abs(low), abs(high))
    ends = backward([low - margin, high + margin], kind)
    return float(ends[0]), float(ends[1])


def _guessed(numbers: Sequence[float]) -> str:
    """Return the kind of scale for numbers of which nothing else is known."""
    finite = [number for number in numbers if math.isfinite(number)]
    if finite and min(finite) > 0 and max(finite) / 10**_DECADES > min(finite):
        return LOG
    return LINEAR


def _categories(values: Iterable[Any]) -> Scale:
    """Return a scale with a place for each different value, in the given order."""
    first: dict[Any, Any] = {}
    for value in values:
        first.setdefault(_key(value), value)
    found = [short(value) for value in first.values()]
    if len(set(found)) < len(found):
        found = [repr(value) for value in first.values()]
    return Scale(
        CATEGORIES, tuple(found), {key: place for place, key in enumerate(first)}
    )


def _key(value: Any) -> Any:
    """Return what is equal for equal values; a float for numbers, also for bools."""
    return float(value) if is_number(value) or isinstance(value, bool) else repr(value)


def _is_none(value: Any) -> bool:
    return value is None or value != value
