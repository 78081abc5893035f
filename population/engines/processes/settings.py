"""Puts the caller's settings of JAX in force in the processes that train.

A new process has neither the contexts of the caller nor its changes by
`jax.config.update`. It sets those that are plain data before it unpickles any array.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from population.engines import jax_settings

Plain = bool | int | float | str | None
Tell = Callable[[list[str]], None]

# Options for the devices of a process: the engine and the environment divide these.
_DEVICES = frozenset(
    {
        "jax_backend_target",
        "jax_cuda_visible_devices",
        "jax_oneapi_visible_devices",
        "jax_platform_name",
        "jax_platforms",
        "jax_rocm_visible_devices",
        "jax_xla_backend",
    }
)
# Options for communication with other processes, which a worker's does not need.
_OWN = frozenset(
    {
        "jax_cpu_collectives_implementation",
        "jax_cpu_enable_gloo_collectives",
        "jax_cpu_get_global_topology_timeout_minutes",
        "jax_cpu_get_local_topology_timeout_minutes",
        "jax_cross_host_transfer_socket_address",
        "jax_cross_host_transfer_timeout_seconds",
        "jax_cross_host_transfer_transfer_size",
        "jax_cross_host_transport_addresses",
        "jax_distributed_debug",
        "jax_enable_preemption_service",
        "jax_enable_recoverability",
        "jax_force_dcn_cross_host_transfers",
        "jax_mock_gpu_topology",
        "jax_share_binary_between_hosts",
        "jax_share_binary_between_hosts_timeout_ms",
        "mock_num_gpu_processes",
    }
)


class Sent(NamedTuple):
    """The settings of the caller, as it sends them to a process.

    Attributes:
        options: Plain values to set, by the option's name.
        compared: Texts of values that cannot be set in another process, by name. They
            are in force only in a process that has set the same values itself.
        others: Contexts of the caller that are not options.
    """

    options: Mapping[str, Plain]
    compared: Mapping[str, str]
    others: Sequence[str]


def sent() -> Sent:
    """Return the settings of this thread; none if JAX is not loaded."""
    if not jax_settings.is_loaded():
        return Sent({}, {}, ())
    found, lost = jax_settings.examined()
    options: dict[str, Plain] = {}
    compared: dict[str, str] = {}
    for name, value in jax_settings.options().items():
        if name in _DEVICES or not _is_plain(value):
            compared[name] = repr(value)
        elif name not in _OWN:
            options[name] = _plain(value)
    others = [name for name in (*found, *lost) if name not in jax_settings.options()]
    return Sent(options, compared, others)


class Received:
    """Puts the caller's settings in force in this process, once it has loaded JAX.

    Args:
        found: The settings that the caller has sent.
    """

    def __init__(self, found: Sent) -> None:
        self._sent = found
        self._tell: Tell | None = None
        self._watch = _Watch(self._put)

    def put_early(self) -> None:
        """Set the options that differ, now or as soon as JAX is loaded."""
        if jax_settings.is_loaded():
            self._put()
        else:
            sys.meta_path.insert(0, self._watch)

    def put(self, tell: Tell) -> None:
        """Set them again, as modules may set options on import; pass on failures.

        Args:
            tell: Called with the names of the settings that are not in force, if there
                are any, once JAX is loaded.
        """
        self._tell = tell
        if jax_settings.is_loaded():
            self._put()

    def _put(self) -> None:
        lost = [*_set(self._sent.options), *_differing(self._sent.compared)]
        lost += self._sent.others
        if lost and self._tell is not None:
            self._tell(lost)


class _Watch(importlib.abc.MetaPathFinder):
    """Calls a function when JAX has been loaded."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Return JAX's spec, with a loader that makes the call after the import."""
        del path, target
        if fullname != "jax":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_call(module: types.ModuleType) -> None:
                load(module)
                self._call()

            spec.loader.exec_module = load_and_call  # type: ignore[method-assign]
        return spec


def _set(options: Mapping[str, Plain]) -> Iterable[str]:
    """Set options that differ; yield the names of those that cannot be set."""
    present = jax_settings.options()
    for name, value in options.items():
        if name in present and _plain(present[name]) != value:
            with contextlib.suppress(*jax_settings.REFUSED):
                sys.modules["jax"].config.update(name, value)
            if _plain(jax_settings.options()[name]) != value:
                yield name


def _differing(compared: Mapping[str, str]) -> Iterable[str]:
    present = jax_settings.options()
    return [n for n in compared if n in present and repr(present[n]) != compared[n]]


def _plain(value: object) -> Plain:
    """Return a value as plain data: to unpickle an enumeration would load JAX."""
    if isinstance(value, enum.Enum):
        text = value.value if isinstance(value.value, str) else value.name.lower()
        return str(text)
    return value if _is_plain(value) else repr(value)  # type: ignore[return-value]


def _is_plain(value: object) -> bool:
    kinds = bool, int, float, str, types.NoneType
    return type(value) in kinds or isinstance(value, enum.Enum)
