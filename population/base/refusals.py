"""Error messages for values that cannot be stored: their place, and what to do."""

from __future__ import annotations

import reprlib
import sys
from typing import Any

import numpy as np

from population.base.types import ActiveWorker, Checkpoint, Report

DEEPEST = 100  # Decoding takes up to four frames a container, and Python allows 1,000.
_brief = reprlib.Repr()  # Limits the depth, and survives a failing `__repr__`.
_brief.maxstring = _brief.maxother = _brief.maxlong = 60


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array or an array scalar, of NumPy or of JAX."""
    typed = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
    return typed and not isinstance(leaf, type)  # np.float32 is a type.


def readable(text: str) -> str:
    """Return text that a journal can keep, with lone surrogates as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def leads_out(path: str) -> bool:
    """Whether a path leads out of the folder that it is relative to."""
    return path.startswith("/") or ".." in path.split("/")


def refuse_lossy(array: Any, place: str) -> None:
    """Refuse an array that would lose its meaning as plain numbers.

    Args:
        array: An array, as `is_array` finds it.
        place: The name of the array in error messages.

    Raises:
        TypeError: The array is masked, holds dates or time spans, or has fields.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{place} cannot be stored: a masked array would lose its mask. Fill "
            "the masked places first: array.filled(fill_value)."
        )
    kind = getattr(array.dtype, "kind", "")  # The dtype of JAX keys has no kind.
    if kind == "M":
        raise TypeError(
            f"{place} cannot be stored: got a datetime64. Convert it to seconds since "
            "the epoch: (date - np.datetime64(0, 's')) / np.timedelta64(1, 's')."
        )
    if kind == "m":
        raise TypeError(
            f"{place} cannot be stored: got a timedelta64. Convert it to seconds as a "
            "float: span / np.timedelta64(1, 's')."
        )
    if getattr(array.dtype, "names", None) is not None:  # bfloat16 is of kind V, too.
        raise TypeError(
            f"{place} cannot be stored: a structured dtype would lose the names of "
            "its fields. Write it as a dict: "
            "{name: array[name] for name in array.dtype.names}."
        )


def refusal(tree: Any, place: str) -> str:
    """Return the error message for a value that cannot be stored."""
    if is_array(tree) and tree.shape != ():
        refuse_lossy(tree, place)
        return (
            f"{place} is an array of shape {tuple(tree.shape)}; arrays are allowed in "
            "params only. Write it as a list of numbers: array.tolist()."
        )
    if isinstance(tree, (Checkpoint, ActiveWorker, Report)):
        return (
            f"{place} is a {type(tree).__name__}, which cannot be stored. Store the "
            "name of its checkpoint: checkpoint.ref. view.graph.checkpoint(ref) finds "
            "it again, and its params are kept as long as a mutator's state names it."
        )
    if isinstance(tree, (set, frozenset)):
        return (
            f"{place} cannot be stored: got {type(tree).__name__} {shortly(tree)}. "
            "Write it as a list: sorted(...)."
        )
    if isinstance(tree, np.random.Generator):
        return (
            f"{place} cannot be stored: got a random generator. Take the random "
            "numbers of each decision from view.rng."
        )
    kinds = (dict, list, tuple, str, int, float)
    base = next((kind for kind in kinds if isinstance(tree, kind)), None)
    if base is not None:
        return (
            f"{place} is a {type(tree).__name__}, which would come back as a plain "
            f"{base.__name__}. Convert it with {base.__name__}(...) first."
        )
    return (
        f"{place} cannot be stored: got {type(tree).__name__} {shortly(tree)}. Use "
        "None, bool, int, float, str, lists, tuples and dicts."
    )


def too_deep(place: str) -> str:
    """Return the error message for a tree that is nested too deeply."""
    return (
        f"{_within(place)} is nested too deeply: at most {DEEPEST} containers may lie "
        "within each other, and none within itself. Make the tree flatter."
    )


def _within(place: str) -> str:
    return place if len(place) <= 100 else f"{place[:60]}...{place[-30:]}"


def refuse_long(number: int, place: str) -> None:
    """Refuse an int that has too many digits for JSON.

    Raises:
        TypeError: The int has too many digits; the message names its place.
    """
    try:
        repr(number)
    except ValueError as error:
        raise TypeError(
            f"{_within(place)} is an int of more than {sys.get_int_max_str_digits()} "
            "digits, which Python does not write. Store it as a str, in hex say."
        ) from error


def shortly(value: Any) -> str:
    """Return a value as one short line, however long, deep or broken it is."""
    try:
        text = _brief.repr(value)
    except ValueError:
        return "an int with too many digits to write"
    return text if len(text) <= 60 else text[:57] + "..."
