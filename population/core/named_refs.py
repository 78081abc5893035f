"""Finds the checkpoints that a mutator's state names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from population.base.types import Ref


def refs_of(state: Any) -> Iterator[Ref]:
    """Yield all checkpoints that a mutator's state names."""
    inner: Iterable[Any] = ()
    if isinstance(state, Ref):
        yield state
    elif isinstance(state, Mapping):
        inner = (*state.keys(), *state.values())
    elif isinstance(state, (list, tuple)):
        inner = state
    elif dataclasses.is_dataclass(state):
        inner = [getattr(state, field.name) for field in dataclasses.fields(state)]
    for value in inner:
        yield from refs_of(value)
