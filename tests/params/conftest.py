"""Each params store in turn."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.params.stores import ON_DISK, STORES


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Any:
    """An empty store."""
    return STORES[request.param](tmp_path)


@pytest.fixture(params=ON_DISK)
def on_disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Any:
    """A store that keeps its saves in `tmp_path`."""
    return ON_DISK[request.param](tmp_path)
