"""Checks the arguments of `vectorized.run`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from population.base.refusals import shortly
from population.engines.stacked.autotune import BATCHINGS

_AXES: dict[str, tuple[int | None, int | None]] = {
    "data": (None, None),
    "batches": (0, 0),
    "shared_batches": (None, 0),
}


class Source(NamedTuple):
    """The source of the batches.

    Attributes:
        argument: The argument of `vectorized.run`: "data", "batches" or
            "shared_batches".
        given: The data for every step, or the user's function.
    """

    argument: str
    given: Any

    @property
    def shared(self) -> bool:
        """Whether all members get the same batch at the same step."""
        return self.argument == "shared_batches"

    @property
    def axes(self) -> tuple[int | None, int | None]:
        """The axes of a chunk of batches over rows and over steps, if it has them."""
        return _AXES[self.argument]

    def batch(self, seed: int, worker_id: int, step: int) -> Any:
        """Return the batch of one member at one step."""
        if self.argument == "data":
            return self.given
        try:
            if self.shared:
                return self.given(seed, step)
            return self.given(seed, worker_id, step)
        except BaseException as error:
            self.note(error, worker_id, step)
            raise

    def note(self, error: BaseException, worker_id: int, step: int) -> None:
        """Add a note to an error that names the batch."""
        error.add_note(f"This was raised by {self.place(worker_id, step)}.")

    def place(self, worker_id: int, step: int) -> str:
        """Describe a batch in words."""
        worker = "" if self.shared else f"worker {worker_id}, "
        return f"{self.argument} for {worker}step {step}"


class Request(NamedTuple):
    """The arguments of `vectorized.run`.

    Attributes:
        functions: `init`, `step` and `evaluate`.
        source: The source of the batches.
        evaluation: The batch of `evaluate`.
        steps_per_report: Steps of a round.
        save_every: Rounds from one save to the next.
        batching: "vmap", "map", "loop" or "auto".
        devices: The devices; None: all local ones.
        categories: By name, the values that become codes, or None.
        max_batch: The largest batch size, or those by name, or None.
        keep: Names of injected numbers that `step` changes by itself.
    """

    functions: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]
    source: Source
    evaluation: Any
    steps_per_report: int
    save_every: int
    batching: str
    devices: Sequence[Any] | None
    categories: Mapping[str, Sequence[Any]] | None
    max_batch: int | Mapping[str, int] | None
    keep: Collection[str]

    def checked(self) -> Request:
        """Return the request with its devices as a list, after a check.

        Raises:
            ValueError: An option is invalid; the message names it.
        """
        for name in ("steps_per_report", "save_every"):
            count = getattr(self, name)
            if type(count) is not int or count < 1:
                raise ValueError(f"{name} must be a positive int, got {count!r}.")
        known, devices = (*BATCHINGS, "auto"), self.devices
        if self.batching not in known:
            raise ValueError(f"batching must be one of {known}, got {self.batching!r}.")
        if isinstance(devices, np.ndarray):  # Those of a mesh.
            devices = devices.flatten().tolist()
        if devices is not None and not _are_devices(devices):
            raise ValueError(
                "devices must be a list of some of JAX's devices, each once, got "
                f"{devices!r}. Take some of jax.devices(), or leave it out to use all "
                "local ones."
            )
        return self._replace(devices=devices)


def _are_devices(devices: Any) -> bool:
    listed = isinstance(devices, (list, tuple)) and len(devices) > 0
    known = listed and all(isinstance(device, jax.Device) for device in devices)
    return known and len(set(devices)) == len(devices)


def source(data: Any, batches: Any, shared_batches: Any) -> Source:
    """Return the source of the batches; without one, steps get None.

    Raises:
        ValueError: Several were given.
        TypeError: `batches` or `shared_batches` is not a function.
    """
    given = {"data": data, "batches": batches, "shared_batches": shared_batches}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ValueError(
            f"Batches come from one place, got {' and '.join(named)}. Give data= for "
            "arrays that every step sees, batches= for a function of (seed, worker_id, "
            "step), or shared_batches= for one of (seed, step)."
        )
    for name in ("batches", "shared_batches"):
        if given[name] is not None and not callable(given[name]):
            raise TypeError(
                f"{name} must be a function, got {type(given[name]).__name__}. Arrays "
                "that every step sees are data=."
            )
    name = named[0] if named else "data"
    return Source(name, given[name])


def check_arrays(name: str, tree: Any) -> None:
    """Refuse leaves that cannot be moved to a device.

    Raises:
        TypeError: A leaf is neither a number nor an array of numbers; it is named.
        ValueError: A whole number does not fit the integers of the device.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        dtype = getattr(leaf, "dtype", np.dtype(type(leaf)))
        keys = jnp.issubdtype(dtype, jax.dtypes.prng_key)
        if keys and name in ("batches", "shared_batches"):
            raise TypeError(
                f"{name} must return arrays that NumPy knows, got PRNG keys in "
                f"{name}{jax.tree_util.keystr(path)}. Each step gets a key of its own; "
                "for others return jax.random.key_data(key), and wrap it in step."
            )
        if not (keys or dtype == np.bool_ or jnp.issubdtype(dtype, np.number)):
            what = f"{type(leaf).__name__} {shortly(leaf)}"
            what = f"an array of {dtype}" if hasattr(leaf, "dtype") else what
            advice = "Encode other values as numbers."
            if name == "data" and (isinstance(leaf, Iterator) or callable(leaf)):
                advice = (
                    "For a batch of its own at each step pass batches=, a function of "
                    "(seed, worker_id, step)."
                )
            raise TypeError(
                f"{name} must hold arrays of numbers or bools, got {what} in "
                f"{name}{jax.tree_util.keystr(path)}. {advice}"
            )
        if not keys and not isinstance(leaf, jax.Array):
            check_whole(np.asarray(leaf), f"{name}{jax.tree_util.keystr(path)}")


def check_whole(array: npt.NDArray[Any], place: str) -> None:
    """Refuse whole numbers that do not fit the integers of the device.

    Raises:
        ValueError: Some do not fit; the message names their place.
    """
    if array.dtype == np.dtype(object):  # An int beyond 64 bits.
        raise ValueError(f"{place} must fit 64 bits, got {array!r}.")
    kind = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))
    if kind == array.dtype or not np.issubdtype(kind, np.integer) or not array.size:
        return
    limits, low, high = np.iinfo(kind), int(array.min()), int(array.max())
    if not limits.min <= low <= high <= limits.max:
        raise ValueError(
            f"{place} must fit {kind}, as JAX has it, got numbers from {low} to "
            f"{high}. Make them smaller, or set jax_enable_x64."
        )
