"""The compiled programs that train a stack of members."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from population.engines.stacked.layout import Flat
from population.engines.stacked.member import MemberFunctions

AXIS = "members"
_MOST = 32  # Programs of the same functions, with other lengths or devices.
_ROWS: Any = PartitionSpec(AXIS)
_ALL: Any = PartitionSpec()


class Rows(NamedTuple):
    """Inputs of a program that are constant over a round, for each row.

    Attributes:
        scalars: `[R]` each: meta_params.
        keys: `[R]` PRNG keys, one a slot.
        new: `[R]` bool: whether the optimiser's numbers must be replaced.
    """

    scalars: tuple[Any, ...]
    keys: Any
    new: Any


def trainer(
    member: MemberFunctions, length: int, *, evaluates: bool, per_step: int | None
) -> Callable[..., tuple[Any, ...]]:
    """Return a function of one row: `length` steps, then an evaluation if `evaluates`.

    Args:
        member: The user's functions.
        length: Steps of a call.
        evaluates: Whether it evaluates the state at its end.
        per_step: Axis of the batches that runs over the steps; None: all steps get the
            same batch.
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
            first = jax.tree.map(lambda x: x[0], steps)
            (flat, step), _ = advance((flat, step), first)
        else:
            (flat, step), _ = jax.lax.scan(advance, (flat, step), steps, length)
        if not evaluates:
            return flat, step
        return flat, step, *member.evaluate(flat, rows.scalars, evaluation)

    return train


def _stacked(
    member: MemberFunctions,
    batching: str,
    length: int,
    mesh: Mesh,
    axes: tuple[int | None, int | None],
    evaluates: bool,
) -> Callable[..., tuple[Any, ...]]:
    """Return a compiled function of all rows; see `Programs.stacked`."""
    batch_axis, by_step = axes
    train = trainer(member, length, evaluates=evaluates, per_step=by_step)

    def local(
        flat: Flat, steps: Any, rows: Rows, batches: Any, evaluation: Any
    ) -> tuple[Any, ...]:
        if batching == "vmap":
            mapped = jax.vmap(train, (0, 0, 0, batch_axis, None))
            found: tuple[Any, ...] = mapped(flat, steps, rows, batches, evaluation)
            return found
        own = batches if batch_axis == 0 else None

        def one(row: Any) -> tuple[Any, ...]:
            state, step, of_row, batch = row
            batch = batches if batch_axis is None else batch
            return train(state, step, of_row, batch, evaluation)

        found = jax.lax.map(one, (flat, steps, rows, own))
        return found

    if mesh.size > 1:
        by_row = _ROWS if batch_axis == 0 else _ALL
        local = _shard_map(local, mesh, (_ROWS, _ROWS, _ROWS, by_row, _ALL))
    return jax.jit(local, donate_argnums=(0, 1))


class Programs:
    """The compiled programs of a member's functions; each is compiled once.

    Args:
        member: The user's functions.

    Attributes:
        member: The user's functions.
        compile_s: By way of batching and place, the seconds that compiling took.
        fastest: By place, the way of batching that trials have found to be the fastest.
    """

    def __init__(self, member: MemberFunctions) -> None:
        self.member = member
        self.compile_s: dict[Any, float] = {}
        self.fastest: dict[Any, str] = {}
        self._made: Callable[..., Callable[..., Any]] = functools.lru_cache(_MOST)(
            lambda make, *place: make(member, *place)
        )

    def stacked(
        self,
        batching: str,
        length: int,
        mesh: Mesh,
        axes: tuple[int | None, int | None],
        *,
        evaluates: bool,
    ) -> Callable[..., tuple[Any, ...]]:
        """Return a function of all rows.

        Args:
            batching: "vmap" or "map".
            length: Steps of a call.
            mesh: The devices; each trains its own rows without the others.
            axes: Axes of the batches over rows and over steps.
            evaluates: Whether it evaluates the states at its end.
        """
        return self._made(_stacked, batching, length, mesh, axes, evaluates)

    def alone(self, *, evaluates: bool) -> Callable[..., tuple[Any, ...]]:
        """Return a function of one row: a step, then an evaluation if `evaluates`."""
        return self._made(_alone, evaluates)

    def fresh(self, mesh: Mesh) -> Callable[[Any, Sequence[Any]], Flat]:
        """Return a function from keys and scalars to fresh states of all rows."""
        return self._made(_fresh, mesh)

    def one_fresh(self) -> Callable[[Any, Sequence[Any]], Flat]:
        """Return a function from a key and scalars to a fresh state of one row."""
        return self._made(_one_fresh)


def _alone(member: MemberFunctions, evaluates: bool) -> Callable[..., tuple[Any, ...]]:
    return jax.jit(trainer(member, 1, evaluates=evaluates, per_step=None))


def _one_fresh(member: MemberFunctions) -> Callable[..., Flat]:
    # A lambda: JAX would keep a bound method, and its object, in a cache.
    return jax.jit(lambda key, scalars: member.fresh(key, scalars))


def _fresh(member: MemberFunctions, mesh: Mesh) -> Callable[[Any, Sequence[Any]], Flat]:
    def make(keys: Any, scalars: Sequence[Any]) -> Flat:
        return jax.vmap(member.fresh)(keys, tuple(scalars))

    if mesh.size == 1:
        return jax.jit(make)
    return jax.jit(make, out_shardings=sharding(mesh, rows=True))


def sharding(mesh: Mesh, *, rows: bool) -> Any:
    """Return a sharding: rows spread over the devices, or all on each device."""
    if mesh.size == 1:
        return mesh.devices.flat[0]
    return NamedSharding(mesh, _ROWS if rows else _ALL)


class Copies(NamedTuple):
    """The compiled functions that copy rows.

    Attributes:
        take: The stack and a row, to that row alone.
        put: The stack, a row and its new state, to the next stack.
        move: The stack, rows `[K]` to read and rows `[K]` to write, to the next stack;
            all are read before any is written; rows beyond the end are ignored.
    """

    take: Callable[..., Flat]
    put: Callable[..., Flat]
    move: Callable[..., Flat]


@functools.lru_cache(maxsize=8)  # They do not depend on the user's functions.
def copies(mesh: Mesh) -> Copies:
    """Return the functions for stacks on a mesh; `put` and `move` reuse the memory."""
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


def base_keys(seed: int, count: int) -> Any:
    """Return `[count]` keys of slots; with a step folded in they are `Worker.key`."""
    return _folded(jax.random.key(seed), np.arange(count, dtype=np.uint32))


@jax.jit
def _folded(key: Any, ids: Any) -> Any:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """Return a mesh with the devices along one axis."""
    return Mesh(np.array(list(devices)), (AXIS,))


def _shard_map(function: Any, mesh: Mesh, ins: Any) -> Any:
    if hasattr(jax, "shard_map"):
        return jax.shard_map(
            function, mesh=mesh, in_specs=ins, out_specs=_ROWS, check_vma=False
        )
    from jax.experimental import shard_map

    older: Any = shard_map.shard_map
    return older(function, mesh=mesh, in_specs=ins, out_specs=_ROWS, check_rep=False)
