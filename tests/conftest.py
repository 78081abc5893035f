"""Fixtures of all tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import jax
import pytest

from population.run import remover
from population.run.params_manager import ParamsManager
from tests.helpers import Clock, missing

hypothesis.settings.register_profile(
    "fixed", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("fixed")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture
def clock() -> Clock:
    """A clock that moves only when the test says so."""
    return Clock()


@pytest.fixture(autouse=True)
def every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves are looked through after each report, and the report waits for the rest."""

    def at_once(manager: ParamsManager, removal: Callable[[], object]) -> None:
        in_a_thread(manager, removal)
        manager.wait()

    in_a_thread = ParamsManager.queue
    monkeypatch.setattr(remover, "EVERY_S", 0.0)
    monkeypatch.setattr(ParamsManager, "queue", at_once)


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that several tests need are compiled once: else most time goes there."""
    before = {name: getattr(jax.config, name) for name in _OPTIONS}
    folder = str(tmp_path_factory.mktemp("compiled"))
    for name, value in (_OPTIONS | {"jax_compilation_cache_dir": folder}).items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests of a file."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the package playwright")
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        missing("chromium")
    with sync_playwright() as tools:
        found = tools.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()
