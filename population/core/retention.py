"""What the params store keeps, and what of that it may remove."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence

from population.base import codec
from population.base.errors import damaged
from population.base.types import Saved, check_counts
from population.core.decoding import decode_params
from population.journal.base import Journal
from population.journal.records import Save

_SAVED = codec.encode(Saved(""))[:-3]  # How the texts of saved params begin.


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
        check_counts(self, "every", "last", "bytes")
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

    def unneeded(self, saves: Sequence[Save], reachable: Collection[str]) -> list[Save]:
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
        if self.bytes is not None:
            size = _bytes(saves) - _bytes(removed)
            for save in spare:
                if size > self.bytes and save.params in wanted:
                    removed.append(save)
                    size -= save.bytes
        return removed

    def _wanted(self, saves: Sequence[Save]) -> Iterator[Save]:
        """The saves that the rules name, whether or not they fit."""
        if self.every is None and self.last is None:
            yield from saves if self.bytes is not None else ()
            return
        if self.every is not None:
            yield from (save for save in saves if save.step % self.every == 0)
        if self.last is not None:
            by_generation: dict[str, list[Save]] = {}
            for save in saves:
                by_generation.setdefault(save.generation, []).append(save)
            for found in by_generation.values():
                found.sort(key=lambda save: save.step)
                yield from found[-self.last :]


class Saves:
    """What the params store keeps, read from the journal when it is needed.

    Args:
        journal: Where it is recorded.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[str, Save] | None = None
        self._unread: set[str] = set()  # Of which only the name is known.
        self._bytes = 0

    def mention(self, params: str) -> None:
        """A record names params: other connections may have saved them."""
        known = self._known
        if known is not None and params.startswith(_SAVED) and params not in known:
            self._unread.add(params)

    def add(self, save: Save) -> None:
        """The store keeps these params."""
        self.remove(save.params)
        if self._known is not None:
            self._known[save.params] = save
            self._bytes += save.bytes

    def remove(self, params: str) -> None:
        """The store does not keep these params any more."""
        if self._known is not None:
            self._unread.discard(params)
            if params in self._known:
                self._bytes -= self._known.pop(params).bytes

    def count(self) -> int:
        """How many there are."""
        return len(self._all()) + len(self._unread)

    def bytes(self) -> int:
        """The size of them all."""
        self.read()
        return self._bytes

    def read(self) -> list[Save]:
        """All of them, oldest first."""
        if self._unread:
            self._known = None
        return list(self._all().values())

    def _all(self) -> dict[str, Save]:
        if self._known is None:
            found = self._journal.all(Save)
            self._known = {s.params: s for s in found if s.params.startswith(_SAVED)}
            self._unread.clear()
            self._bytes = _bytes(self._known.values())
        return self._known


def _bytes(saves: Iterable[Save]) -> int:
    return sum(save.bytes for save in saves)


@functools.lru_cache(maxsize=16384)
def saved_text(path: str) -> str:
    """Saved params as the journal keeps them."""
    return codec.encode(Saved(path))


def path_of(text: str) -> str:
    """The path that a journal's text names.

    Raises:
        JournalError: It names nothing that was saved.
    """
    saved = decode_params(text)
    if type(saved) is not Saved:
        raise damaged(f"{text[:60]!r} names nothing that was saved")
    return saved.path
