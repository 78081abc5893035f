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

from population import codec
from population.base import Held, RunPath, Saved

OWN_FOLDER = "own"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # Longer than a drive's letter.


def run_folder(log_dir: str | os.PathLike[str], what: str = "log_dir") -> pathlib.Path:
    """The whole path of a run folder: the process may change its own folder later.

    Raises:
        TypeError: If it is no path.
        ValueError: If it is the URL of a bucket.
    """
    if not isinstance(log_dir, (str, os.PathLike)):
        raise TypeError(
            f"{what} must be the path of a folder, got {type(log_dir).__name__}."
        )
    text = os.fsdecode(log_dir)
    if _URL.match(text):
        raise ValueError(
            f"{what} must be a folder of this machine, where the journal's locks work, "
            f"got {text!r}. Keep only the weights in the bucket: "
            f"params=OrbaxParams({text!r}) beside a local {what}."
        )
    return pathlib.Path(os.path.abspath(text))


def encode(params: Any, log_dir: pathlib.Path | None, *, scalars: bool = True) -> str:
    """Params as the journal keeps them.

    Args:
        params: Any storable value.
        log_dir: The run folder; None: there is none.
        scalars: Whether NumPy and JAX scalars become Python scalars, or are refused.

    Raises:
        TypeError, ValueError: If they cannot be stored; the message names the place.
    """
    if type(params) in (Saved, Held):
        return codec.encode_params(params)
    text = codec.encode(params, "params", scalars=scalars)
    kept = params if log_dir is None else relative(params, log_dir)
    return text if kept is params else codec.encode(kept, "params", scalars=scalars)


def relative(params: Any, log_dir: pathlib.Path) -> Any:
    """Params with the paths in the run folder as `RunPath`.

    Args:
        params: Any storable value; paths in dicts, lists and tuples are found too.
        log_dir: The run folder.
    """
    folder = str(log_dir / OWN_FOLDER) + os.sep

    def convert(leaf: Any) -> Any:
        if type(leaf) is str and leaf.startswith(folder):
            return RunPath(leaf[len(folder) :], "text")
        if isinstance(leaf, pathlib.PurePath) and str(leaf).startswith(folder):
            return RunPath(str(leaf)[len(folder) :], "path")
        return leaf

    return _mapped(params, convert)


def absolute(params: Any, log_dir: pathlib.Path | None) -> Any:
    """Params as they were reported, for where the run folder is now."""
    if log_dir is None:
        return params
    folder = log_dir / OWN_FOLDER

    def convert(leaf: Any) -> Any:
        if type(leaf) is not RunPath:
            return leaf
        return str(folder / leaf.path) if leaf.kind == "text" else folder / leaf.path

    return _mapped(params, convert)


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
