"""The messages between the processes of a population, and their pickling."""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

from population.core.owners import Owner

# Exceptions that pickle, and the methods that it calls, may raise.
_UNPICKLABLE = (
    pickle.PickleError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


class Joined(NamedTuple):
    """The message that a process has opened the run, before it claims any slot.

    Attributes:
        owner: A holder of leases in the process.
    """

    owner: Owner


class Began(NamedTuple):
    """The message that a process has a slot, and begins to train."""


class Done(NamedTuple):
    """The message that a process's training function has returned.

    Attributes:
        overhead_s: Seconds inside poll and report.
    """

    overhead_s: float


class NotInForce(NamedTuple):
    """The message that a process trains without some of the caller's JAX settings.

    Attributes:
        names: The names of these settings.
    """

    names: tuple[str, ...]


class Failed(NamedTuple):
    """The message that a process ends with an exception.

    Attributes:
        place: The worker that raised it.
        error: The exception, pickled; empty if it cannot be pickled.
        text: The exception as text.
        trace: Its traceback.
    """

    place: str
    error: bytes
    text: str
    trace: str


def pack(parts: Mapping[str, Any]) -> bytes:
    """Pickle the objects that a new process needs.

    Raises:
        TypeError: A part cannot be pickled; the message names it.
    """
    try:
        packed = pickle.dumps(dict(parts))
    except _UNPICKLABLE:
        for name, part in parts.items():
            _check_travels(name, part, set())
        raise
    if b"__main__" in packed and not _main_can_be_imported():
        raise TypeError(
            "What travels to a process must be defined in a module that it can import, "
            "got something of a notebook, a console or `python -c`. Write `train` and "
            "what it needs into a file, and import it from there."
        )
    return packed


def pack_error(place: str, error: BaseException) -> Failed:
    """Return the message for a worker's exception, with its notes and traceback."""
    text = "".join(traceback.format_exception_only(error)).strip()
    trace = "".join(traceback.format_exception(error)).strip()
    try:
        packed = pickle.dumps(error)
    except _UNPICKLABLE:
        packed = b""
    return Failed(place, packed, text, trace)


def unpack_error(message: Failed, process: str) -> BaseException:
    """Return the exception of a message, with its worker and process as notes."""
    error: BaseException = RuntimeError(message.text)
    with contextlib.suppress(*_UNPICKLABLE):
        found = pickle.loads(message.error)
        error = found if isinstance(found, BaseException) else error
    error.add_note(f"This was raised by {message.place} of the population.")
    error.add_note(f"In {process}:\n\n{message.trace}")
    return error


def _check_travels(name: str, part: Any, seen: set[int]) -> None:
    """Raise for the innermost part that cannot be pickled."""
    if id(part) in seen:
        return
    seen.add(id(part))
    try:
        pickle.dumps(part)
    except _UNPICKLABLE as error:
        for inner_name, inner in _parts(part).items():
            _check_travels(f"{name}{inner_name}", inner, seen)
        raise TypeError(
            f"{name} must be something that pickle can send to another process, got "
            f"{part!r} ({error}). Define functions and classes at the top of a module; "
            "make inside train what cannot travel."
        ) from error


def _parts(part: Any) -> dict[str, Any]:
    """Return the parts of an object by their access paths, public attributes first."""
    if isinstance(part, dict):
        return {f"[{key!r}]": value for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return {f"[{index}]": value for index, value in enumerate(part)}
    if inspect.isroutine(part) or isinstance(part, type):
        return {}
    held = getattr(part, "__dict__", {})
    names = sorted(held, key=lambda name: name.startswith("_"))
    return {f".{name}": held[name] for name in names}


def _main_can_be_imported() -> bool:
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    return bool(getattr(main, "__spec__", None) or (file and os.path.exists(file)))
