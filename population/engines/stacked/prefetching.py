"""Prefetching: a thread makes the next batches while the device trains.

Batches are functions of (seed, worker, step). So it makes the next chunk on the guess
that every row continues from its present step; if a row was reset to another step, its
batches are made again.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from population.engines import jax_settings
from population.engines.stacked.arguments import Source, check_whole

logger = logging.getLogger("population")
Put = Callable[[Any], Any]
HANDING_OVER_S = 2e-4  # Chunks that take less time are not worth a thread.


class Constant:
    """Every step gets the same data.

    Args:
        data: A pytree, on the device already.
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def take(self, steps: Sequence[int]) -> Any:
        """Return the data."""
        del steps
        return self._data

    def close(self) -> None:
        """Do nothing: no thread prepares batches."""


def chunk_length(
    steps_per_report: int, bytes_per_step: int, limit: int = 256 * 2**20
) -> int:
    """Return the largest divisor of `steps_per_report` whose batches fit, or 1.

    Logs a warning if that is much smaller than the number of steps that would fit.

    Args:
        steps_per_report: Steps of a round.
        bytes_per_step: Bytes of the batches of all members at one step.
        limit: Bytes that a chunk may have.
    """
    fitting = limit // bytes_per_step if bytes_per_step else steps_per_report
    most = min(max(1, fitting), steps_per_report)
    found = next(k for k in range(most, 0, -1) if steps_per_report % k == 0)
    if 4 * found < most:
        logger.warning(
            "Batches of %d steps fit at a time, but the %d steps of a round can only "
            "be cut into pieces of %d, which takes more calls. A steps_per_report with "
            "more divisors is quicker.",
            most,
            steps_per_report,
            found,
        )
    return found


class _Look(NamedTuple):
    """The structure of batches, and each leaf's shape and dtype."""

    tree: Any
    leaves: list[tuple[tuple[int, ...], np.dtype[Any]]]

    def __str__(self) -> str:
        named = [f"{dtype}{list(shape)}" for shape, dtype in self.leaves]
        return str(jax.tree.unflatten(self.tree, named))


class _Batcher:
    """Makes batches, and stacks them in arrays.

    Args:
        source: The source of the batches.
        seed: The run's seed.
        worker_ids: The slots of the first rows.
        rows: Rows of the arrays.
        length: Steps of a chunk.
        put: Moves a chunk to the devices.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        worker_ids: Sequence[int],
        rows: int,
        length: int,
        put: Put,
    ) -> None:
        self.source, self._seed, self._put = source, seed, put
        self.worker_ids = worker_ids
        self._rows, self.length = rows, length
        self._first: _Look | None = None

    def add(
        self, arrays: list[npt.NDArray[Any]], row: int, place: int, step: int
    ) -> None:
        """Make a batch and write it into a chunk; the first one creates its arrays."""
        worker_id = self.worker_ids[row]
        batch = self.source.batch(self._seed, worker_id, step)
        try:
            leaves, tree = jax.tree.flatten(batch)
            leaves = [np.asarray(leaf) for leaf in leaves]
        except BaseException as error:
            self.source.note(error, worker_id, step)
            raise
        look = _Look(tree, [(x.shape, _dtype(x)) for x in leaves])
        self._check(look, self.source.place(worker_id, step))
        if not arrays:  # New ones: on a CPU, those of the last chunk are in use.
            shape = self._rows, self.length
            arrays += [np.empty((*shape, *x.shape), _dtype(x)) for x in leaves]
        for array, leaf in zip(arrays, leaves, strict=True):
            if array.dtype != leaf.dtype:
                check_whole(leaf, self.source.place(worker_id, step))
            array[row, place] = leaf

    def put(self, arrays: Sequence[npt.NDArray[Any]], count: int) -> Any:
        """Move a chunk to the devices; rows from `count` on repeat row 0.

        It has no axis of rows if all members share batches.
        """
        look: Any = self._first
        for array in arrays:
            array[count:] = array[0]
        if self.source.shared:
            arrays = [array[0] for array in arrays]
        return self._put(jax.tree.unflatten(look.tree, arrays))

    def _check(self, look: _Look, named: str) -> None:
        """Refuse a batch of another structure, shape or dtype than the first."""
        if self._first is None:
            odd = [str(d) for _, d in look.leaves if not _is_numeric(d)]
            if odd:
                raise ValueError(
                    f"{named} must return arrays of numbers or bools, got {odd}. "
                    "Encode other values as numbers."
                )
            self._first = look
        if look != self._first:
            raise ValueError(
                "All batches must have the structure, shapes and dtypes of the first, "
                f"{self._first}; {named} returned {look}. Pad what is smaller, or "
                "leave it out."
            )


class Prefetcher:
    """Makes the next chunk in a thread while the caller uses the present one.

    The leaves of a chunk are `[rows, length, ...]`; if all members share batches,
    `[length, ...]`. At most two chunks are in memory: the one that was taken, and the
    next.

    Args:
        source: The user's function; called in this thread and another one, never in
            both at a time.
        seed: The run's seed.
        worker_ids: By row, the slot that it trains.
        length: Steps of a chunk.
        put: Moves a pytree of NumPy arrays to the devices; the thread calls it, too.
        rows: The number of rows; those beyond the slots repeat the first row.
        ahead_s: Chunks that take fewer seconds are not made ahead.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        worker_ids: Sequence[int],
        length: int,
        put: Put,
        *,
        rows: int | None = None,
        ahead_s: float = HANDING_OVER_S,
    ) -> None:
        own = worker_ids[:1] if source.shared else worker_ids
        rows = len(own) if source.shared or rows is None else rows
        self._batcher = _Batcher(source, seed, own, rows, length, put)
        self._ahead_s = ahead_s
        self._next: _Chunk | None = None
        self._orders: queue.SimpleQueue[_Chunk | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self, steps: Sequence[int]) -> Any:
        """Return the chunk that starts at these steps of the slots.

        Args:
            steps: By worker id; those of slots without a row are ignored.

        Raises:
            ValueError: A batch has another structure, shape or dtype than the first; or
                rows that share batches are at different steps.
            Exception: The user's function has raised it; a note names worker and step.
        """
        if self._batcher.source.shared and len(set(steps)) != 1:
            raise ValueError(
                "Rows that share batches must stand at the same step, got steps "
                f"{sorted(set(steps))}. Give those of the rows that are trained."
            )
        own = tuple(steps[worker_id] for worker_id in self._batcher.worker_ids)
        chunk = self._next
        if chunk is None:
            chunk = _Chunk(self._batcher, own)
            chunk.make()
        try:
            batches = chunk.serve(own)
        finally:
            self._next = None
            chunk.stop()  # After an interrupt, the thread may still be making it.
        if chunk.took_s >= self._ahead_s and not self._closed:
            later = tuple(step + self._batcher.length for step in own)
            chunk = _Chunk(self._batcher, later)
            self._start()
            self._orders.put(chunk)
            self._next = chunk  # Last, so that no call waits for a chunk not ordered.
        return batches

    def close(self) -> None:
        """Stop preparing; waits for a batch that is being made."""
        self._closed = True
        if self._next is not None:
            self._next.stop()
        if self._thread is not None:
            self._orders.put(None)
            if self._thread.is_alive():  # An interrupt may have come before it began.
                self._thread.join()
        self._next = self._thread = None

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            found = jax_settings.taken(self._batcher.source.argument)
            self._thread = threading.Thread(
                target=_work,
                args=(self._orders, found),
                name="population-feed",
                daemon=True,
            )
            weakref.finalize(self, self._orders.put, None)
            self._thread.start()


