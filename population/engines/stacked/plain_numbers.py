"""What to do where a function needs a hyperparameter as a plain number of Python."""

from __future__ import annotations

import traceback

import jax

_DROP = (
    "Drop by hand, in one line: jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape),"
    " x / (1 - rate), 0)"
)
_COUNT = (
    "Have all batches of the largest size, and count the first ones of each: counts = "
    "vectorized.mask(n, size), and jnp.mean(losses, where=counts)"
)
_THREADS = "train with population.engines.threads"


def refusal(function: str, names: str, error: BaseException) -> str:
    """Return the message of the error that tells the user.

    Args:
        function: "init", "step" or "evaluate".
        names: The hyperparameters that it needs as plain numbers.
        error: What JAX has raised, with its traceback.
    """
    place = _place(error)
    start = f"{function} must not need {names} as a plain number, as {place} does"
    if isinstance(error, jax.errors.TracerBoolConversionError):
        if "dropout" in place.lower() or "drop" in names.lower():
            return (
                f"{start}: all members are one program, and each has a rate of its "
                f"own, which is an array in it. {_DROP}; or {_THREADS}."
            )
    if _is_float(error):
        return (
            f"{start}: all members are one program, and it is an array in it. Compute "
            "with jax.numpy: jnp.sqrt(x) in place of math.sqrt(x), and x in place of "
            f"float(x). Where a plain number is needed, {_THREADS}."
        )
    if _is_slice(error) or "batch" in names.lower():
        return (
            f"{start}: all members are one program. {_in_place(error)}As the size of a "
            f"slice or of an array it would give each its own shape. {_COUNT}, with "
            f"{names} as n. Where shapes must differ, {_THREADS}."
        )
    return (
        f"{start}: all members are one program, so that no shape, range or Python `if` "
        "may depend on meta_params. Use jnp.where, a mask, or lax.switch; where shapes "
        f"must differ, {_THREADS}."
    )


def of_a_layer(function: str, error: BaseException) -> str | None:
    """Return the message for a dropout layer whose rate is an array of the state."""
    place = _place(error)
    is_if = isinstance(error, jax.errors.TracerBoolConversionError)
    if not is_if or "dropout" not in place.lower():
        return None
    return (
        f"{function} must not give {place} an array as its rate: it needs a Python "
        "number, and in one program for all members what init makes of meta_params is "
        f"an array. {_DROP}, with the rate from meta_params; or {_THREADS}."
    )


def hint(error: BaseException) -> str | None:
    """Return advice on a shape, in case it was computed from meta_params."""
    if isinstance(error, jax.errors.NonConcreteBooleanIndexError):
        return (
            "A mask cannot be an index, as it would give each member its own shape. "
            "Keep all entries, and say which ones count: jnp.mean(losses, where=mask), "
            "or jnp.where(mask, x, 0)."
        )
    if _is_slice(error):
        return f"If the size of the slice is a batch size of meta_params: {_COUNT}."
    if _is_shape(error):
        return f"If the shape depends on a batch size of meta_params: {_COUNT}."
    return None


def _in_place(error: BaseException) -> str:
    """Return what to write in place of a Python `if` or of NumPy, if it was one."""
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return "In place of a Python `if` use jnp.where or lax.cond. "
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return "In place of NumPy use jax.numpy. "
    return ""


def _is_float(error: BaseException) -> bool:
    """Whether `float` got a traced number, also within a function as `math.sqrt`."""
    known = isinstance(error, jax.errors.ConcretizationTypeError)
    return known and "with the `float` function" in str(error)


def _is_shape(error: BaseException) -> bool:
    """Whether a traced number was used in a shape."""
    return isinstance(error, TypeError) and str(error).startswith("Shapes must be ")


def _is_slice(error: BaseException) -> bool:
    """Whether a traced number was used as the end of a slice of an array."""
    is_index = isinstance(error, IndexError) and "slice" in str(error).lower()
    return is_index and not isinstance(error, jax.errors.NonConcreteBooleanIndexError)


def _place(error: BaseException) -> str:
    """Return the innermost function outside of JAX in which an error was raised."""
    found = "it"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("jax", "jaxlib"):
            found = f"{frame.f_code.co_qualname} of {module}"
    return found
