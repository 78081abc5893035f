"""One member's three functions, on states that are plain tuples of arrays.

What else a state holds, say the activation function of a module, is the same for all
members: it is found when `init` is traced, and put back wherever a function is called.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from population import hyperparams
from population.engines.stacked.meta import Columns
from population.errors import ParamsError

logger = logging.getLogger("population")
Flat = tuple[Any, ...]
FRESH = np.uint32(0xFFFFFFFF)  # In place of a step, in the key that `init` gets.


class Member:
    """The user's functions, each traced with one member's arrays.

    Args:
        init: `(key, meta_params) -> state`.
        step: `(state, meta_params, batch, key) -> state`.
        evaluate: `(state, meta_params, batch) -> value`, or `(value, metrics)`.
        columns: How meta_params become scalars.
        batch: One batch of one member, as `step` gets it.
        evaluation: What `evaluate` gets as its batch.

    Attributes:
        columns: The same.
        shapes: What the arrays of a state look like.

    Raises:
        ValueError: If a shape depends on meta_params, `step` changes the structure of
            the state, or `evaluate` returns no number.
        TypeError: If one of the three is no function.
    """

    def __init__(
        self,
        init: Callable[..., Any],
        step: Callable[..., Any],
        evaluate: Callable[..., Any],
        columns: Columns,
        batch: Any,
        evaluation: Any,
    ) -> None:
        given = {"init": init, "step": step, "evaluate": evaluate}
        for name, function in given.items():
            if not callable(function):
                raise TypeError(
                    f"{name} must be a function, got {function!r}. It is one of one "
                    "member; the population is the engine's business."
                )
        self._init, self._step, self._evaluate = init, step, evaluate
        self.columns = columns
        self._tree: Any = None
        self._rest: list[Any] = []
        self._metrics: Any = None
        self._used: set[int] = set()
        key = jax.eval_shape(lambda: jax.random.key(0))
        scalars = columns.shapes()
        self.shapes: Flat = self._traced("init", self.fresh, key, scalars)
        step_at = jax.eval_shape(lambda: jnp.int32(0))
        batch, evaluation = _shapes(batch), _shapes(evaluation)
        ends = key, step_at, batch
        self._traced("step", self._checked_step, self.shapes, scalars, *ends)
        self._traced("evaluate", self.judge, self.shapes, scalars, evaluation)
        self._warn_of_unused()

    def fresh(self, key: Any, scalars: Sequence[Any]) -> Flat:
        """A fresh state; `key` is the member's own."""
        with _named("init"):
            own = jax.random.fold_in(key, FRESH)
            state = self._init(own, self.columns.tree(scalars))
        return self.flat(state, learn=True)

    def put(self, flat: Flat, scalars: Sequence[Any], new: Any) -> Flat:
        """The state with its optimiser's numbers replaced, if `new` is true."""
        numbers = self.columns.numbers(scalars)
        state = hyperparams.put_traced(self.state(flat), numbers, new)
        return self.flat(state)

    def advance(
        self, flat: Flat, scalars: Sequence[Any], key: Any, step: Any, batch: Any
    ) -> Flat:
        """The state after one step."""
        with _named("step"):
            own = jax.random.fold_in(key, step)
            state = self._step(self.state(flat), self.columns.tree(scalars), batch, own)
        return self.flat(state)

    def judge(
        self, flat: Flat, scalars: Sequence[Any], batch: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """The value of a state, and its metrics as a tuple."""
        with _named("evaluate"):
            found = self._evaluate(self.state(flat), self.columns.tree(scalars), batch)
        is_pair = type(found) is tuple and len(found) == 2
        value, metrics = found if is_pair else (found, None)
        if metrics is not None and not isinstance(metrics, dict):
            told = _told(metrics) if _is_array(metrics) else type(metrics).__name__
            raise ValueError(
                "evaluate's metrics must be a dict of numbers, got a "
                f"{told} beside the value. Return the value alone, or a tuple of it "
                "and a dict."
            )
        _check_number(value, "evaluate must return a number")
        if jnp.asarray(value).dtype == jnp.bool_:
            raise ValueError(
                "evaluate must return a number, got a bool. Make it a float, say."
            )
        leaves, self._metrics = jax.tree.flatten(metrics)
        for leaf in leaves:
            _check_number(leaf, "evaluate's metrics must be a dict of numbers")
        return _wide(value), tuple(map(_wide, leaves))

    def metrics(self, leaves: Sequence[Any]) -> Any:
        """The metrics of one member as `evaluate` returned them."""
        return jax.tree.unflatten(self._metrics, leaves)

    def state(self, flat: Sequence[Any]) -> Any:
        """The state as the user's functions see it."""
        arrays = iter(flat)
        leaves = [next(arrays) if rest is _ARRAY else rest for rest in self._rest]
        return jax.tree.unflatten(self._tree, leaves)

    def saved(self, flat: Sequence[Any]) -> Any:
        """A state as it is saved: None stands for functions and the like."""
        arrays = iter(flat)
        leaves = [next(arrays) if r is _ARRAY else _kept(r) for r in self._rest]
        return jax.tree.unflatten(self._tree, leaves)

    def restored(self, tree: Any) -> Flat:
        """The arrays of what `saved` has made.

        Raises:
            ParamsError: If they are not those of a member of this population.
        """
        flat = tuple(_strong(x) for x in jax.tree.leaves(tree) if _is_array(x))
        found = [(x.shape, x.dtype) for x in flat]
        if found != [(x.shape, x.dtype) for x in self.shapes]:
            raise ParamsError(
                "Saved params must have the shapes and dtypes that init gives, "
                f"{[_told(x) for x in self.shapes]}, got {[_told(x) for x in flat]}. "
                "Has the model changed since?"
            )
        return flat

    def flat(self, state: Any, *, learn: bool = False) -> Flat:
        """The arrays of a state.

        Args:
            state: The state.
            learn: Whether it comes from `init`, and says what states look like.

        Raises:
            ValueError: If it does not look like that.
        """
        leaves, tree = jax.tree.flatten(state)
        rest = [_ARRAY if _is_array(leaf) else leaf for leaf in leaves]
        if learn:
            self._tree, self._rest = tree, rest
        elif tree != self._tree or not _alike(rest, self._rest):
            ours = jax.tree.unflatten(self._tree, map(_kind, self._rest))
            theirs = jax.tree.unflatten(tree, map(_kind, rest))
            raise ValueError(
                "step must return a state of the structure that init gave it; "
                f"{_difference(ours, theirs)}. Have init make all that step adds; True "
                "and False are fixed switches, what changes is jnp.bool_(True)."
            )
        arrays = [leaf for leaf in leaves if _is_array(leaf)]
        return tuple(_strong(leaf) for leaf in arrays)

    def names(self) -> list[str]:
        """Where in the state each array is."""
        places = jax.tree_util.tree_flatten_with_path(
            jax.tree.unflatten(self._tree, range(len(self._rest)))
        )[0]
        keys = [jax.tree_util.keystr(path) or "the state" for path, _ in places]
        return [k for k, r in zip(keys, self._rest, strict=True) if r is _ARRAY]

    def _warn_of_unused(self) -> None:
        """Say which hyperparameters have no effect: nothing that is computed uses them.

        A state of `nnx.split`, say, hides from the engine what is in its optimiser.
        """
        names = enumerate(self.columns.names)
        unused = [name for place, name in names if place not in self._used]
        if unused:
            logger.warning(
                "%s have no effect: neither init, step nor evaluate uses them, and no "
                "state of optax.inject_hyperparams within the state has their names. "
                "Pass them on in step, from meta_params.",
                unused,
            )

    def _checked_step(self, flat: Flat, *rest: Any) -> Flat:
        scalars, *ends = rest
        flat = self.put(flat, scalars, True)
        after = self.advance(flat, scalars, *ends)
        for name, old, new in zip(self.names(), self.shapes, after, strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise ValueError(
                    "step must return a state with the shapes and dtypes that it was "
                    f"given; {name} was {_told(old)} and became {_told(new)}. Cast it, "
                    "or have init make it so."
                )
        return after

    def _note_used(self, jaxpr: Any, start: int) -> None:
        """Note which scalars, the inputs from `start` on, something is made of."""
        used = {id(var) for equation in jaxpr.eqns for var in equation.invars}
        used |= {id(var) for var in jaxpr.outvars}
        inputs = jaxpr.invars[start : start + len(self.columns.names)]
        self._used |= {place for place, var in enumerate(inputs) if id(var) in used}

    def _traced(
        self, name: str, function: Callable[..., Any], first: Any, scalars: Any, *a: Any
    ) -> Any:
        """The shapes that a function returns; a clear error if they are not fixed."""
        try:
            traced, shapes = jax.make_jaxpr(function, return_shape=True)(
                first, scalars, *a
            )
            self._note_used(traced.jaxpr, len(jax.tree.leaves(first)))
            return shapes
        except (TypeError, IndexError) as error:  # What JAX raises for such shapes.
            for count, names in self.columns.concrete():
                try:
                    jax.eval_shape(
                        lambda f, s, *r, fix=count: function(f, fix(s), *r),
                        first,
                        scalars,
                        *a,
                    )
                except (TypeError, IndexError):
                    continue
                raise ValueError(
                    f"{name} must not need {names} as a plain number: all members are "
                    "one program, so that no shape, range or Python `if` may depend on "
                    "meta_params. Use a mask, or lax.switch; where shapes must differ, "
                    "train with population.engines.threads."
                ) from error
            raise


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Have what a user's function raises say which one it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"This was raised by {name}, while JAX traced it.")
        raise


class _Array:
    """Stands where a state has an array."""


_ARRAY = _Array()


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, bool):
        return False  # A switch that Python looks at, like a module's `training`.
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex))


