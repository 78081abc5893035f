"""Where an axis has its ticks, and what is written there: at least three on any axis.

An axis is linear, logarithmic, or logarithmic in the distance from one ("near one").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

LINEAR, LOG, NEAR_ONE = "linear", "log", "near one"
LEAST = 3
_DENSE = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 2, 3, 4, 5, 6, 7, 8, 9))
_DENSER = ((1,), (1, 3), *_DENSE)
_DENSER_NEAR_ONE = ((1,), (1, 5), *_DENSE)
_SMALL, _LARGE = 1e-4, 1e6  # Numbers beyond are written with an exponent.


def ticks(
    low: float,
    high: float,
    kind: str = LINEAR,
    *,
    most: int = 7,
    whole: bool = False,
) -> list[float]:
    """Return ascending ticks within a range: three or more, if floats can.

    Args:
        low: The lower end of the axis.
        high: The upper end.
        kind: "linear", "log" or "near one".
        most: The number of ticks that fit; there may be a few more.
        whole: Whether only whole numbers make sense, if there are three.
    """
    found: list[float] = []
    if kind == LOG and low > 0:
        found = _logarithmic(low, high, _DENSER, most)
    elif kind == NEAR_ONE and high < 1:
        distances = _logarithmic(1 - high, 1 - low, _DENSER_NEAR_ONE, most)
        found = [_clean(1 - distance, 15) for distance in reversed(distances)]
    return found if len(found) >= LEAST else _linear(low, high, most, whole)


def texts(places: Sequence[float]) -> list[str]:
    """Return the text of each tick, with as many digits as tell them apart."""
    if not len(places):
        return []
    known = sorted(float(place) for place in places)
    gap = min(np.diff(known).tolist(), default=0.0) or abs(known[0])
    large = max(map(abs, known))
    exponent = large >= _LARGE or any(0 < abs(x) < _SMALL for x in known)
    for digits in range(1, 16):
        found = [number_text(float(place), digits, exponent) for place in places]
        pairs = zip(found, places, strict=True)
        if all(abs(float(text) - place) <= 1e-3 * gap for text, place in pairs):
            break
    return found


def number_text(number: float, digits: int, exponent: bool) -> str:
    """Return a number with so many significant digits, as 0.01 or as 1e-2."""
    if exponent and number and not 1e-3 <= abs(number) < 1e4:
        mantissa, _, power = f"{number:.{digits - 1}e}".partition("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(power)}"
    return np.format_float_positional(
        number, precision=digits, fractional=False, trim="-"
    )


def _logarithmic(
    low: float, high: float, denser: Sequence[Sequence[float]], most: int
) -> list[float]:
    """Return powers of ten, or multiples of them if these are too few."""
    bottom, top = math.floor(math.log10(low)), math.floor(math.log10(high))
    found: list[float] = []
    for multiples in denser:
        every = [
            _clean(m * 10.0**power, 6)
            for power in range(bottom, top + 1)
            for m in multiples
        ]
        found = [tick for tick in every if low <= tick <= high]
        if len(found) >= LEAST:
            break
    stride = max(1, math.ceil(len(found) / most))
    while stride > 1 and len(found[::stride]) < LEAST:
        stride -= 1
    return found[::stride]


def _linear(low: float, high: float, most: int, whole: bool) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten."""
    width = high - low
    if not math.isfinite(width) or width <= 0:
        return [low] if low == high else [low, 0.0, high]
    power, few = math.floor(math.log10(width)), list[float]()
    for exponent in range(power, power - 4, -1):
        for multiple in (5, 2, 1):
            step = multiple * 10.0**exponent
            if whole and step < 1:
                break
            found = _multiples(low, high, step, -exponent)
            if len(found) > LEAST:  # Preferably more than three.
                return found if len(found) <= most + 1 or not few else few
            few = found if len(found) == LEAST else few
    return few or (_linear(low, high, most, False) if whole else [low, high])


def _multiples(low: float, high: float, step: float, decimals: int) -> list[float]:
    """Return the multiples of a step within a range, and on its ends up to rounding."""
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    found = [round(place * step, decimals) for place in range(first, last + 1)]
    return list(dict.fromkeys(found))  # Some are equal if floats are too coarse.


def _clean(number: float, digits: int) -> float:
    """Return a number without the rounding errors of its last digits."""
    return float(f"{number:.{digits}g}")
