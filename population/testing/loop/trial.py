"""Calls a user's functions as the library would, and records what happens."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax

from population.base.types import Saved
from population.in_force import restoring
from population.params import MemoryParams, references
from population.testing.loop import trees

_KEY_NAMES = ("key", "rng", "prng")
_META_NAMES = ("meta", "hyper", "hp")
_DATA_NAMES = ("batch", "batches", "data", "images", "inputs", "x", "y")
_COMPILED = "/jax/core/compile/backend_compile_duration"
RETURNED = "It returns a buffer that was donated:"
_GONE = ("has been deleted", "donate")


class DonatedError(Exception):
    """The user's code uses a buffer that it has donated.

    Args:
        place: The place in the loop where this was noticed.
        seen: The observed behaviour, as a sentence.
    """

    def __init__(self, place: str, seen: str) -> None:
        super().__init__(f"{place}: {seen}")
        self.place = place
        self.seen = seen


@dataclasses.dataclass(frozen=True)
class Run:
    """A few steps from one state.

    Attributes:
        states: On the host: the first state, and the one after each step.
        results: On the host: what each step returned beside the state.
        compiled: The names of the functions that each step compiled.
        last: The last state itself, not on the host.
    """

    states: list[trees.Host]
    results: list[trees.Host]
    compiled: list[list[str]]
    last: Any

    def still(self) -> set[str]:
        """Return the places that no step has changed."""
        first = self.states[0]
        moving = (trees.differing(first, state) for state in self.states[1:])
        return first.keys() - set().union(*moving)


class Loop:
    """The user's `init` and `step`, and how to call them.

    Args:
        init: Makes a state from meta_params.
        step: One step of training.
        steps: The number of steps of each run.
        seed: The seed of the keys.
        keep: As in `worker.restore`.
        adapt: As in `worker.restore`.

    Attributes:
        takes: The arguments of `step`: "state", "meta_params", "key".
        steps: The number of steps of each run.
    """

    def __init__(
        self,
        init: Callable[..., Any],
        step: Callable[..., Any],
        steps: int,
        seed: int,
        keep: Collection[str] = (),
        adapt: Callable[[Any, Any, Any], Any] | None = None,
    ) -> None:
        self._init = init
        self._keep = keep
        self._adapt = adapt
        self._step = step
        self._key = jax.random.key(seed)
        self.takes = _arguments(step)
        self.steps = steps

    def init(self, meta_params: Any) -> Any:
        """Return the state that `init` returns, not copied."""
        with _noted("init(meta_params)", meta_params):
            return self._init(copy.deepcopy(meta_params))

    def start(self, meta_params: Any) -> Any:
        """Return a fresh state, as `Worker.restore` makes it, with new buffers."""
        return trees.copied(self.init(meta_params))

    def restored(
        self, store: MemoryParams, path: str, meta_params: Any, donor: Any
    ) -> Any:
        """Return a saved state under meta_params, as `Worker.restore` makes it."""
        found = restoring.restored(
            Saved(path),
            meta_params,
            self.start,
            lambda saved, like: store.load(saved.path, like),
            lambda: donor,
            self._keep,
            self._adapt,
        )
        return found.state

    def step(self, state: Any, meta_params: Any, key: Any) -> tuple[Any, Any]:
        """Return the next state, and what else `step` returned."""
        given = {"state": state, "meta_params": meta_params, "key": key}
        before = jax.tree.structure(state)
        with _noted(f"step({', '.join(self.takes)})", meta_params):
            result = self._step(*[given[name] for name in self.takes])
        if result is None and references.has_any(state):
            return state, None  # Modules of nnx are changed in place.
        return _split(result, before, type(state))

    def key(self, number: int) -> jax.Array:
        """Return the key of a step."""
        return jax.random.fold_in(self._key, number)

    def run(self, state: Any, meta_params: Any) -> Run:
        """Some steps, each on new buffers.

        Raises:
            DonatedError: A step uses a buffer that it has donated.
        """
        run = Run([trees.on_host(state)], [], [], state)
        meta_params = copy.deepcopy(meta_params)
        for number in range(self.steps):
            given, key = trees.copied(state), self.key(number)
            with refusing_donated("step"), compiled() as names:
                state, result = self.step(given, meta_params, key)
            check_kept(state, "step", RETURNED)
            run.states.append(trees.on_host(state))
            run.results.append(trees.on_host(result))
            run.compiled.append(names)
        return dataclasses.replace(run, last=state)


@contextlib.contextmanager
def refusing_donated(place: str) -> Iterator[None]:
    """Turn JAX's error about a deleted buffer into one that names the place."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if not any(word in str(error) for word in _GONE):
            raise
        raise DonatedError(place, f"JAX says: {str(error).splitlines()[0]}") from error


