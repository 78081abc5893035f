"""The compiled programs that train a stack of members: each is compiled once a run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from population.engines.stacked.layout import Flat
from population.engines.stacked.member import Member

AXIS = "members"
_ROWS: Any = PartitionSpec(AXIS)
_ALL: Any = PartitionSpec()


class Rows(NamedTuple):
    """What a program needs to know of each row.

    Attributes:
        scalars: `[R]` each: meta_params.
        keys: `[R]` PRNG keys, one a slot.
        new: `[R]` bool: whether the optimiser's numbers must be replaced.
    """

    scalars: tuple[Any, ...]
    keys: Any
    new: Any


def trainer(
    member: Member, length: int, *, evaluates: bool, per_step: int | None
) -> Callable[..., tuple[Any, ...]]:
    """A function of one row: `length` steps, then an evaluation if `evaluates`.

    Args:
        member: The user's functions.
        length: Steps of a call.
        evaluates: Whether it evaluates the state at its end.
        per_step: Axis of the batches that runs over the steps; None: each step gets
            the same.
    """

    def train(
        flat: Flat, step: Any, rows: Rows, batches: Any, evaluation: Any
    ) -> tuple[Any, ...]:
        flat = member.put(flat, rows.keys, rows.scalars, rows.new)

        def advance(carry: tuple[Flat, Any], batch: Any) -> tuple[Any, None]:
            state, at = carry
            batch = batches if per_step is None else batch
            state = member.advance(state, rows.scalars, rows.keys, at, batch)
            return (state, at + 1), None

        steps = None if per_step is None else batches
        if length == 1:  # No loop: on a CPU convolutions are slow in one.
            first = None if steps is None else jax.tree.map(lambda x: x[0], steps)
            (flat, step), _ = advance((flat, step), first)
        else:
            (flat, step), _ = jax.lax.scan(advance, (flat, step), steps, length)
        if not evaluates:
            return flat, step
        return flat, step, *member.evaluate(flat, rows.scalars, evaluation)

    return train


def batched(
    train: Callable[..., tuple[Any, ...]],
    batching: str,
    mesh: Mesh,
    batch_axis: int | None,
) -> Callable[..., tuple[Any, ...]]:
    """A compiled function of all rows.

    Args:
        train: What one row does.
        batching: "vmap" or "map".
        mesh: The devices; each trains its own rows, and needs nothing of the others.
        batch_axis: 0 where each row has batches of its own, else None.
    """

    def local(
        flat: Flat, steps: Any, rows: Rows, batches: Any, evaluation: Any
    ) -> tuple[Any, ...]:
        if batching == "vmap":
            axes = (0, 0, 0, batch_axis, None)
            found: tuple[Any, ...] = jax.vmap(train, axes)(
                flat, steps, rows, batches, evaluation
            )
            return found
        own = batches if batch_axis == 0 else None

        def one(row: Any) -> tuple[Any, ...]:
            state, step, of_row, batch = row
            batch = batches if batch_axis is None else batch
            return train(state, step, of_row, batch, evaluation)

        mapped: tuple[Any, ...] = jax.lax.map(one, (flat, steps, rows, own))
        return mapped

    if mesh.size > 1:
        by_row = _ROWS if batch_axis == 0 else _ALL
        local = _shard_map(local, mesh, (_ROWS, _ROWS, _ROWS, by_row, _ALL))
    return jax.jit(local, donate_argnums=(0, 1))


def sharding(mesh: Mesh, *, rows: bool) -> Any:
    """Where arrays belong: their rows spread over the devices, or all on each."""
    if mesh.size == 1:
        return mesh.devices.flat[0]
    return NamedSharding(mesh, _ROWS if rows else _ALL)


class Copies(NamedTuple):
    """The compiled functions that copy rows.

    Attributes:
        take: The stack and a row, to that row alone.
        put: The stack, a row and what it shall hold, to the next stack.
        move: The stack, rows `[K]` to read and rows `[K]` to write, to the next stack;
            all are read before any is written, and a row beyond the end is none.
    """

    take: Callable[..., Flat]
    put: Callable[..., Flat]
    move: Callable[..., Flat]


@functools.lru_cache(maxsize=8)  # They are the same whatever is tried and trained.
def copies(mesh: Mesh) -> Copies:
    """The functions for stacks on these devices; those that change one reuse it."""
    rows, whole = sharding(mesh, rows=True), sharding(mesh, rows=False)
    spread = {} if mesh.size == 1 else {"out_shardings": rows}
    alone = {} if mesh.size == 1 else {"out_shardings": whole}

    def take(flat: Flat, row: Any) -> Flat:
        # A gather, as a slice would bring all rows to each device of a mesh.
        return tuple(x[jnp.reshape(row, 1)][0] for x in flat)

    def put(flat: Flat, row: Any, member: Flat) -> Flat:
        return tuple(x.at[row].set(y) for x, y in zip(flat, member, strict=True))

    def move(flat: Flat, sources: Any, targets: Any) -> Flat:
        return tuple(x.at[targets].set(x[sources], mode="drop") for x in flat)

    return Copies(
        jax.jit(take, **alone),
        jax.jit(put, donate_argnums=0, **spread),
        jax.jit(move, donate_argnums=0, **spread),
    )


def fresh(member: Member, mesh: Mesh) -> Callable[[Any, Sequence[Any]], Flat]:
    """A compiled function that makes fresh states of all rows."""

    def make(keys: Any, scalars: Sequence[Any]) -> Flat:
        return jax.vmap(member.fresh)(keys, tuple(scalars))

    if mesh.size == 1:
        return jax.jit(make)
    return jax.jit(make, out_shardings=sharding(mesh, rows=True))


def base_keys(seed: int, count: int) -> Any:
    """`[count]` the keys of the slots; with a step folded in they are `Worker.key`."""
    ids = jnp.arange(count, dtype=jnp.uint32)
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(ids)


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """The devices as one axis."""
    return Mesh(np.array(list(devices)), (AXIS,))


def _shard_map(function: Any, mesh: Mesh, ins: Any) -> Any:
    if hasattr(jax, "shard_map"):
        return jax.shard_map(
            function, mesh=mesh, in_specs=ins, out_specs=_ROWS, check_vma=False
        )
    from jax.experimental import shard_map

    older: Any = shard_map.shard_map
    return older(function, mesh=mesh, in_specs=ins, out_specs=_ROWS, check_rep=False)
