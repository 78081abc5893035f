"""Warns of the arguments of a run, at the line of the user who opens it."""

from __future__ import annotations

import sys
import warnings

_OWN = "population."


def warn(text: str) -> None:
    """Warn, with the line of the caller that has opened the run."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_OWN):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
