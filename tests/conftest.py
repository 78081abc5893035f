"""Fixtures of all tests."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterator

import hypothesis
import jax
import pytest

from tests.helpers import Clock

hypothesis.settings.register_profile(
    "fixed", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("fixed")
_OPTIONS = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


_UNTRACED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """A way to measure the coverage of all cases."""
    parser.addoption(
        "--cov-every-case",
        action="store_true",
        help="with --cov: measure all cases of a test, not the first alone",
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Coverage is measured in the first case of each test, and not under `no_cover`.

    Measuring doubles the time of a test. What the first cases reach is a lower bound of
    what all of them do.
    """
    if not config.pluginmanager.has_plugin("_cov") or config.option.cov_every_case:
        return
    seen: set[str] = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        item.stash[_UNTRACED] = test in seen or bool(
            item.get_closest_marker("no_cover")
        )
        seen.add(test)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """What is not measured is not traced; pytest-cov fails to do so under xdist."""
    if not item.stash.get(_UNTRACED, False):
        return (yield)
    before = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        threading.settrace(before[1])
        sys.settrace(before[0])


@pytest.fixture
def clock() -> Clock:
    """A clock that moves only when the test says so."""
    return Clock()


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
