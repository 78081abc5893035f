"""A model of a disk: what it may hold after a power cut.

The model takes the events of a record in their order. At any moment `after_cut` gives
a tree of files that the disk might hold if power were cut then. What POSIX promises
decides:

- **Data.** `fsync` and `fdatasync` of a file return when its content and its size are
  on the disk. Until then each write may survive or not, in any order: the system writes
  pages back when it likes. A page is written as it is at that moment, so within a block
  of 4096 bytes an earlier write never gets lost while a later one survives; the last
  page may be torn between two sectors of 512 bytes. The size may be that of any moment
  since the last sync: bytes that it has and that were never written back are zeros.
- **Truncation** of a file is one change of its metadata: it survives as a whole or not,
  and no write after it survives without it.
- **Names.** POSIX does not say that `fsync` of a file also keeps the file's name, and
  the manual of Linux says that it need not. So only `fsync` of the folder keeps its
  names: a file whose content was synced in a folder that was not is lost if its name
  is. Each name has its own fate: what was done to one name survives up to some moment,
  independent of all others. So an unlink may survive that was made after a rename that
  does not, and the two halves of a rename are independent: both names, or neither, may
  be left. File systems with a log are kinder, but nothing promises that.
- **Folders** are files: their own names lie in the folders above them.

A disk that `keeps_names` is kinder: as on ext4, a synced file keeps its name and those
of the folders above it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Iterable, Iterator

from tests.power_cut import record
from tests.power_cut.record import Event

BLOCK = 4096
SECTOR = 512
# What happens to data that were not synced.
LOST, KEPT, TORN = "lost", "kept", "torn"
DATA = LOST, KEPT, TORN
# What happens to names that were not synced; "removed": what was unlinked last is gone,
# and what was created or renamed since is lost.
REMOVED, RANDOM = "removed", "random"
NAMES = LOST, KEPT, REMOVED, RANDOM


class Change(tuple[int, bytes | None]):
    """A write that was not synced: its place and data; without data: the new size."""

    __slots__ = ()


@dataclasses.dataclass(eq=False)
class Node:
    """A file, a link or a folder.

    Attributes:
        is_folder: Whether it is a folder.
        target: Of a symbolic link, else None.
        synced: The content that no power cut can take.
        changes: What was done to a file since its last sync.
        names: Of a folder: for each name what it has meant since the last sync, the
            synced meaning first.
    """

    is_folder: bool = False
    target: bytes | None = None
    synced: bytes = b""
    changes: list[Change] = dataclasses.field(default_factory=list)
    names: dict[str, list[Node | None]] = dataclasses.field(default_factory=dict)

    def content(self) -> bytes:
        """Return the content of a file if nothing of it is lost."""
        found = bytearray(self.synced)
        for place, data in self.changes:
            _apply(found, place, data)
        return bytes(found)

    def sync(self) -> None:
        """Keep the content of a file, or the names of a folder."""
        self.synced, self.changes = self.content(), []
        present = {name: meanings[-1] for name, meanings in self.names.items()}
        self.names = {name: [node] for name, node in present.items() if node}


Tree = dict[str, bytes | pathlib.PurePosixPath | None]


class Disk:
    """A folder on a disk; it takes the events of a record one after the other.

    Args:
        keeps_names: Whether a synced file keeps its name, too.
    """

    def __init__(self, *, keeps_names: bool = False) -> None:
        self._keeps_names = keeps_names
        self._root = Node(is_folder=True)
        self._nodes: dict[int, Node] = {}

    def apply(self, event: Event) -> None:
        """Do what an event says.

        Raises:
            ValueError: The model does not know the operation, or the file.
        """
        if event.kind == record.MAKE_FOLDER:
            node = Node(is_folder=True) if event.name else self._root
            self._make(event, node)
        elif event.kind == record.CREATE:
            self._make(event, Node())
        elif event.kind == record.SYMLINK:
            self._make(event, Node(target=event.data))
        elif event.kind == record.WRITE:
            self._node(event).changes.append(Change((event.place, event.data)))
        elif event.kind == record.TRUNCATE:
            self._node(event).changes.append(Change((event.place, None)))
        elif event.kind == record.SYNC:
            self._sync(self._node(event))
        elif event.kind == record.SYNC_ALL:
            for node in list(self._all(self._root)):
                node.sync()
        elif event.kind == record.RENAME:
            self._set(event.other, self._present(event.name))
            if event.other != event.name:
                self._set(event.name, None)
        elif event.kind == record.LINK:
            self._set(event.other, self._present(event.name))
        elif event.kind == record.UNLINK:
            self._set(event.name, None)
        elif event.kind != record.MARK:
            raise ValueError(f"The model of the disk does not know {event.name}.")

    def after_cut(
        self, choose: random.Random, data: str = TORN, names: str = RANDOM
    ) -> Tree:
        """Return what the disk may hold if power is cut now.

        Args:
            choose: Draws what survives.
            data: What of the data that were not synced survives: one of `DATA`.
            names: What of the names that were not synced survives: one of `NAMES`.

        Returns:
            For each path the content of a file, None for a folder, or the target of a
            link.
        """
        tree: Tree = {}
        contents: dict[Node, bytes] = {}

        def visit(folder: Node, path: str) -> None:
            for name, meanings in sorted(folder.names.items()):
                node = meanings[_survivor(meanings, choose, names)]
                place = f"{path}/{name}" if path else name
                if node is None:
                    continue
                if node.is_folder:
                    tree[place] = None
                    visit(node, place)
                elif node.target is not None:
                    tree[place] = pathlib.PurePosixPath(node.target.decode())
                else:
                    if node not in contents:  # It may have two names.
                        contents[node] = _surviving(node, choose, data)
                    tree[place] = contents[node]

        visit(self._root, "")
        return tree

    def _make(self, event: Event, node: Node) -> None:
        self._nodes[event.file] = node
        if event.name:
            self._set(event.name, node)

    def _node(self, event: Event) -> Node:
        if event.file not in self._nodes:
            raise ValueError(f"The record has no beginning of the file of {event}.")
        return self._nodes[event.file]

    def _sync(self, node: Node) -> None:
        node.sync()
        if self._keeps_names and not node.is_folder:
            self._keep_name(self._root, node)

    def _keep_name(self, folder: Node, node: Node) -> bool:
        """Sync the names that lead to a node; return whether there are any."""
        found = False
        for name, meanings in folder.names.items():
            present = meanings[-1]
            if present is None:
                continue
            if present is node or (
                present.is_folder and self._keep_name(present, node)
            ):
                folder.names[name] = [present]
                found = True
        return found

    def _all(self, node: Node) -> Iterator[Node]:
        yield node
        for meanings in node.names.values():
            if meanings[-1] is not None:
                yield from self._all(meanings[-1])

    def _place(self, path: str) -> tuple[Node, str]:
        """Return the folder of a path, and the name in it."""
        *folders, name = path.split("/")
        node = self._root
        for part in folders:
            found = node.names[part][-1]
            if found is None:
                raise ValueError(f"The record has no beginning of {path}.")
            node = found
        return node, name

    def _present(self, path: str) -> Node:
        folder, name = self._place(path)
        found = folder.names[name][-1]
        if found is None:
            raise ValueError(f"The record has no beginning of {path}.")
        return found

    def _set(self, path: str, node: Node | None) -> None:
        folder, name = self._place(path)
        folder.names.setdefault(name, [None]).append(node)


def write(tree: Tree, folder: pathlib.Path) -> None:
    """Write a tree into a new folder."""
    folder.mkdir()
    for path, content in tree.items():
        place = folder / path
        if content is None:
            place.mkdir()
        elif isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.symlink_to(content)


def read(folder: pathlib.Path) -> Tree:
    """Return the tree in a folder, without files that `recorder.c` leaves out."""
    tree: Tree = {}
    for place in folder.rglob("*"):
        path = str(place.relative_to(folder))
        if place.is_symlink():
            tree[path] = pathlib.PurePosixPath(place.readlink())
        elif place.is_dir():
            tree[path] = None
        elif not path.endswith("-shm"):
            tree[path] = place.read_bytes()
    return tree


def positions(count: int, cuts: int, choose: random.Random) -> list[int]:
    """Return moments of cuts, spread evenly over a record: events before each."""
    step = (count + 1) / cuts
    return [min(count, int((i + choose.random()) * step)) for i in range(cuts)]


def cuts(
    events: list[Event],
    count: int,
    choose: random.Random,
    *,
    keeps_names: bool = False,
) -> Iterator[tuple[int, str, Tree]]:
    """Cut power at random moments, with every fate of data and names in turn.

    Args:
        events: The record.
        count: How many cuts to make.
        choose: Draws the moments and what survives.
        keeps_names: Whether a synced file keeps its name, too.

    Yields:
        For each cut the count of events before it, how data and names have fared, and
        what the disk holds.
    """
    disk = Disk(keeps_names=keeps_names)
    done = 0
    ways = [(data, names) for data in DATA for names in NAMES]
    order = [ways[number % len(ways)] for number in range(count)]
    choose.shuffle(order)
    moments = positions(len(events), count, choose)
    for moment, (data, names) in zip(moments, order, strict=True):
        _apply_all(disk, events[done:moment])
        done = moment
        tree = disk.after_cut(choose, data, names)
        yield moment, f"data {data}, names {names}", tree


def _apply_all(disk: Disk, events: Iterable[Event]) -> None:
    for event in events:
        disk.apply(event)


def _apply(content: bytearray, place: int, data: bytes | None) -> None:
    """Write to a content, or change its size if there are no data."""
    if data is None:
        del content[place:]
    if len(content) < place:
        content.extend(bytes(place - len(content)))
    if data is not None:
        content[place : place + len(data)] = data


def _survivor(meanings: list[Node | None], choose: random.Random, names: str) -> int:
    """Return which meaning of a name the disk has."""
    last = len(meanings) - 1
    if names == RANDOM:
        return choose.randint(0, last)
    if names == REMOVED:
        gone = [i for i, node in enumerate(meanings) if i and node is None]
        return gone[-1] if gone else 0
    return last if names == KEPT else 0


def _surviving(node: Node, choose: random.Random, data: str) -> bytes:
    """Return what the disk has of a file."""
    if data == KEPT:
        return node.content()
    return node.synced if data == LOST else _torn(node, choose)


def _torn(node: Node, choose: random.Random) -> bytes:
    """Return a content of which some changes have survived."""
    sizes = [i for i, (_, data) in enumerate(node.changes) if data is None]
    truncations = choose.randint(0, len(sizes))  # As many have survived.
    end = len(node.changes) if truncations == len(sizes) else sizes[truncations]
    begin = sizes[truncations - 1] + 1 if truncations else 0
    changes = node.changes[:end]
    left = _fates(changes, choose)
    content, whole = bytearray(node.synced), bytearray(node.synced)
    possible = [] if truncations else [len(whole)]
    for number, (place, data) in enumerate(changes):
        _apply(whole, place, data)
        if data is None:
            _apply(content, place, None)
        else:
            for start, piece in _pieces(place, data):
                block = start // BLOCK
                left[block] -= 1
                if left[block] >= 0:
                    _apply(content, start, piece)
                elif left[block] == -1:
                    _apply(content, start, _partly(start, piece, choose))
        if number >= begin - 1:
            possible.append(len(whole))
    _apply(content, choose.choice(possible), None)
    return bytes(content)


def _fates(changes: list[Change], choose: random.Random) -> dict[int, int]:
    """Return for each block how many of its writes survive."""
    writes: dict[int, int] = {}
    for place, data in changes:
        for start, _ in _pieces(place, data or b""):
            writes[start // BLOCK] = writes.get(start // BLOCK, 0) + 1
    return {block: choose.randint(0, count) for block, count in writes.items()}


def _pieces(place: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of a write that are in different blocks."""
    done = 0
    while done < len(data):
        size = BLOCK - (place + done) % BLOCK
        yield place + done, data[done : done + size]
        done += size


def _partly(start: int, piece: bytes, choose: random.Random) -> bytes:
    """Return the beginning of a piece, up to the end of a sector."""
    first = SECTOR - start % SECTOR
    ends = [0, *range(first, len(piece), SECTOR)]
    return piece[: choose.choice(ends)]
