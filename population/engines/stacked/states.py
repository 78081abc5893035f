"""The states of all members, stacked or separate, and their training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from population.engines.stacked import programs, row_copies
from population.engines.stacked.layout import Flat
from population.engines.stacked.programs import Programs, Rows

Values = list[tuple[float, list[Any]]]
_CHUNKS = 64  # A chunk of copies is this fraction of all rows.
_LEAST = 8


class StackedStates:
    """States stacked along a first axis, trained by one program.

    Args:
        found: The user's functions, compiled.
        keys: `[R]` the slots' PRNG keys.
        batching: "vmap" or "map".
        length: Steps of a chunk.
        mesh: The devices.
        axes: Axes of the batches over rows and over steps.
        evaluation: The batch of `evaluate`.
    """

    def __init__(
        self,
        found: Programs,
        keys: Any,
        batching: str,
        length: int,
        mesh: Mesh,
        axes: tuple[int | None, int | None],
        evaluation: Any,
    ) -> None:
        way = batching, length, mesh, axes
        self._flat: Flat = ()
        self._train = found.stacked(*way, evaluates=False)
        self._finish = found.stacked(*way, evaluates=True)
        self._copies = programs.copies(mesh)
        self._rows_at = programs.sharding(mesh, rows=True)
        all_at = programs.sharding(mesh, rows=False)
        self._all_at = all_at
        self._keys = jax.device_put(keys, self._rows_at)
        self._evaluation = jax.device_put(evaluation, all_at)
        count = len(keys)
        self._old = jax.device_put(np.zeros(count, np.bool_), self._rows_at)
        self._chunk = max(_LEAST, count // _CHUNKS)
        self._count = count
        self._steps: Any = None
        self._rows: Any = None

    def begin(self, flat: Flat) -> None:
        """Take over these states, `[R, ...]` each; the caller no longer uses them."""
        self._flat = jax.device_put(flat, self._rows_at)  # `init` may ignore its key.
        self.put(0, self.take(0))  # All is compiled before the first round.
        nowhere = np.full(self._chunk, self._count, np.int32)
        self._flat = self._copies.move(self._flat, np.zeros_like(nowhere), nowhere)

    def wait(self) -> None:
        """Return once the devices are done."""
        self._steps.block_until_ready()

    def release(self) -> None:
        """Free the memory of the states and of their meta_params."""
        self._flat, self._rows = (), None

    def set_rows(
        self,
        steps: npt.NDArray[np.int32],
        scalars: Sequence[npt.NDArray[Any]],
        new: npt.NDArray[np.bool_],
    ) -> None:
        """Set steps and meta_params of all rows.

        Args:
            steps: `[R]` the steps that the states have.
            scalars: `[R]` each: meta_params.
            new: `[R]` whether these must be put into the optimiser's state.
        """
        # Copies: an array on a CPU device may share the caller's memory.
        place = functools.partial(jax.device_put, device=self._rows_at)
        self._steps = place(steps.copy())
        columns = tuple(place(column.copy()) for column in scalars)
        self._rows = Rows(columns, self._keys, place(new.copy()))

    def train(self, batches: Any) -> None:
        """Train all members for one chunk of steps."""
        self.wait()  # Else batches of many chunks would pile up.
        self._flat, self._steps = self._train(
            self._flat, self._steps, self._rows, batches, None
        )
        self._rows = self._rows._replace(new=self._old)

    def finish(self, batches: Any) -> Values:
        """Train the last chunk of a round; return all values with their metrics."""
        self._flat, self._steps, values, metrics = self._finish(
            self._flat, self._steps, self._rows, batches, self._evaluation
        )
        self._rows = self._rows._replace(new=self._old)
        columns = [column.tolist() for column in _fetched((values, *metrics))]
        return [(value, rest) for value, *rest in zip(*columns, strict=True)]

    def take(self, row: int) -> Flat:
        """Return a copy of a row's state."""
        return self._copies.take(self._flat, np.int32(row))

    def put(self, row: int, flat: Flat) -> None:
        """Copy a state into a row."""
        flat = jax.device_put(flat, self._all_at)
        self._flat = self._copies.put(self._flat, np.int32(row), flat)

    def move(self, sources: Mapping[int, int]) -> None:
        """Copy rows; `sources` maps each target to the row whose state it gets."""
        plan = row_copies.plan(sources, self._chunk)
        spared = [(target, self.take(source)) for source, target in plan.spared]
        for chunk in plan.chunks:
            pairs = np.full((2, self._chunk), self._count, np.int32)
            pairs[0] = 0
            pairs[:, : len(chunk)] = np.array(chunk).T
            self._flat = self._copies.move(self._flat, pairs[0], pairs[1])
        for target, flat in spared:
            self.put(target, flat)

    def host(self) -> Callable[[int], Flat]:
        """Read all states at once; return a function from a row to NumPy arrays."""
        arrays = tuple(map(on_host, self._flat))
        return lambda row: tuple(array[row] for array in arrays)

    def picked(self, rows: Sequence[int]) -> Flat:
        """Return the states of these rows for `begin`, one for each row of another.

        They are copied on the host: a gather over several devices adds zeros to them,
        which makes -0.0 positive.
        """
        places = np.array(rows)
        return tuple(on_host(array)[places] for array in self._flat)

    def columns(self, places: Sequence[int]) -> list[npt.NDArray[Any]]:
        """Return some of the arrays of all states, `[R, ...]` each, read at once."""
        found = _fetched([self._flat[place] for place in places])
        return [array.copy() for array in found]  # They may share a device's memory.


