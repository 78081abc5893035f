"""Prefetching: the next batches are made while the device trains with the present ones.

Batches are functions of (seed, worker, step). So the next chunk is made on the guess
that every row continues where it is; for a row that was set back, its batches are made
again.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from population.engines import jax_settings
from population.engines.stacked.arguments import check_whole

logger = logging.getLogger("population")
Put = Callable[[Any], Any]
_HANDING_OVER_S = 2e-4  # Chunks that are made faster are not worth a thread.


class Feed(Protocol):
    """The batches of a program, chunk by chunk."""

    def take(self, steps: Sequence[int]) -> Any:
        """The batches of one chunk of steps, which starts at these steps of the rows.

        Raises:
            ValueError: A batch has another structure, shape or dtype than the first.
            Exception: What the user's function raises; a note names worker and step.
        """

    def close(self) -> None:
        """Stop preparing; waits for a batch that is being made."""


class Constant:
    """Every step gets the same data.

    Args:
        data: A pytree, on the device already.
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def take(self, steps: Sequence[int]) -> Any:
        """The data."""
        del steps
        return self._data

    def close(self) -> None:
        """Nothing is being prepared."""


class PerMember:
    """Batches for each member: leaves `[rows, length, ...]`.

    Args:
        batches: `(seed, worker_id, step)` to a pytree of arrays; called in this
            thread and another one, never in both at a time.
        seed: Its first argument.
        num_members: How many members there are.
        length: Steps of a chunk.
        put: Moves a pytree of NumPy arrays to the devices.
        rows: How many rows; those beyond the members repeat those of worker 0.
        ahead_s: Chunks that are made in fewer seconds are not made ahead.
    """

    def __init__(
        self,
        batches: Callable[[int, int, int], Any],
        seed: int,
        num_members: int,
        length: int,
        put: Put,
        *,
        rows: int | None = None,
        ahead_s: float = _HANDING_OVER_S,
    ) -> None:
        self._count = num_members
        rows = num_members if rows is None else rows

        def call(worker_id: int, step: int) -> Any:
            return batches(seed, worker_id, step)

        self._ahead = Prefetcher(_Batcher(call, "batches", rows, length), put, ahead_s)

    def take(self, steps: Sequence[int]) -> Any:
        """The batches that start at these steps; steps of padding are ignored."""
        return self._ahead.take(tuple(steps[: self._count]))

    def close(self) -> None:
        """Stop preparing; waits for a batch that is being made."""
        self._ahead.close()


class Shared:
    """Batches that all members share: leaves `[length, ...]`.

    Args:
        shared_batches: `(seed, step)` to a pytree of arrays; called in this
            thread and another one, never in both at a time.
        seed: Its first argument.
        length: Steps of a chunk.
        put: Moves a pytree of NumPy arrays to the devices.
        ahead_s: Chunks that are made in fewer seconds are not made ahead.
    """

    def __init__(
        self,
        shared_batches: Callable[[int, int], Any],
        seed: int,
        length: int,
        put: Put,
        *,
        ahead_s: float = _HANDING_OVER_S,
    ) -> None:
        def call(_: int, step: int) -> Any:
            return shared_batches(seed, step)

        def put_first(tree: Any) -> Any:
            return put(jax.tree.map(lambda array: array[0], tree))

        batcher = _Batcher(call, "shared_batches", 1, length)
        self._ahead = Prefetcher(batcher, put_first, ahead_s)

    def take(self, steps: Sequence[int]) -> Any:
        """The batches of all rows that train.

        Args:
            steps: The steps of these rows, all equal.

        Raises:
            ValueError: They are not equal.
        """
        if len(set(steps)) != 1:
            raise ValueError(
                "Rows that share batches must stand at the same step, got steps "
                f"{sorted(set(steps))}. Give those of the rows that are trained."
            )
        return self._ahead.take((steps[0],))

    def close(self) -> None:
        """Stop preparing; waits for a batch that is being made."""
        self._ahead.close()


