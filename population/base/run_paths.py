"""The paths in the run folder for loops that save their weights themselves.

`Worker.save_to` is in the folder `own` of the run folder. The journal keeps such a path
relative to it, so that a run may be moved, copied, forked, or opened from elsewhere.
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
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # Longer than a drive letter.


def is_url(place: str) -> bool:
    """Whether a text begins like a URL, with a scheme of two letters or more."""
    return _URL.match(place) is not None


def absolute_folder(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Return a folder's absolute path, as the process may change its folder later."""
    return pathlib.Path(folder).absolute()  # Keeps `..`: `link/..` may be elsewhere.


def run_folder(log_dir: str | os.PathLike[str], what: str = "log_dir") -> pathlib.Path:
    """Return the absolute path of a run folder, after a check.

    Raises:
        TypeError: `log_dir` is not a path.
        ValueError: `log_dir` is empty, or the URL of a bucket.
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
    """Return the prefix of absolute paths in the folder `own`; None: no run folder."""
    return None if log_dir is None else str(log_dir / OWN_FOLDER) + os.sep


def encode(params: Any, own: str | None, *, scalars: bool = True) -> str:
    """Encode params as the journal keeps them.

    Args:
        params: Any storable value.
        own: The result of `own_folder`: the prefix of paths to keep as relative ones.
        scalars: Whether NumPy and JAX scalars become Python scalars, or are refused.

    Raises:
        TypeError, ValueError: A value cannot be stored; the message names its place.
    """
    kind = type(params)
    if kind is Saved or kind is InMemory:
        return codec.encode_params(params)
    text = codec.encode(params, "params", scalars=scalars)
    if own is None or (kind is str and not params.startswith(own)):
        return text
    return codec.encode(relative(params, own), "params", scalars=scalars)


def relative(params: Any, own: str) -> Any:
    """Return params with each path in the folder `own` as a `RunPath`, at any depth."""

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
    """Return params with each `RunPath` as an absolute path in the run folder."""

    def convert(leaf: Any) -> Any:
        if type(leaf) is not RunPath:
            return leaf
        path = f"{own}{leaf.path}"
        return path if leaf.kind == "text" else pathlib.Path(path)

    return params if own is None else _mapped(params, convert)


def paths_of(params: Any) -> list[str]:
    """Return the paths of all `RunPath` in params."""
    found: list[str] = []

    def collect(leaf: Any) -> Any:
        if type(leaf) is RunPath:
            found.append(leaf.path)
        return leaf

    _mapped(params, collect)
    return found


def _mapped(tree: Any, convert: Callable[[Any], Any]) -> Any:
    """Return a tree of plain containers with its leaves converted."""
    if type(tree) is dict:
        return {key: _mapped(inner, convert) for key, inner in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_mapped(inner, convert) for inner in tree)
    return convert(tree)