class SeparateStates:
    """States one by one, each trained by a compiled step that Python calls.

    Steps do not reuse the memory of a state, so a copy of a state costs nothing.

    Args:
        found: The user's functions, compiled.
        keys: `[N]` the slots' PRNG keys.
        length: Steps of a chunk.
        devices: Member i is on `devices[i % len(devices)]`.
        axes: Axes of the batches over rows and over steps.
        evaluation: The batch of `evaluate`.
    """

    def __init__(
        self,
        found: Programs,
        keys: Any,
        length: int,
        devices: Sequence[Any],
        axes: tuple[int | None, int | None],
        evaluation: Any,
    ) -> None:
        self._devices = [devices[i % len(devices)] for i in range(len(keys))]
        self._flats: list[Flat] = []
        self._keys = [jax.device_put(keys[i], d) for i, d in enumerate(self._devices)]
        self._train = found.alone(evaluates=False)
        self._finish = found.alone(evaluates=True)
        self._length = length
        self._by_row, self._by_step = axes
        used = set(self._devices)
        self._evaluations = {d: _at(d, evaluation) for d in used}
        self._old = {d: jax.device_put(np.bool_(False), d) for d in used}
        self._steps: list[Any] = []
        self._rows: list[Rows] = []
        self._placed: tuple[Any, dict[Any, list[Any]]] = (None, {})

    def begin(self, flats: Iterable[Flat]) -> None:
        """Fill the rows with these states, one after the other."""
        pairs = zip(flats, self._devices, strict=True)
        self._flats = [jax.device_put(flat, device) for flat, device in pairs]

    def wait(self) -> None:
        """Return once the devices are done."""
        for step in self._steps:
            step.block_until_ready()

    def release(self) -> None:
        """Free the memory of the states, their meta_params and their batches."""
        self._flats, self._rows = [], []
        self._placed = (None, {})

    def set_rows(
        self,
        steps: npt.NDArray[np.int32],
        scalars: Sequence[npt.NDArray[Any]],
        new: npt.NDArray[np.bool_],
    ) -> None:
        """Set steps and meta_params of all rows, as in `StackedStates`."""
        self._steps, self._rows = [], []
        for row, device in enumerate(self._devices):
            columns = tuple(column[row] for column in scalars)
            step, columns, is_new = jax.device_put(
                (steps[row], columns, new[row]), device
            )
            self._steps.append(step)
            self._rows.append(Rows(columns, self._keys[row], is_new))

    def train(self, batches: Any) -> None:
        """Train all members for one chunk of steps."""
        for row in range(len(self._flats)):
            self._advance(row, self._of(row, batches))

    def finish(self, batches: Any) -> Values:
        """Train the last chunk of a round; return all values with their metrics."""
        found = []
        for row, device in enumerate(self._devices):
            *first, last = self._of(row, batches)
            self._advance(row, first)
            self._flats[row], self._steps[row], value, metrics = self._finish(
                self._flats[row],
                self._steps[row],
                self._rows[row],
                last,
                self._evaluations[device],
            )
            self._rows[row] = self._rows[row]._replace(new=self._old[device])
            found.append((value, metrics))
        flat = _fetched([x for value, metrics in found for x in (value, *metrics)])
        size = len(flat) // len(found)
        rows = [flat[i : i + size] for i in range(0, len(flat), size)]
        return [(value.item(), [x.item() for x in metrics]) for value, *metrics in rows]

    def take(self, row: int) -> Flat:
        """Return a copy of a row's state."""
        return self._flats[row]

    def put(self, row: int, flat: Flat) -> None:
        """Copy a state into a row."""
        self._flats[row] = jax.device_put(flat, self._devices[row])

    def move(self, sources: Mapping[int, int]) -> None:
        """Copy rows; `sources` maps each target to the row whose state it gets."""
        held = {target: self._flats[source] for target, source in sources.items()}
        for row, flat in held.items():
            self.put(row, flat)

    def host(self) -> Callable[[int], Flat]:
        """Read all states at once; return a function from a row to NumPy arrays."""
        flats = [tuple(map(on_host, flat)) for flat in self._flats]
        return lambda row: flats[row]

    def picked(self, rows: Sequence[int]) -> list[Flat]:
        """Return the states of these rows for `begin`, one for each row of another."""
        return [self._flats[row] for row in rows]

    def columns(self, places: Sequence[int]) -> list[npt.NDArray[Any]]:
        """Return some of the arrays of all states, `[R, ...]` each, read at once."""
        rows = _fetched([flat[place] for place in places for flat in self._flats])
        size = len(self._flats)
        return [np.stack(rows[at : at + size]) for at in range(0, len(rows), size)]

    def _advance(self, row: int, batches: Sequence[Any]) -> None:
        flat, step, rows = self._flats[row], self._steps[row], self._rows[row]
        for batch in batches:
            flat, step = self._train(flat, step, rows, batch, None)
            rows = rows._replace(new=self._old[self._devices[row]])
        self._flats[row], self._steps[row], self._rows[row] = flat, step, rows

    def _of(self, row: int, batches: Any) -> list[Any]:
        """Return the batches of one member, step by step."""
        if self._by_row is not None:
            own = jax.tree.map(lambda array: array[row], batches)
            return _by_step(own, self._length)
        if self._placed[0] is not batches:
            self._placed = (batches, {})
        device, known = self._devices[row], self._placed[1]
        if device not in known:
            if self._by_step is None:
                known[device] = [_at(device, batches)] * self._length
            else:
                cut = _by_step(batches, self._length)
                known[device] = jax.device_put(cut, device)
        return known[device]


MemberStates = StackedStates | SeparateStates
"""All members' states: a row for each member, and rows of padding at the end."""


def _at(device: Any, tree: Any) -> Any:
    """Put a tree on one device; arrays replicated over a mesh are not copied."""

    def one(leaf: Any) -> Any:
        spread = isinstance(leaf, jax.Array) and leaf.sharding.num_devices > 1
        if spread and leaf.is_fully_replicated:
            for shard in leaf.addressable_shards:
                if shard.device == device:
                    return shard.data
        return jax.device_put(leaf, device)

    return jax.tree.map(one, tree)


def _fetched(arrays: Sequence[Any]) -> list[Any]:
    """Return device arrays as NumPy arrays; `jax.device_get` would take 20 us more."""
    if len(arrays) > 1:
        for array in arrays:
            array.copy_to_host_async()
    return [np.asarray(array) for array in arrays]


def _by_step(batches: Any, length: int) -> list[Any]:
    return [jax.tree.map(lambda x, at=at: x[at], batches) for at in range(length)]


def on_host(array: Any) -> Any:
    """Return a NumPy copy of an array; of PRNG keys, which NumPy lacks, a JAX copy."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array.copy()
    return np.array(array)
