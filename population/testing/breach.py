"""How a promise was broken."""

from __future__ import annotations

from typing import NamedTuple


class Breach(NamedTuple):
    """How a promise was broken.

    Attributes:
        seen: The observed behaviour, as text for people.
        position: The index of the event that showed it.
        error: The exception that was raised, or None.
    """

    seen: str
    position: int
    error: Exception | None = None
