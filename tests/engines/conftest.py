"""Tests of engines do not use what an earlier one has compiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from population.engines.stacked import cache


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    """Which functions are compiled does not depend on the order of tests."""
    cache.clear()
    yield
    cache.clear()
