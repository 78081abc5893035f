"""Hyperparameters over training steps: to look at, to send, to train with again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from population.base import codec
from population.base.refusals import shortly

_FORMAT = 1


class Schedule(Mapping[int, Any]):
    """Hyperparameters over training steps: `{step: meta_params}`, steps ascending."""

    def __init__(self, entries: Mapping[int, Any]) -> None:
        for step in entries:
            if type(step) is not int or step < 0:
                raise ValueError(
                    f"A schedule maps steps, ints of 0 or more, to meta_params; got "
                    f"the step {step!r}."
                )
        self._entries = dict(sorted(entries.items()))

    def __getitem__(self, step: int) -> Any:
        """Return the entry that begins at exactly this step."""
        return self._entries[step]

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Schedule({self._entries!r})"

    def at(self, step: int) -> Any:
        """Return the newest entry at or before `step`; None before the first."""
        return next(
            (meta for start, meta in reversed(self._entries.items()) if start <= step),
            None,
        )

    def to_json(self) -> str:
        """Return the schedule as JSON, an entry in a line.

        Plain meta_params are plain JSON. What JSON does not have, such as tuples and
        infinities, is written as in a journal, so that `from_json` returns the same.

        Raises:
            TypeError: A value cannot be stored; the message names the place.
        """
        entries = [
            f'{{"step": {step}, "meta_params": {codec.encode(meta, f"step {step}")}}}'
            for step, meta in self._entries.items()
        ]
        lines = ",\n  ".join(entries)
        return f'{{"format": {_FORMAT}, "schedule": [\n  {lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """Return the schedule of a text that `to_json` has made.

        Raises:
            ValueError: The text is no such schedule.
        """
        try:
            found = json.loads(text)
            if found["format"] > _FORMAT:
                raise ValueError(f"its format is {found['format']}, of a newer version")
            entries = {
                entry["step"]: codec.decode(json.dumps(entry["meta_params"]))
                for entry in found["schedule"]
            }
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            raise ValueError(
                "Schedule.from_json needs a text that to_json has written, got "
                f"{shortly(text)}: {error}"
            ) from error
        return cls(entries)

    def to_optax(self, name: str) -> Callable[[Any], Any]:
        """Return one hyperparameter as a schedule for optax, also under `jax.jit`.

        Args:
            name: The name of a hyperparameter that is a number; `a/b` is the key b of a
                dict a.

        Returns:
            A function of the number of updates, an int or an int array, that returns
            the value, a float32 array of the same shape: that of the newest entry at or
            before it. Before the first entry it is the value of that one.

        Raises:
            KeyError: An entry has no such hyperparameter; the message names those that
                there are.
            TypeError: It is not a number.
            ValueError: The schedule is empty.
        """
        if not self._entries:
            raise ValueError("to_optax needs a schedule with an entry, got none.")
        numbers = [_number(meta, name) for meta in self._entries.values()]
        # Counts of updates are int32: none comes to an entry beyond that.
        starts = [min(step, 2**31 - 1) for step in [*self._entries][1:]]
        import jax.numpy as jnp  # The decision core works without JAX.

        values = jnp.asarray(numbers, jnp.float32)
        later = jnp.asarray(starts, jnp.int32)

        def schedule(count: Any) -> Any:
            return values[jnp.searchsorted(later, jnp.asarray(count), side="right")]

        return schedule


def _leaves(tree: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree with their names, such as `a/b`."""
    if isinstance(tree, (dict, list, tuple)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, inner in items:
            yield from _leaves(inner, f"{place}/{key}" if place else str(key))
    else:
        yield place, tree


def _number(meta_params: Any, name: str) -> float:
    """Return the hyperparameter with a name, which must be a number."""
    known = dict(_leaves(meta_params, ""))
    if name not in known:
        raise KeyError(f"there is no {name!r}; there are {', '.join(known) or 'none'}")
    found = known[name]
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    if not is_number or math.isnan(found):
        raise TypeError(f"{name!r} must be a number, got {shortly(found)}.")
    return float(found)
