"""Tests of engines do not use programs that an earlier test has compiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from population.engines.stacked import cache


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    """What a test compiles does not depend on the order of tests."""
    cache.clear()
    yield
    cache.clear()
