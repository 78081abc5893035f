"""One member's three functions, on states that are plain tuples of arrays."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from population.engines.stacked import captures, effects, plain_numbers, step_cost
from population.engines.stacked.columns import Columns
from population.engines.stacked.layout import Flat, Layout, Moved, is_array, shown
from population.in_force import injected, restoring
from population.in_force.injected import Number

FRESH = np.uint32(0xFFFFFFFF)  # In place of a step, in the key that `init` gets.


class MemberFunctions:
    """The user's functions, each traced with one member's arrays.

    The functions are held weakly: they live as long as a run uses them.

    Args:
        init: `(key, meta_params) -> state`.
        step: `(state, meta_params, batch, key) -> state`.
        evaluate: `(state, meta_params, batch) -> value`, or `(value, metrics)`.
        columns: Converts meta_params to scalars.
        batch: One batch of one member, as `step` gets it.
        evaluation: The batch of `evaluate`.
        keep: Names of injected numbers that `step` changes by itself.

    Attributes:
        columns: Converts meta_params to scalars; has their structure and dtypes.
        layout: The structure that all states share.
        shapes: Shapes and dtypes of the arrays of a state.
        injected: The optimiser's numbers except those to keep, each with its place
            among the arrays.
        moving: The places of those that `init` computes from meta_params.
        unused: The names of hyperparameters on which no value depends.
        cost: The cost of `step`.

    Raises:
        ValueError: A shape depends on meta_params, `step` changes the structure of the
            state, `evaluate` returns no number, or `keep` names an unknown number.
        TypeError: One of the three is not callable.
    """

    def __init__(
        self,
        init: Callable[..., Any],
        step: Callable[..., Any],
        evaluate: Callable[..., Any],
        columns: Columns,
        batch: Any,
        evaluation: Any,
        keep: Collection[str] = (),
    ) -> None:
        given = {"init": init, "step": step, "evaluate": evaluate}
        for name, function in given.items():
            if not callable(function):
                raise TypeError(
                    f"{name} must be a function, got {function!r}. Write it for one "
                    "member; the engine batches it."
                )
        self._init, self._step, self._evaluate = map(_weakly, given.values())
        self.columns = columns
        self._keep = keep
        self.layout = Layout()
        self._metrics: Any = None
        key = jax.eval_shape(lambda: jax.random.key(0))
        scalars = columns.shapes()
        step_at = jax.eval_shape(lambda: jnp.int32(0))
        batch, evaluation = _shapes(batch), _shapes(evaluation)
        self.shapes: Flat = ()
        while True:
            fresh, self.shapes = self._traced("init", self.fresh, key, scalars)
            ends = scalars, key, step_at, batch
            with contextlib.suppress(Moved):  # A number of the state is an array then.
                step, _ = self._traced("step", self._checked_step, self.shapes, *ends)
                break
        rest = scalars, evaluation
        value, _ = self._traced("evaluate", self.evaluate, self.shapes, *rest)
        numbers = injected.numbers(self.layout.state(self.shapes))
        restoring.check_kept(keep, numbers)
        found = effects.of(len(columns.names), fresh, step, value)
        places = {name: place for place, name in enumerate(self.layout.names())}
        self.injected = [
            (places[n.place], n)
            for n in numbers
            if n.place in places and not self._keeps(n)
        ]
        self.moving = {n.place for leaf, n in self.injected if leaf in found.made}
        self.cost = step_cost.of(step)
        self.unused = [columns.names[column] for column in found.unused]

    def fresh(self, key: Any, scalars: Sequence[Any]) -> Flat:
        """Return a fresh state; `key` is the key of the member's slot."""
        return self.layout.learn(self._fresh_state(key, scalars))

    def _fresh_state(self, key: Any, scalars: Sequence[Any]) -> Any:
        with _named("init"):
            own = jax.random.fold_in(key, FRESH)
            return self._init()(own, self.columns.tree(scalars))

    def put(self, flat: Flat, key: Any, scalars: Sequence[Any], new: Any) -> Flat:
        """Return the state, with the optimiser's numbers of `init` if `new` is true.

        XLA removes all other computations of `init`, as nothing uses them.
        """
        state = self.layout.state(flat)
        held = injected.numbers(state)
        if not held:
            return flat
        leaves = self._fresh_numbers(key, tuple(scalars))
        pairs = zip(held, leaves, strict=True)
        wanted = [number._replace(leaf=leaf) for number, leaf in pairs]
        return self.layout.flat(injected.carried(state, wanted, self._keeps, new))

    @functools.cached_property
    def _fresh_numbers(self) -> Callable[..., list[Any]]:
        """Compiled by itself, so that `init` is traced once for all programs."""

        def numbers(key: Any, scalars: Sequence[Any]) -> list[Any]:
            state = self._fresh_state(key, scalars)
            return [number.leaf for number in injected.numbers(state)]

        return jax.jit(numbers)

    def _keeps(self, number: Number) -> bool:
        return restoring.is_kept(number, self._keep)

    def advance(
        self, flat: Flat, scalars: Sequence[Any], key: Any, step: Any, batch: Any
    ) -> Flat:
        """Return the state after one step."""
        with _named("step"):
            own = jax.random.fold_in(key, step)
            state = self._step()(
                self.layout.state(flat), self.columns.tree(scalars), batch, own
            )
        return self.layout.flat(state)

    def evaluate(
        self, flat: Flat, scalars: Sequence[Any], batch: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return the value of a state, and its metrics as a tuple."""
        with _named("evaluate"):
            found = self._evaluate()(
                self.layout.state(flat), self.columns.tree(scalars), batch
            )
        is_pair = type(found) is tuple and len(found) == 2
        value, metrics = found if is_pair else (found, None)
        if metrics is not None and not isinstance(metrics, dict):
            what = shown(metrics) if is_array(metrics) else type(metrics).__name__
            raise ValueError(
                "evaluate's metrics must be a dict of numbers, got a "
                f"{what} beside the value. Return the value alone, or a tuple of it "
                "and a dict."
            )
        _check_number(value, "evaluate must return a number")
        if jnp.asarray(value).dtype == jnp.bool_:
            raise ValueError(
                "evaluate must return a number, got a bool. Make it a float."
            )
        leaves, self._metrics = jax.tree.flatten(metrics)
        for leaf in leaves:
            _check_number(leaf, "evaluate's metrics must be a dict of numbers")
        return _wide(value), tuple(map(_wide, leaves))

    def metrics(self, leaves: Sequence[Any]) -> Any:
        """Return the metrics of one member in the structure of `evaluate`'s dict."""
        return jax.tree.unflatten(self._metrics, leaves)

    def _checked_step(self, flat: Flat, *rest: Any) -> Flat:
        scalars, key, *ends = rest
        flat = self.put(flat, key, scalars, True)
        after = self.advance(flat, scalars, key, *ends)
        for name, old, new in zip(self.layout.names(), self.shapes, after, strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise ValueError(
                    "step must return a state with the shapes and dtypes that it was "
                    f"given; {name} was {shown(old)} and became {shown(new)}. Cast it, "
                    "or have init make it so."
                )
        return after

    def _traced(
        self, name: str, function: Callable[..., Any], first: Any, scalars: Any, *a: Any
    ) -> tuple[Any, Any]:
        """Return a function's jaxpr and the shapes that it returns.

        Raises:
            ValueError: A shape depends on meta_params.
        """
        try:
            traced, shapes = jax.make_jaxpr(function, return_shape=True)(
                first, scalars, *a
            )
            return traced.jaxpr, shapes
        except (TypeError, IndexError) as error:  # JAX raises these for such shapes.
            for count, names in self.columns.concrete():
                try:
                    jax.eval_shape(
                        lambda f, s, *r, fix=count: function(f, fix(s), *r),
                        first,
                        scalars,
                        *a,
                    )
                except (TypeError, LookupError, ValueError, AttributeError):
                    continue  # The function needs another number, or more than that.
                raise ValueError(plain_numbers.refusal(name, names, error)) from error
            layer = plain_numbers.of_a_layer(name, error)
            if layer is not None:
                raise ValueError(layer) from error
            advice = plain_numbers.hint(error)
            if advice is not None:
                error.add_note(advice)
            if self.columns.codes:
                error.add_note(
                    f"{list(self.columns.codes)} arrive as codes, from 0 on: choose "
                    "with lax.switch, or take an array at the code."
                )
            raise


def _weakly(function: Callable[..., Any]) -> Callable[[], Callable[..., Any]]:
    """Return a weak reference to a function, or a strong one if its type has none."""
    return captures.reference(function) or (lambda: function)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Add the function's name to an exception that it raises."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"This was raised by {name}, while JAX traced it.")
        if isinstance(error, jax.errors.UnexpectedTracerError):
            error.add_note(
                "An optimiser that init makes of meta_params must keep its numbers in "
                "its state, not in itself: optax.inject_hyperparams(optax.sgd)(...)."
            )
        raise


def _wide(number: Any) -> Any:
    """Convert a number to a type that Python can read: bfloat16 becomes float32."""
    array = jnp.asarray(number)
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return array.astype(jnp.float32) if narrow else array


def _shapes(tree: Any) -> Any:
    return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree))


def _check_number(value: Any, what: str) -> None:
    known = is_array(value) or type(value) in (bool, int, float, complex)
    dtype = jnp.result_type(value) if known else np.dtype(object)
    number = dtype == np.bool_ or jnp.issubdtype(dtype, jnp.number)
    if not number or jnp.issubdtype(dtype, jnp.complexfloating) or jnp.shape(value):
        raise ValueError(
            f"{what}, got {shown(value)}. Return a scalar, or a scalar and a dict of "
            "scalars: the mean over the examples, for instance."
        )
