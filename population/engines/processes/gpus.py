"""Divides the GPUs and their memory among the processes.

JAX reads this from the environment when it starts, so it is counted and divided here
without JAX.
"""

from __future__ import annotations

import itertools
import math
import os
import pathlib

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_NEW_MEMORY = "XLA_CLIENT_MEM_FRACTION"  # JAX refuses to be given both.
_BY_HAND = (
    _MEMORY,
    _NEW_MEMORY,
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
)
_DRIVER = pathlib.Path("/dev")
_JAX_TAKES = 0.75  # The share of a GPU's memory that JAX takes by default.


def environments(
    count: int,
    gpus_per_worker: float | None = None,
    memory_fraction: float | None = None,
) -> list[dict[str, str]]:
    """Return the environment variables to set for each process.

    Args:
        count: The number of processes.
        gpus_per_worker: Whole GPUs for each, or the share of one. None: all visible
            ones, divided evenly; without any this sets nothing.
        memory_fraction: The share of a GPU's memory that a process takes. None: JAX's
            default, divided among the processes on a GPU unless the environment sets
            the memory.

    Raises:
        ValueError: An argument is out of range, or there are too few GPUs.
    """
    _check(gpus_per_worker, memory_fraction)
    if gpus_per_worker is None:
        places, sharing = _evenly(count, visible())
    else:
        places, sharing = _by_share(count, float(gpus_per_worker), visible())
    by_hand = any(os.environ.get(name) for name in _BY_HAND)
    if memory_fraction is None and sharing > 1 and not by_hand:
        memory_fraction = _JAX_TAKES / sharing
    memory = {}
    if memory_fraction is not None:
        name = _NEW_MEMORY if os.environ.get(_NEW_MEMORY) else _MEMORY
        memory[name] = f"{memory_fraction:.4g}"
    return [({_VISIBLE: ",".join(p)} if p else {}) | memory for p in places]


def visible() -> list[str]:
    """Return the GPUs that this process may use, as CUDA names them."""
    named = os.environ.get(_VISIBLE)
    if named is not None:
        names = (name.strip() for name in named.split(","))
        # CUDA, too, reads the list up to the first invalid entry.
        return list(itertools.takewhile(lambda n: n and not n.startswith("-"), names))
    nodes = _DRIVER.glob("nvidia[0-9]*")
    return [str(index) for index, _ in enumerate(nodes)]


def _evenly(count: int, available: list[str]) -> tuple[list[list[str]], int]:
    """Return the GPUs of each process, and how many processes share one."""
    size = len(available)
    if count > size > 0:
        places = [[available[index % size]] for index in range(count)]
        return places, math.ceil(count / size)
    each = size // count
    return [available[i * each : (i + 1) * each] for i in range(count)], 1


def _by_share(
    count: int, share: float, available: list[str]
) -> tuple[list[list[str]], int]:
    """Return the same as `_evenly`, for a number of GPUs or a share of one each."""
    each = max(int(share), 1)
    sharing = int(1 / share + 1e-9) if share < 1 else 1  # 1 / (1 / 49) is below 49.
    needed = each * math.ceil(count / sharing)
    if needed > len(available):
        raise ValueError(
            f"{count} processes with gpus_per_worker={share:g} need {needed} GPUs, "
            f"found {len(available)}. Start fewer processes, as slots can take turns, "
            "or let processes share a GPU: gpus_per_worker=0.5."
        )
    firsts = [index // sharing * each for index in range(count)]
    return [available[first : first + each] for first in firsts], sharing


def _check(gpus_per_worker: float | None, memory_fraction: float | None) -> None:
    if gpus_per_worker is not None and not _is_fair(gpus_per_worker):
        raise ValueError(
            "gpus_per_worker must be a positive int, or a fraction such as 0.5, got "
            f"{gpus_per_worker!r}. Leave it out to divide the GPUs evenly."
        )
    if memory_fraction is None:
        return
    if not (_is_number(memory_fraction) and 0 < memory_fraction <= 1):
        raise ValueError(
            "memory_fraction must be a number above 0 and at most 1, got "
            f"{memory_fraction!r}. It is the share of a GPU's memory for each process."
        )


def _is_fair(share: float) -> bool:
    return _is_number(share) and (0 < share < 1 or (share >= 1 and share % 1 == 0))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
