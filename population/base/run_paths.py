"""Paths that the library makes up for loops which save their weights themselves.

`Worker.save_to` lies in the run folder. In the journal such a path is kept relative to
it, so that a run may be moved, copied, forked, or opened from another folder.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from population.base import codec
from population.base.refusals import leads_out
from population.base.types import InMemory, RunPath, Saved

OWN_FOLDER = "own"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # Longer than a drive's letter.


def is_url(place: str) -> bool:
    """Whether a place begins as a URL does: a scheme of two letters or more."""
    return _URL.match(place) is not None


def absolute_folder(folder: str | os.PathLike[str]) -> pathlib.Path:
    """The folder as a whole path, which stays when the process changes its own."""
    return pathlib.Path(folder).absolute()  # Not resolved: `link/..` is elsewhere.


def run_folder(log_dir: str | os.PathLike[str], what: str = "log_dir") -> pathlib.Path:
    """The whole path of a run folder: the process may change its own folder later.

    Raises:
        TypeError: If it is no path.
        ValueError: If it is empty, or the URL of a bucket.
    """
    if not isinstance(log_dir, (str, os.PathLike)):
        raise TypeError(
            f"{what} must be the path of a folder, got {type(log_dir).__name__}."
        )
    text = os.fsdecode(log_dir)
    if not text:
        raise ValueError(f"{what} must be the path of a folder, got an empty text.")
    if is_url(text):
        raise ValueError(
            f"{what} must be a local folder, got {text!r}. Only weights can be in a "
            f"bucket: params=OrbaxParams({text!r}) beside a local log_dir."
        )
    return absolute_folder(text)


def own_folder(log_dir: pathlib.Path | None) -> str | None:
    """How whole paths of the library's own begin in a run folder; None without one."""
    return None if log_dir is None else str(log_dir / OWN_FOLDER) + os.sep


def encode(params: Any, own: str | None, *, scalars: bool = True) -> str:
    """Params as the journal keeps them.

    Args:
        params: Any storable value.
        own: Where paths are the library's own, as `own_folder` says.
        scalars: Whether NumPy and JAX scalars become Python scalars, or are refused.

    Raises:
        TypeError, ValueError: If they cannot be stored; the message names the place.
    """
    kind = type(params)
    if kind is Saved or kind is InMemory:
        return codec.encode_params(params)
    text = codec.encode(params, "params", scalars=scalars)
    if own is None or (kind is str and not params.startswith(own)):
        return text
    return codec.encode(relative(params, own), "params", scalars=scalars)


def relative(params: Any, own: str) -> Any:
    """Params with the library's own paths as `RunPath`, also within containers."""

    def convert(leaf: Any) -> Any:
        is_text = type(leaf) is str
        if not is_text and not isinstance(leaf, pathlib.PurePath):
            return leaf
        path = str(leaf)
        rest = path.removeprefix(own)
        if rest == path or leads_out(rest):
            return leaf
        return RunPath(rest, "text" if is_text else "path")

    return _mapped(params, convert)


def absolute(params: Any, own: str | None) -> Any:
    """Params as they were reported, for where the run folder is now."""

    def convert(leaf: Any) -> Any:
        if type(leaf) is not RunPath:
            return leaf
        path = f"{own}{leaf.path}"
        return path if leaf.kind == "text" else pathlib.Path(path)

    return params if own is None else _mapped(params, convert)


def paths_of(params: Any) -> list[str]:
    """The paths of all `RunPath` in params."""
    found: list[str] = []

    def collect(leaf: Any) -> Any:
        if type(leaf) is RunPath:
            found.append(leaf.path)
        return leaf

    _mapped(params, collect)
    return found


def _mapped(tree: Any, convert: Callable[[Any], Any]) -> Any:
    """The tree of plain containers with its leaves converted."""
    if type(tree) is dict:
        return {key: _mapped(inner, convert) for key, inner in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_mapped(inner, convert) for inner in tree)
    return convert(tree)
