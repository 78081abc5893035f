"""The saves in the params store, and the rules for which of them to remove."""

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
    """Which saves the params store keeps besides reachable ones, which always stay.

    `Keep()` keeps no others, `Keep(everything=True)` keeps all. The library never
    removes files that loops save themselves.

    Attributes:
        every: Keep the saves at steps that are a multiple of this.
        last: Keep this many of the newest saves of each generation.
        bytes: The most bytes of arrays of all saves, reachable ones included; beyond
            it the oldest kept by `every` and `last` go first. Alone: keep all that fit.
        everything: Whether to keep all saves.
        spare: Keep this many older saves on each slot's lineage, in case that its
            newest one is lost on the disk; they count as reachable.
    """

    every: int | None = None
    last: int | None = None
    bytes: int | None = None
    everything: bool = False
    spare: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "every", "last", "bytes")
        others = (self.every, self.last, self.bytes, self.spare or None)
        if type(self.spare) is not int or self.spare < 0:
            raise ValueError(
                f"Keep.spare must be an int of 0 or more, got {self.spare!r}."
            )
        if type(self.everything) is not bool:
            raise ValueError(
                f"Keep.everything must be True or False, got {self.everything!r}."
            )
        if self.everything and any(limit is not None for limit in others):
            raise ValueError(
                "Keep(everything=True) must stand alone: it removes nothing. Leave out "
                "every, last, bytes and spare, or leave out everything."
            )

    def unneeded(self, saves: Sequence[Save], reachable: Collection[str]) -> list[Save]:
        """Return the saves to remove.

        Args:
            saves: All saves in the store, oldest first.
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
        """Yield the saves that the rules keep, whether or not they fit in `bytes`."""
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
    """The saves in the params store, read from the journal on first use.

    Args:
        journal: The journal of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[str, Save] | None = None
        self._unread: set[str] = set()  # Saves of which only the params are known.
        self._bytes = 0

    def mention(self, params: str) -> None:
        """Note params that a record names: other connections may have saved them."""
        known = self._known
        if known is not None and params.startswith(_SAVED) and params not in known:
            self._unread.add(params)

    def add(self, save: Save) -> None:
        """Add a save to the list."""
        self.remove(save.params)
        if self._known is not None:
            self._known[save.params] = save
            self._bytes += save.bytes

    def remove(self, params: str) -> None:
        """Remove the save of these params from the list."""
        if self._known is not None:
            self._unread.discard(params)
            if params in self._known:
                self._bytes -= self._known.pop(params).bytes

    def count(self) -> int:
        """Return the number of saves."""
        return len(self._all()) + len(self._unread)

    def bytes(self) -> int:
        """Return the size of all saves in bytes."""
        self.read()
        return self._bytes

    def read(self) -> list[Save]:
        """Return all saves, oldest first."""
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
    """Encode saved params as the journal keeps them."""
    return codec.encode(Saved(path))


def path_of(text: str) -> str:
    """Return the path in a text of the journal.

    Raises:
        JournalError: The text is not of saved params.
    """
    saved = decode_params(text)
    if type(saved) is not Saved:
        raise damaged(f"{text[:60]!r} names nothing that was saved")
    return saved.path
