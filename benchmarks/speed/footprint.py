"""The most memory that a save and a load need, measured in a process of their own.

python -m benchmarks.speed.footprint FileParams 20 3750000 folder
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.record import HERE, Figure, spread
from benchmarks.speed import savers

MOST = 10.0  # The goal for a save, in per cent of the state.
_RESET = pathlib.Path("/proc/self/clear_refs")
# Every buffer is mapped by itself: memory that is given back does not stay in use.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


class Footprint(NamedTuple):
    """The memory of one saver.

    Attributes:
        save: The peak of a save beyond the memory before it, over the state's bytes.
        load: The same of a load, without the bytes that are loaded.
    """

    save: float
    load: float


def figures(
    names: Sequence[str],
    arrays: int,
    floats: int,
    repetitions: int,
    folder: pathlib.Path,
) -> Iterator[Figure]:
    """The extra memory of saves and loads, in per cent of the state."""
    sections = (
        "Memory beyond the state, of a save",
        "Memory beyond the result, of a load",
    )
    if not _RESET.exists():
        for section in sections:
            yield Figure(section, "all", note="only Linux can start a peak anew")
        return
    there = [name for name in names if savers.is_installed(name)]
    found: dict[str, list[Footprint]] = {name: [] for name in there}
    for _ in range(repetitions):
        for name in there:
            found[name].append(_child(name, arrays, floats, folder))
    for section, part in zip(sections, Footprint._fields, strict=True):
        for name in there:
            shares = spread([100 * getattr(one, part) for one in found[name]])
            goal = MOST if (name, part) == (savers.OURS, "save") else None
            yield Figure(section, name, "%", shares, at_most=goal)


def measured(saver: savers.Saver, tree: savers.Tree) -> Footprint:
    """The footprint of a saver in this process, which should do nothing else."""
    small = {name: leaf[:8] for name, leaf in tree.items()}
    saver.save(small)  # What is imported and started only once is no part of it.
    saver.load(small)
    saver.remove()
    size = sum(leaf.nbytes for leaf in tree.values())
    save = _extra(lambda: saver.save(tree), 0) / size
    load = _extra(lambda: saver.load(tree), size) / size
    saver.remove()
    return Footprint(save, load)


def _extra(call: Callable[[], object], result: int) -> int:
    """The most bytes in use during a call beyond those before it and its result.

    Args:
        call: What is called.
        result: The bytes of what it returns.
    """
    _RESET.write_text("5")  # The peak begins at the memory in use.
    before = _bytes("VmRSS")
    found = call()
    peak, after = _bytes("VmHWM"), _bytes("VmRSS")
    del found
    # What was in use before may have been given back late, and is no part of it.
    return peak - min(before + result, after)


def _bytes(field: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}: use another kernel.")


def _child(name: str, arrays: int, floats: int, folder: pathlib.Path) -> Footprint:
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | _ALLOCATOR | {"PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory(dir=folder) as own:
        command = [sys.executable, "-m", "benchmarks.speed.footprint", name]
        done = subprocess.run(
            [*command, str(arrays), str(floats), own],
            cwd=HERE.parent,
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
    return Footprint(*json.loads(done.stdout))


if __name__ == "__main__":
    name, arrays, floats, place = sys.argv[1:]
    saver = savers.make(name, pathlib.Path(place))
    print(json.dumps(measured(saver, savers.state(int(arrays), int(floats)))))
