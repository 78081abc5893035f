"""Which params are kept although nothing needs them any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from population.journal.records import SaveRow


@dataclasses.dataclass(frozen=True)
class Keep:
    """What the params store keeps beside what is reachable, which it always keeps.

    `Keep()` keeps nothing else, `Keep(everything=True)` all. Files that loops save by
    themselves are never touched.

    Attributes:
        every: Those at steps that are a multiple of this.
        last: The newest so many of each generation.
        bytes: Of the arrays of all, reachable ones included: the oldest of those that
            are kept by the rules above go first. Alone, it keeps all that fit.
        everything: Remove nothing.
    """

    every: int | None = None
    last: int | None = None
    bytes: int | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        for name in ("every", "last", "bytes"):
            limit = getattr(self, name)
            if limit is not None and (type(limit) is not int or limit < 1):
                raise ValueError(
                    f"Keep.{name} must be a positive int or None, got {limit!r}."
                )
        others = (self.every, self.last, self.bytes)
        if type(self.everything) is not bool:
            raise ValueError(
                f"Keep.everything must be True or False, got {self.everything!r}."
            )
        if self.everything and any(limit is not None for limit in others):
            raise ValueError(
                "Keep(everything=True) must stand alone: it removes nothing. Leave out "
                "every, last and bytes, or leave out everything."
            )

    def unneeded(
        self, saves: Sequence[SaveRow], reachable: Collection[str]
    ) -> list[SaveRow]:
        """The saves to remove.

        Args:
            saves: All that the store keeps, oldest first.
            reachable: The encoded params that must stay.
        """
        if self.everything:
            return []
        spare = [save for save in saves if save.params not in reachable]
        wanted = {save.params for save in self._wanted(saves)}
        removed = [save for save in spare if save.params not in wanted]
        if self.bytes is None:
            return removed
        gone = {save.params for save in removed}
        size = sum(save.bytes for save in saves if save.params not in gone)
        for save in spare:
            if size <= self.bytes:
                break
            if save.params not in gone:
                removed.append(save)
                size -= save.bytes
        return removed

    def _wanted(self, saves: Sequence[SaveRow]) -> Iterator[SaveRow]:
        """The saves that the rules name, whether or not they fit."""
        if self.every is None and self.last is None:
            yield from saves if self.bytes is not None else ()
            return
        if self.every is not None:
            yield from (save for save in saves if save.step % self.every == 0)
        if self.last is not None:
            by_generation: dict[str, list[SaveRow]] = {}
            for save in saves:
                by_generation.setdefault(save.generation, []).append(save)
            for found in by_generation.values():
                found.sort(key=lambda save: save.step)
                yield from found[-self.last :]
