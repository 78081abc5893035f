"""Hyperparameters as text and numbers by name, for tables and plots."""

from __future__ import annotations

import math
from typing import Any

from population.space.trees import leaves


def flattened(meta_params: Any) -> dict[str, Any]:
    """Return the hyperparameters by name; nested ones are named `a/b`."""
    return dict(leaves(meta_params))


def numbers(meta_params: Any) -> dict[str, float]:
    """Return the numeric hyperparameters by name."""
    return {
        name: float(value)
        for name, value in flattened(meta_params).items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def short(value: Any) -> str:
    """Return a value in a few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def one_line(meta_params: Any) -> str:
    """Return all hyperparameters in a line."""
    return "  ".join(f"{k} {short(v)}" for k, v in flattened(meta_params).items())