Feed = Constant | Prefetcher


class _Chunk:
    """The batches of one chunk, while they are made.

    Args:
        batcher: Makes the batches.
        steps: The expected steps of the rows.

    Attributes:
        took_s: Seconds that making it took; infinite if it was not finished.
    """

    def __init__(self, batcher: _Batcher, steps: tuple[int, ...]) -> None:
        self._batcher, self._steps = batcher, steps
        self._arrays: list[npt.NDArray[Any]] = []
        self._made = 0  # Rows.
        self.took_s = math.inf
        self._placed: Any = None
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._done = threading.Event()

    def make(self) -> None:
        """Make one row after the other until all are made or `stop` is called."""
        start_s = time.perf_counter()
        try:
            for row, start in enumerate(self._steps):
                for place in range(self._batcher.length):
                    if self._stop.is_set():
                        return
                    self._batcher.add(self._arrays, row, place, start + place)
                self._made += 1
            self._placed = self._batcher.put(self._arrays, len(self._steps))
            self.took_s = time.perf_counter() - start_s
        except BaseException as error:  # Raised again by `serve`.
            self._error = error
        finally:
            self._done.set()

    def stop(self) -> None:
        """End `make` after the present batch."""
        self._stop.set()

    def serve(self, steps: tuple[int, ...]) -> Any:
        """Wait for the batches; make those of rows at other steps again."""
        if steps != self._steps:
            self.stop()
        self._done.wait()
        failed = slice(self._made, self._made + 1)  # No row, if `put` has failed.
        if self._error is not None and steps[failed] == self._steps[failed]:
            raise self._error
        if steps == self._steps:
            return self._placed
        self._placed = None
        for row, (start, guess) in enumerate(zip(steps, self._steps, strict=True)):
            if start != guess or row >= self._made:
                for place in range(self._batcher.length):
                    self._batcher.add(self._arrays, row, place, start + place)
        return self._batcher.put(self._arrays, len(self._steps))


def _work(
    orders: queue.SimpleQueue[_Chunk | None], found: jax_settings.Settings
) -> None:
    with jax_settings.applied(found):
        while (chunk := orders.get()) is not None:
            chunk.make()
            del chunk  # Else it stays in memory until the next order.


def _dtype(array: npt.NDArray[Any]) -> np.dtype[Any]:
    """Return the dtype that an array has on the device."""
    return np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    return bool(dtype == np.bool_ or jnp.issubdtype(dtype, np.number))