def check_kept(state: Any, place: str, seen: str) -> None:
    """Refuse a state with buffers that were donated."""
    gone = trees.deleted(state)
    if gone:
        rest = f" and {len(gone) - 1} more" if gone[1:] else ""
        raise DonatedError(place, f"{seen} state{gone[0]}{rest}.")


@contextlib.contextmanager
def compiled() -> Iterator[list[str]]:
    """Yield the names of the functions that this thread compiles in the block."""
    _listen()
    outer = getattr(_COMPILING, "names", None)
    names: list[str] = []
    _COMPILING.names = names
    try:
        yield names
    finally:
        _COMPILING.names = outer


_COMPILING = threading.local()


@functools.cache
def _listen() -> None:
    """Begin to listen; once, because older JAX cannot stop again."""

    def compiled_one(event: str, duration_secs: float, **details: Any) -> None:
        del duration_secs
        names = getattr(_COMPILING, "names", None)
        if event == _COMPILED and names is not None:
            name = str(details.get("fun_name", "a function"))
            names.append(name.removeprefix("jit(").removesuffix(")"))

    jax.monitoring.register_event_duration_secs_listener(compiled_one)


@contextlib.contextmanager
def _noted(call: str, meta_params: Any) -> Iterator[None]:
    """Add to the traceback of an error how the function was called."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"check_loop called {call} with meta_params {meta_params!r}.")
        raise


def _arguments(step: Callable[..., Any]) -> tuple[str, ...]:
    """Return which of state, meta_params and key a step takes, in its order."""
    kinds = inspect.Parameter
    takes: list[str] = []
    for number, parameter in enumerate(inspect.signature(step).parameters.values()):
        name = parameter.name.strip("_").lower()
        known = _role(name) if number else "state"
        if parameter.kind is kinds.VAR_POSITIONAL:
            rest = ("state", "meta_params", "key")
            takes += [role for role in rest if role not in takes]
        if parameter.kind not in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            takes.append(known or ("key" if "meta_params" in takes else "meta_params"))
        elif known is None:
            break
        else:
            takes.append(known)
    if takes[:1] != ["state"] or len(set(takes)) < len(takes):
        raise TypeError(
            "step must take (state), (state, meta_params) or (state, meta_params, "
            f"key), got {inspect.signature(step)}. Wrap it: lambda state, "
            "meta_params, key: train_step(state, batch(key))."
        )
    return tuple(takes)


def _role(name: str) -> str | None:
    parts = name.split("_")
    if any(part in _DATA_NAMES for part in parts):
        return "state"  # A second state is refused below.
    if any(part in _KEY_NAMES for part in parts):
        return "key"
    return "meta_params" if name.startswith(_META_NAMES) else None


def _split(result: Any, before: Any, kind: type) -> tuple[Any, Any]:
    """Return the next state, and what else a step has returned."""
    if result is None:
        raise TypeError(
            "step must return the next state, or (state, anything), got None. Add the "
            "return; a state that is changed in place cannot be saved."
        )
    if type(result) is not tuple or jax.tree.structure(result) == before:
        return result, None
    first = result[0] if result else None
    if jax.tree.structure(first) == before or kind is not tuple:
        return first, result[1:]
    return result, None
