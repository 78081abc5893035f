"""Fixtures of all tests."""

from __future__ import annotations

import hypothesis
import pytest

from tests.helpers import Clock

hypothesis.settings.register_profile(
    "fixed", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("fixed")


@pytest.fixture
def clock() -> Clock:
    """A clock that only moves when told."""
    return Clock()