def chunk_length(
    steps_per_report: int, bytes_per_step: int, limit: int = 256 * 2**20
) -> int:
    """The largest divisor of `steps_per_report` whose batches fit the limit, or 1.

    Logs a warning if that is much smaller than what would fit.

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
        call: `(worker_id, step)` to a batch.
        name: The argument of `vectorized.run`, for messages.
        rows: Rows of the arrays.
        length: Steps of a chunk.
    """

    def __init__(
        self, call: Callable[[int, int], Any], name: str, rows: int, length: int
    ) -> None:
        self._call, self.name = call, name
        self._rows, self.length = rows, length
        self._first: _Look | None = None

    def add(
        self, arrays: list[npt.NDArray[Any]], row: int, place: int, step: int
    ) -> None:
        """Make a batch and write it into a chunk; the first one creates its arrays."""
        try:
            leaves, tree = jax.tree.flatten(self._call(row, step))
            leaves = [np.asarray(leaf) for leaf in leaves]
        except BaseException as error:
            error.add_note(f"This was raised by {self._place(row, step)}.")
            raise
        self._check(_Look(tree, [(x.shape, _dtype(x)) for x in leaves]), row, step)
        if not arrays:  # New ones: on a CPU, those of the last chunk are in use.
            shape = self._rows, self.length
            arrays += [np.empty((*shape, *x.shape), _dtype(x)) for x in leaves]
        for array, leaf in zip(arrays, leaves, strict=True):
            if array.dtype != leaf.dtype:
                check_whole(leaf, self._place(row, step))
            array[row, place] = leaf

    def tree(self, arrays: Sequence[npt.NDArray[Any]], count: int) -> Any:
        """A chunk as a pytree; rows from `count` on repeat row 0."""
        look: Any = self._first
        for array in arrays:
            array[count:] = array[0]
        return jax.tree.unflatten(look.tree, arrays)

    def _check(self, look: _Look, row: int, step: int) -> None:
        """Refuse a batch of another structure, shape or dtype than the first."""
        if self._first is None:
            odd = [str(d) for _, d in look.leaves if not _is_numeric(d)]
            if odd:
                raise ValueError(
                    f"{self._place(row, step)} must return arrays of numbers or bools, "
                    f"got {odd}. Encode other values as numbers."
                )
            self._first = look
        if look != self._first:
            raise ValueError(
                "All batches must have the structure, shapes and dtypes of the first, "
                f"{self._first}; {self._place(row, step)} returned {look}. Pad what is "
                "smaller, or leave it out."
            )

    def _place(self, row: int, step: int) -> str:
        worker = f"worker {row}, " if self.name == "batches" else ""
        return f"{self.name} for {worker}step {step}"


class Prefetcher:
    """Makes the next chunk in a thread while the caller uses the present one.

    At most two chunks are in memory: the one that was taken, and the next.

    Args:
        batcher: Makes the batches.
        put: Moves a chunk to the devices; the thread calls it, too.
        ahead_s: Chunks that are made in fewer seconds are not made ahead.
    """

    def __init__(self, batcher: _Batcher, put: Put, ahead_s: float) -> None:
        self._batcher, self._put, self._ahead_s = batcher, put, ahead_s
        self._next: _Chunk | None = None
        self._orders: queue.SimpleQueue[_Chunk | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self, steps: tuple[int, ...]) -> Any:
        """The chunk that starts at these steps, one a row."""
        chunk = self._next
        if chunk is None:
            chunk = _Chunk(self._batcher, self._put, steps)
            chunk.make()
        try:
            batches = chunk.serve(steps)
        finally:
            self._next = None
            chunk.stop()  # After an interrupt, the thread may still be making it.
        if chunk.took_s >= self._ahead_s and not self._closed:
            later = tuple(step + self._batcher.length for step in steps)
            self._next = _Chunk(self._batcher, self._put, later)
            self._start()
            self._orders.put(self._next)
        return batches

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        if self._next is not None:
            self._next.stop()
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
        self._next = self._thread = None

    def _start(self) -> None:
        if self._thread is None:
            found = jax_settings.taken(self._batcher.name)
            self._thread = threading.Thread(
                target=_work,
                args=(self._orders, found),
                name="population-feed",
                daemon=True,
            )
            self._thread.start()
            weakref.finalize(self, self._orders.put, None)


class _Chunk:
    """The batches of one chunk, while they are made.

    Args:
        batcher: Makes the batches.
        put: Moves them to the devices.
        steps: The expected steps of the rows.

    Attributes:
        took_s: Seconds that making it took; infinite if it was not finished.
    """

    def __init__(self, batcher: _Batcher, put: Put, steps: tuple[int, ...]) -> None:
        self._batcher, self._put, self._steps = batcher, put, steps
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
            self._placed = self._put_all()
            self.took_s = time.perf_counter() - start_s
        except BaseException as error:  # Raised again by `serve`.
            self._error = error
        finally:
            self._done.set()

    def stop(self) -> None:
        """End `make` after the present batch."""
        self._stop.set()

    def serve(self, steps: tuple[int, ...]) -> Any:
        """Wait for the batches; those of rows at other steps are made again."""
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
        return self._put_all()

    def _put_all(self) -> Any:
        return self._put(self._batcher.tree(self._arrays, len(self._steps)))


def _work(
    orders: queue.SimpleQueue[_Chunk | None], found: jax_settings.Settings
) -> None:
    with jax_settings.applied(found):
        while (chunk := orders.get()) is not None:
            chunk.make()
            del chunk  # Else it stays in memory until the next one comes.


def _dtype(array: npt.NDArray[Any]) -> np.dtype[Any]:
    """The dtype that an array has on the device."""
    return np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    return bool(dtype == np.bool_ or jnp.issubdtype(dtype, np.number))
