"""Copies JAX's settings of one thread to another one.

A context manager of JAX, such as `jax.enable_x64` or `jax.set_mesh`, is in force only
in the thread that enters it. Functions that an engine calls in other threads must run
with the caller's settings.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

logger = logging.getLogger("population")

Settings = Mapping[str, Any]
"""Values by the name of an option, as `jax_enable_x64`, or of a context without one."""

# Both act beyond the thread that enters them: the first is a state of the process, and
# the second only sets three others.
_ELSEWHERE = frozenset({"jax_thread_guard", "jax_transfer_guard"})
# The state of tracing is not a setting, but older releases keep it beside them.
_TRACING = frozenset({"trace_state", "axis_env_state"})
_PRIVATE = ("jax._src.config", "jax._src.mesh")
_OLD_MESH = "mesh_context_manager"
_CALLED = {
    _OLD_MESH: "a mesh",
    "device_context": "a mesh",
    "abstract_mesh_context_manager": "a mesh",
    "compute_on_context_manager": "compute_on",
    "xla_metadata_context_manager": "set_xla_metadata",
    "pallas_tpu_interpret_mode_context_manager": "force_tpu_interpret_mode",
}
_UNKNOWN = "a context of jax.make_user_context"
# Exceptions on entering a context that another release has changed, or that is refused.
REFUSED = (AttributeError, RuntimeError, TypeError, ValueError, Warning)


def taken(function: str) -> Settings:
    """Return the settings of this thread that a new thread does not have.

    It leaves out those that another thread cannot enter, with one warning.

    Args:
        function: The user's function that another thread calls, for the warning.
    """
    found, lost = examined()
    if lost:
        warn(function, lost)
    return found


def examined() -> tuple[Settings, list[str]]:
    """Find the settings of this thread that a new thread does not have.

    Returns:
        Those that another thread has entered in a test, and the names of the others.
    """
    if not is_loaded():
        return {}, []
    here, traced = values(), trace_context()
    found: dict[str, Any] = {}
    lost: list[str] = []

    def look() -> None:
        fresh = values()
        with ExitStack() as stack:
            for name, value in here.items():
                if name in fresh and not _same(fresh[name], value):
                    with contextlib.suppress(*REFUSED):
                        _enter(stack, name, value)
                    found[name] = value
            reached = values()
            lost.extend(name for name in found if not _same(reached[name], found[name]))
            if not lost and not _same(traced, trace_context()):
                lost.append(_UNKNOWN)

    thread = threading.Thread(target=look, name="population-settings", daemon=True)
    thread.start()
    thread.join()
    return {name: found[name] for name in found if name not in lost}, lost


@contextlib.contextmanager
def applied(settings: Settings) -> Iterator[None]:
    """Put the settings of another thread in force in this one."""
    with ExitStack() as stack:
        for name, value in settings.items():
            _enter(stack, name, value)
        yield


def warn(function: str, names: Iterable[str]) -> None:
    """Warn that some settings are not in force when a user's function is called."""
    logger.warning(
        "%s does not run under these settings of JAX, which hold where the engine was "
        "called: %s. Enter or set them within %s.",
        function,
        ", ".join(dict.fromkeys(_CALLED.get(name, name) for name in names)),
        function,
    )


def is_loaded() -> bool:
    """Whether JAX is loaded and has settings."""
    return hasattr(sys.modules.get("jax"), "config")


def values() -> dict[str, Any]:
    """Return all settings of this thread; JAX must be loaded."""
    return options() | {name: one.value for name, one in _contexts().items()}


def options() -> dict[str, Any]:
    """Return the settings that `jax.config.update` sets for a process."""
    found = sys.modules["jax"].config.values
    return {name: value for name, value in found.items() if name not in _ELSEWHERE}


def _enter(stack: ExitStack, name: str, value: Any) -> None:
    if name == _OLD_MESH:
        for mesh in value:
            stack.enter_context(mesh)
    else:
        stack.enter_context(_manager(name)(value))


def _manager(name: str) -> Callable[[Any], AbstractContextManager[Any]]:
    """Return the function that makes a context manager of a setting's value."""
    jax = sys.modules["jax"]
    if name in _contexts():
        context = _contexts()[name]
        return context if callable(context) else functools.partial(_swapped, context)
    short = name.removeprefix("jax_")
    for place in (jax, sys.modules.get("jax.experimental")):
        if callable(found := getattr(place, short, None)):
            return found  # type: ignore[no-any-return]
    return jax.config._value_holders[name]  # type: ignore[no-any-return]


@contextlib.contextmanager
def _swapped(context: Any, value: Any) -> Iterator[None]:
    before = context.swap_local(value)
    try:
        yield
    finally:
        context.set_local(before)


@functools.cache
def _contexts() -> dict[str, Any]:
    """Return JAX's values of a thread that are not options, in this release."""
    held = vars(sys.modules["jax"].config).get("_value_holders", {}).values()
    known = {id(holder) for holder in held}
    return {
        name: found
        for module in _PRIVATE
        for name, found in vars(sys.modules.get(module, object)).items()
        if hasattr(found, "swap_local") and not isinstance(found, type)
        if id(found) not in known and name not in _TRACING
    }


def trace_context() -> Any:
    """Return JAX's key for reuse of a traced function, or None in other releases."""
    config = sys.modules.get("jax._src.config")
    return getattr(config, "trace_context", lambda: None)()


def _same(one: Any, other: Any) -> bool:
    return one is other or bool(one == other)
