"""A params store in memory, for runs that end with the process."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

from jax.tree_util import keystr

from population.base.errors import LostParamsError
from population.params import checks, kinds, references, trees


class MemoryParams:
    """Keeps copies of params in the memory of the host."""

    checks_trees = True  # `save` makes the check of `checks.check`.

    def __init__(self) -> None:
        self._trees: dict[str, Any] = {}
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._trees)

    def save(self, name: str, tree: Any) -> str:
        """Save a copy, and return its name; the caller may then change the original."""
        checks.check(tree, plain=False)
        path = f"{name}-{next(self._count)}"
        found = {place: kinds.kind(leaf) for place, leaf in trees.by_path(tree).items()}
        kept = references.mapped(lambda _, leaf: kinds.to_host(leaf), tree)
        self._trees[path] = (kept, found)
        return path

    def load(self, path: str, like: Any = None) -> Any:
        """Return a copy of a saved tree, with JAX arrays where it had JAX arrays.

        Raises:
            LostParamsError: The tree was removed.
            MisfitError: It does not fit `like`.
        """
        try:
            tree, found = self._trees[path]
        except KeyError:
            raise LostParamsError(
                f"The params {path!r} are not in memory: they were removed. Go on from "
                "another checkpoint."
            ) from None
        if like is not None:
            return trees.fitted(trees.by_path(tree), like, path)
        return references.mapped(
            lambda place, leaf: kinds.as_kind(leaf, found.get(keystr(place), "plain")),
            tree,
        )

    def remove(self, path: str) -> None:
        """Remove a tree; do nothing if it does not exist."""
        self._trees.pop(path, None)

    def names(self, folder: str) -> list[str]:
        """Return the names of all trees that were saved as `folder/...`."""
        wanted = pathlib.PurePosixPath(folder)
        return sorted(
            path
            for path in list(self._trees)
            if pathlib.PurePosixPath(path).parent == wanted
        )
