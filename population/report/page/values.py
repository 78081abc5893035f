"""Turns what a run holds into what JSON holds: short numbers, texts, columns."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from population.space import OneMinusLogUniform, domains

LONGEST = 500  # Characters of a text.
_DIGITS = 7
_MOST_LEVELS = 60  # Of a hyperparameter that is no number: the ticks of an axis.
_LOG_FROM = 30.0  # The ratio of the extremes from which an axis is logarithmic.


def number(value: Any) -> float | int | None:
    """Return a number with seven significant digits; None if it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    if float(value).is_integer() and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.{_DIGITS}g}")


def numbers(values: Iterable[Any]) -> list[float | int | None]:
    """Return numbers as `number` does."""
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return [number(value) for value in listed]


def text(value: Any) -> str:
    """Return a value as a text in one line, cut after `LONGEST` characters."""
    found = " ".join(str(value).split())
    return found if len(found) <= LONGEST else f"{found[: LONGEST - 1]}…"


def when(seconds: float | None) -> str:
    """Return a time in UTC as text; empty if it is unknown."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def column(
    name: str, values: NDArray[Any], scale: str = "", *, has_none: bool = False
) -> dict[str, Any]:
    """Return a column of hyperparameters or metrics for the page.

    Args:
        name: Its name.
        values: Its values; an array of objects is shown as texts.
        scale: The scale of its axis: "linear", "log" or "near one"; empty: as its
            values suggest.
        has_none: Whether None is a value, as of a choice; else it is a missing one.

    Returns:
        "name", "scale" and "values"; if they are texts, "scale" is "text", "levels"
        are the texts and "values" their indices. None where there is no value.
    """
    if values.dtype != object:
        scale = scale or guessed_scale(values)
        return {"name": text(name), "scale": scale, "values": numbers(values)}
    levels: dict[str, int] = {}
    indices: list[int | None] = []
    for value in values.tolist():
        if value is None and not has_none:
            indices.append(None)
            continue
        level = text(value)
        if level not in levels and len(levels) >= _MOST_LEVELS:
            level = "(another value)"
        indices.append(levels.setdefault(level, len(levels)))
    return {
        "name": text(name),
        "scale": "text",
        "values": indices,
        "levels": list(levels),
    }


def guessed_scale(values: NDArray[Any]) -> str:
    """Return the scale that shows all values: "linear", "log" or "near one"."""
    finite = values[np.isfinite(values.astype(float))].astype(float)
    if len(finite) == 0 or finite.min() <= 0:
        return "linear"
    low, high = finite.min(), finite.max()
    if high < 1 and high > 0.9 and (1 - low) / (1 - high) >= _LOG_FROM:
        return "near one"
    return "log" if high / low >= _LOG_FROM else "linear"


def scales(space: Any) -> Mapping[str, str]:
    """Return the scale of each hyperparameter of a space, by its name."""
    known = {} if space is None else domains(space)
    return {
        name: "log"
        if domain.log
        else ("near one" if isinstance(domain, OneMinusLogUniform) else "linear")
        for name, domain in known.items()
    }


def with_none(space: Any) -> frozenset[str]:
    """Return the names of the hyperparameters of a space that may be None."""
    known = {} if space is None else domains(space)
    return frozenset(name for name, domain in known.items() if domain.contains(None))


class Texts:
    """A list of different texts, for columns that repeat them.

    Attributes:
        listed: The texts; a column holds their indices.
    """

    def __init__(self) -> None:
        self.listed: list[str] = []
        self._known: dict[str, int] = {}

    def indices(self, values: Iterable[Any]) -> list[int]:
        """Return the index of each text; new ones are added to the list."""
        found = []
        for value in values:
            one = text(value)
            if one not in self._known:
                self._known[one] = len(self.listed)
                self.listed.append(one)
            found.append(self._known[one])
        return found
