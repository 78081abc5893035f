"""Marks in a store's folder: which journal records the run whose params are there.

If a run folder is copied without its store, two journals refer to the same saves. The
mark of a run says which of the two is its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
from typing import Any

from population.base import durable
from population.params import disk, folders

_TOKEN = re.compile(r"[0-9A-Za-z_-]+")


def claim(root: Any, run: str, text: str, *, in_bucket: bool = False) -> None:
    """Note in which journal a run is recorded; this replaces an earlier note.

    Args:
        root: The store's folder: a `pathlib` path, or an `epath` one in a bucket.
        run: The run's token.
        text: A description of the journal, stored as it is.
        in_bucket: Whether the folder is in a bucket, which replaces whole files.

    Raises:
        ValueError: `run` is not a token.
        ParamsError: The folder of the marks is a link that leads out of the store.
        OSError: The note cannot be written.
    """
    name = _name(run)
    if in_bucket:
        folder = root / disk.RUNS
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_content(root, text, in_bucket))
        return
    place = folders.to_write_in(root, disk.RUNS)
    durable.make_folder(place)
    draft = place / f".{name}.{secrets.token_hex(4)}.tmp"
    try:
        disk.write(draft, _content(root, text, in_bucket))
        os.replace(draft, place / name)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def claimed(root: Any, run: str, *, in_bucket: bool = False) -> str | None:
    """The text that `claim` last noted for a run, or None.

    None if there is no note that can be read, or if it was made in another folder, of
    which this one is a copy.

    Raises:
        ValueError: `run` is not a token.
    """
    name = _name(run)
    try:
        if in_bucket:
            content = (root / disk.RUNS / name).read_bytes()
        else:
            content = _read(root, name)
        found = json.loads(content)
        text = found["text"]
        here = found["root"] == _identity(root, in_bucket)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, LookupError, RecursionError):  # Not a mark.
        return None
    return text if here and type(text) is str else None


def _name(run: str) -> str:
    if type(run) is not str or not _TOKEN.fullmatch(run):
        raise ValueError(
            f"run must be a token of letters, digits, '_' and '-', got {run!r}. Pass "
            "the token with which the run's generation ids begin."
        )
    return f"{run}.json"


def _content(root: Any, text: str, in_bucket: bool) -> bytes:
    mark = {"text": text, "root": _identity(root, in_bucket)}
    return json.dumps(mark).encode()


def _identity(root: Any, in_bucket: bool) -> Any:
    """What a folder does not have in common with a copy of it."""
    if in_bucket:
        return os.fspath(root)
    found = os.stat(root)
    return [found.st_dev, found.st_ino]


def _read(root: pathlib.Path, name: str) -> bytes:
    with folders.opened(folders.to_write_in(root, disk.RUNS) / name) as stream:
        return stream.read()