def _kept(rest: Any) -> bool | None:
    """What is saved in the place of no array: a fresh state is then like it."""
    return rest if isinstance(rest, bool) else None


def _kind(rest: Any) -> str:
    return "an array" if rest is _ARRAY else f"{rest!r}"


def _difference(ours: Any, theirs: Any) -> str:
    """What a tree has that another one has not, in words."""
    flatten = jax.tree_util.tree_flatten_with_path
    sides = [
        {jax.tree_util.keystr(path): leaf for path, leaf in flatten(tree)[0]}
        for tree in (ours, theirs)
    ]
    for place in [*sides[0], *sides[1]]:
        before, after = (side.get(place, "missing") for side in sides)
        if before != after:
            return f"{place or 'the state'} was {before} and became {after}"
    return f"it was {ours} and became {theirs}"


def _alike(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether what is no array is the same; some of it cannot be compared."""
    pairs = list(zip(ours, theirs, strict=True))
    switches = all(a == b for a, b in pairs if isinstance(b, (bool, str, bytes)))
    return switches and all((a is _ARRAY) == (b is _ARRAY) for a, b in pairs)


def _strong(leaf: Any) -> Any:
    """A leaf as an array without a weak type: else each step may have another type."""
    array = jnp.asarray(leaf)
    weak = getattr(array, "weak_type", False)  # PRNG keys do not have it.
    return array.astype(array.dtype) if weak else array


def _wide(number: Any) -> Any:
    """A number in a type that Python knows: bfloat16 is none."""
    array = jnp.asarray(number)
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return array.astype(jnp.float32) if narrow else array


def _shapes(tree: Any) -> Any:
    return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree))


def _check_number(value: Any, what: str) -> None:
    dtype = jnp.result_type(value) if _is_array(value) else np.dtype(object)
    number = dtype == np.bool_ or jnp.issubdtype(dtype, jnp.number)
    if not number or jnp.issubdtype(dtype, jnp.complexfloating) or jnp.shape(value):
        raise ValueError(
            f"{what}, got {_told(value)}. Return a scalar, or a scalar and a dict of "
            "scalars; average over the examples, say."
        )


def _told(leaf: Any) -> str:
    if not isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        return repr(leaf)
    return f"{leaf.dtype}{list(leaf.shape)}"
