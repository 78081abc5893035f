"""What all loggers share: they are called with events, and closed at the end."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, Self

from population.base.types import Event
from population.space.trees import leaves


class EventLogger(abc.ABC):
    """Writes events; pass it as `on_event`. Safe for threads.

    `with` closes it at the end of the block. Events after that are ignored.
    """

    @abc.abstractmethod
    def __call__(self, event: Event) -> None:
        """Write an event."""

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is in memory and close the files; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def named(prefix: str, tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by name: `prefix/a/b`, or `prefix` for one leaf.

    Args:
        prefix: The beginning of each name.
        tree: meta_params or metrics; None has no leaves.
    """
    if isinstance(tree, Mapping) or type(tree) in (list, tuple):
        return {f"{prefix}/{name}": leaf for name, leaf in leaves(tree)}
    return {} if tree is None else {prefix: tree}


def why(event: Event) -> str:
    """Return the reason of an event; of a branch, that of the new generation."""
    if event.kind == "branch" and event.checkpoint is not None:
        return event.checkpoint.reason
    return event.reason
