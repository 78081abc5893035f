"""Stacked and separate states have one contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population.engines.stacked import programs
from population.engines.stacked.columns import Columns
from population.engines.stacked.member import MemberFunctions
from population.engines.stacked.states import (
    MemberStates,
    SeparateStates,
    StackedStates,
)

SIZE, LENGTH = 5, 3
AXES = {"data": (None, None), "each": (0, 0), "shared": (None, 0)}
wait: Any = jax.block_until_ready
KEYS = programs.base_keys(0, 64)
KEPT: list[Any] = []  # A member does not keep its functions alive.


def member(batch: Any) -> MemberFunctions:
    """A state that counts what it received, and remembers its last random number."""

    def init(key: Any, meta: Any) -> Any:
        return {"sum": jnp.zeros(2), "draw": jax.random.uniform(key)}

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        after = state["sum"] + meta["by"] * batch
        return {"sum": after, "draw": 0 * state["draw"] + jax.random.uniform(key)}

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        return jnp.sum(state["sum"]) + batch, {"draw": state["draw"], "by": meta["by"]}

    KEPT.append((init, step, evaluate))
    columns = Columns([{"by": 1.0}], None, None, None)
    return MemberFunctions(init, step, evaluate, columns, batch, np.float32(100))


def batches_of(kind: str, size: int = SIZE) -> Any:
    """A chunk: constant; `[rows, length]` ones and more; `[length]`."""
    if kind == "data":
        return np.float32(1)
    by_step = np.arange(1, LENGTH + 1, dtype=np.float32)
    if kind == "shared":
        return by_step
    return by_step[None] * np.arange(size, dtype=np.float32)[:, None]


def states(
    batching: str,
    kind: str = "data",
    size: int = SIZE,
    devices: Sequence[Any] | None = None,
) -> MemberStates:
    """A states whose row i begins with `[i, i]`, and adds i + 1 times its batches."""
    one = programs.Programs(member(np.float32(1)))
    devices = devices or jax.devices()[:1]
    rest: Any = (AXES[kind], np.float32(100))
    found: MemberStates
    if batching == "loop":
        found = SeparateStates(one, KEYS[:size], LENGTH, devices, *rest)
    else:
        mesh = programs.mesh_of(devices)
        found = StackedStates(one, KEYS[:size], batching, LENGTH, mesh, *rest)
    begin(found, np.arange(size, dtype=np.float32))
    by = np.arange(1, size + 1, dtype=np.float32)
    found.set_rows(np.zeros(size, np.int32), [by], np.ones(size, np.bool_))
    return found


def begin(found: MemberStates, numbers: Any) -> None:
    """Put number i into row i twice, as its sum."""
    rows = [(jnp.zeros(()), jnp.array([x, x])) for x in numbers]  # Draw and sum.
    if isinstance(found, SeparateStates):
        found.begin(rows)
    else:
        assert isinstance(found, StackedStates)
        found.begin(tuple(map(jnp.stack, zip(*rows, strict=True))))


def sums(found: MemberStates, size: int = SIZE) -> list[float]:
    """The sum of each row."""
    states = [found.take(row)[1] for row in range(size)]
    assert all(state.shape == (2,) for state in states)
    assert all(bool(state[0] == state[1]) for state in states)
    return [float(state[0]) for state in states]


every_way = pytest.mark.parametrize("batching", ["vmap", "map", "loop"])


@every_way
def test_rows_hold_what_they_began_with(batching: str) -> None:
    """Each row can be taken alone."""
    assert sums(states(batching)) == [0, 1, 2, 3, 4]


@every_way
@pytest.mark.parametrize("kind", AXES)
def test_a_chunk_trains_each_row_with_its_batches(batching: str, kind: str) -> None:
    """Each step has its own batch and key; the value is that of the last state."""
    found = states(batching, kind)
    given = batches_of(kind)
    each = {"data": [3.0] * SIZE, "shared": [6.0] * SIZE}.get(kind)
    each = [6.0 * row for row in range(SIZE)] if each is None else each
    found.train(given)
    once = [row + (row + 1) * each[row] for row in range(SIZE)]
    assert sums(found) == once
    values = found.finish(given)
    twice = [row + 2 * (row + 1) * each[row] for row in range(SIZE)]
    assert sums(found) == twice
    assert [value for value, _ in values] == [2 * x + 100 for x in twice]
    draws = [
        float(jax.random.uniform(jax.random.fold_in(KEYS[row], 2 * LENGTH - 1)))
        for row in range(SIZE)
    ]
    by = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [rest for _, rest in values] == [
        [b, d] for b, d in zip(by, draws, strict=True)
    ]
    assert all(type(value) is float for value, _ in values)


@every_way
def test_what_is_told_holds_for_the_next_chunk(batching: str) -> None:
    """Steps (and so keys) and meta_params count; the arrays may change afterwards."""
    found = states(batching)
    steps, by = np.arange(10, 10 + SIZE, dtype=np.int32), np.zeros(SIZE, np.float32)
    by[2] = 7
    new = np.zeros(SIZE, np.bool_)
    found.set_rows(steps, [by], new)
    steps[:], by[:], new[:] = 99, 99, True
    values = found.finish(np.float32(1))
    assert sums(found) == [0, 1, 2 + 21, 3, 4]
    for row, (_, (_, draw)) in enumerate(values):
        key = jax.random.fold_in(KEYS[row], 10 + row + LENGTH - 1)
        assert draw == float(jax.random.uniform(key))


@every_way
def test_what_was_taken_survives_training(batching: str) -> None:
    """Donated buffers are reused, but not those of a copy that was taken."""
    found = states(batching)
    before = [found.take(row) for row in range(SIZE)]
    found.train(np.float32(1))
    found.finish(np.float32(1))
    found.move({0: 1, 1: 0})
    found.put(3, before[2])
    assert [float(state[1][0]) for state in before] == [0, 1, 2, 3, 4]


@every_way
def test_what_was_put_is_a_copy(batching: str) -> None:
    """It can be put again after training, and may come from the host, too."""
    found = states(batching)
    kept = found.take(4)
    found.put(0, kept)
    found.put(1, kept)
    found.put(2, (np.float32(0), np.full(2, 9, np.float32)))
    assert sums(found) == [4, 4, 9, 3, 4]
    found.train(np.float32(0))
    assert float(kept[1][0]) == 4
    found.put(3, kept)
    assert sums(found) == [4, 4, 9, 4, 4]


MOVES: dict[str, Mapping[int, int]] = {
    "one": {0: 4},
    "one to many": {0: 4, 1: 4, 2: 4},
    "chain": {0: 1, 1: 2, 2: 3},
    "swap": {0: 1, 1: 0},
    "cycle": {0: 1, 1: 2, 2: 0, 4: 0},
    "two cycles": {0: 1, 1: 0, 2: 3, 3: 2, 4: 2},
    "itself": {2: 2, 3: 2},
}


@every_way
@pytest.mark.parametrize("name", MOVES)
def test_moves_read_all_before_they_write(batching: str, name: str) -> None:
    """Chains and cycles are included, and the rows can be trained afterwards."""
    found, sources = states(batching), MOVES[name]
    found.move(sources)
    expected = [float(sources.get(row, row)) for row in range(SIZE)]
    assert sums(found) == expected
    found.train(np.float32(1))
    trained = [x + 3 * (row + 1) for row, x in enumerate(expected)]
    assert sums(found) == trained


def test_moves_of_more_rows_than_a_chunk() -> None:
    """A rotation of all rows takes several calls of one program."""
    size = 40
    found = states("vmap", size=size)
    found.move({row: (row + 1) % size for row in range(size)})
    assert sums(found, size) == [*range(1, size), 0]


@every_way
def test_all_states_are_read_at_once_for_saving(batching: str) -> None:
    """They are NumPy arrays, which later training does not change."""
    found = states(batching)
    host = found.host()
    found.train(np.float32(1))
    for row in range(SIZE):
        draw, total = host(row)
        assert isinstance(total, np.ndarray)
        assert isinstance(draw, (np.ndarray, np.generic))
        np.testing.assert_array_equal(total, [row, row])


@pytest.mark.parametrize("batching", ["vmap", "map"])
def test_the_states_of_the_last_chunk_are_reused(batching: str) -> None:
    """There is one copy of all states in a stack, not two."""
    found = states(batching)
    change: list[Callable[[], Any]] = [
        lambda: found.train(np.float32(1)),
        lambda: found.finish(np.float32(1)),
    ]
    change += [lambda: found.move({0: 1}), lambda: found.put(0, found.take(1))]
    for work in change:
        before = _buffers(found)
        work()
        wait(_buffers(found))
        assert all(array.is_deleted() for array in before)


@every_way
def test_released_states_hold_nothing_and_can_begin_again(batching: str) -> None:
    """The states of one trial are freed before the next trial."""
    found = states(batching)
    found.release()
    assert _buffers(found) == []
    begin(found, np.ones(SIZE, np.float32))
    assert sums(found) == [1] * SIZE


def _buffers(found: MemberStates) -> list[Any]:
    assert isinstance(found, (StackedStates, SeparateStates))
    return jax.tree.leaves(
        found._flat if isinstance(found, StackedStates) else found._flats
    )
