"""Seconds of a save and a load of a large state, beside raw writes and reads.

Each way to save has its turn in one folder. A save is timed without a sync, and with
one; it is loaded, and removed before the next turn.
"""

from __future__ import annotations

import functools
import pathlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.record import Figure, paired, spread
from benchmarks.speed import savers

WITHIN = 1.3  # The goal, beside a raw write or read.
Timings = dict[str, list[float]]
_LIKE = "`FileParams.load`, into a tree `like`"
_SAVES = {savers.RAW: "a raw write", savers.OURS: "`FileParams.save`"}
_LOADS = {
    savers.RAW: "a raw read into new memory",
    savers.OURS: "`FileParams.load`",
}


def figures(
    names: Sequence[str], tree: savers.Tree, repetitions: int, folder: pathlib.Path
) -> Iterator[Figure]:
    """Seconds of a save with and without a sync, and of a load, beside raw ones."""
    there = [name for name in names if savers.is_installed(name)]
    saving, syncing, loading = timings(there, tree, repetitions, folder)
    megabytes = sum(leaf.nbytes for leaf in tree.values()) / 1e6
    size = f"{len(tree)} float32 arrays of {megabytes:.3g} MB in all"
    absent = [name for name in names if name not in there]
    yield from _table(f"A save of {size}", saving, _SAVES, absent)
    yield from _table(f"A save of {size}, synced", syncing, _SAVES, absent)
    yield from _table(f"A load of {size}", loading, _LOADS, absent)


def timings(
    names: Sequence[str], tree: savers.Tree, repetitions: int, folder: pathlib.Path
) -> tuple[Timings, Timings, Timings]:
    """The seconds of saves, of saves with a sync, and of loads, by saver."""
    ways = {name: savers.make(name, folder) for name in names}
    saving: Timings = {name: [] for name in names}
    syncing: Timings = {name: [] for name in names}
    loading: Timings = {}
    for name in names:
        loading[name] = []
        if name == savers.OURS:
            loading[_LIKE] = []
    order, shuffle = list(names), random.Random(savers.SEED).shuffle
    for saver in ways.values():  # Imports and threads are made here.
        _once(saver, {name: leaf[:8] for name, leaf in tree.items()})
    for _ in range(repetitions):
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            ways[name].save(tree)
            saved = time.perf_counter()
            ways[name].sync()
            syncing[name].append(time.perf_counter() - start)
            saving[name].append(saved - start)
            loading[name].append(_seconds(ways[name].load))
            if name == savers.OURS:
                restore = functools.partial(ways[name].load, tree)
                loading[_LIKE].append(_seconds(restore))
            ways[name].remove()
    return saving, syncing, loading


def _table(
    section: str,
    found: Timings,
    words: Mapping[str, str],
    absent: Sequence[str],
) -> Iterator[Figure]:
    for name, seconds in found.items():
        what = words.get(name, name)
        if not seconds:
            continue
        if name == savers.RAW:
            yield Figure(section, what, "s", spread(seconds))
            continue
        goal = WITHIN if name in (savers.OURS, _LIKE) else None
        ratio = paired(seconds, found[savers.RAW])
        yield Figure(section, what, "s", spread(seconds), ratio, goal)
    for name in absent:
        yield Figure(section, name, note="it is not installed")


def _once(saver: savers.Saver, tree: savers.Tree) -> None:
    saver.save(tree)
    saver.sync()
    saver.load()
    saver.load(tree)
    saver.remove()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    found = call()
    seconds = time.perf_counter() - start
    del found  # After the clock: its memory is given back here.
    return seconds
