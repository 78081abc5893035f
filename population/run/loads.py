"""Loads the params of checkpoints, and says why that is not possible."""

from __future__ import annotations

from typing import Any

from population.base.codec import HELD
from population.base.errors import MisfitError, ParamsError
from population.base.types import Checkpoint, Saved
from population.core.retention import saved_text
from population.journal.records import UNREACHABLE, Removal
from population.run.open_run import OpenRun

_NEAREST = "controller.graph.resume_point(checkpoint) is the nearest that has some."


def load(run: OpenRun, checkpoint: Checkpoint, like: Any) -> Any:
    """Return a checkpoint's params, as the run has them now.

    Args:
        run: The run.
        checkpoint: A checkpoint, which may be older than what was recorded since.
        like: As for a params store.

    Raises:
        ParamsError: It has no params, or they cannot be read.
    """
    found = _present(run, checkpoint)
    if found is None:  # It is of another run.
        return load_params(run, checkpoint.params, like)
    if found.params is None:
        raise ParamsError(_lacks(run, found))
    try:
        return run.params.load(found.params, like)
    except MisfitError:
        raise
    except ParamsError as error:
        found = _present(run, checkpoint)
        if found is not None and found.params is None:  # Removed at this moment.
            raise ParamsError(_lacks(run, found)) from error
        raise


def load_params(run: OpenRun, params: Any, like: Any) -> Any:
    """Return the content of a checkpoint's params.

    Args:
        run: The run.
        params: The params of a checkpoint, which may have lost them since.
        like: As for a params store.

    Raises:
        ParamsError: `params` is None, or they cannot be read.
    """
    if params is None:
        raise ParamsError(
            "load needs the params of a checkpoint, got None: it was reported without "
            "a state, or begins with fresh weights, which init makes."
        )
    try:
        return run.params.load(params, like)
    except MisfitError:
        raise
    except ParamsError as error:
        is_saved = type(params) is Saved
        why = _removed(run, saved_text(params.path)) if is_saved else None
        if why is None:
            raise
        raise ParamsError(f"The params {params.path!r} {why}") from error


def _present(run: OpenRun, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return a checkpoint as the run has it now; None if it is of another run."""
    found = run.graph.get_checkpoint(checkpoint.ref)
    return None if found is None or found.row != checkpoint.row else found


def _lacks(run: OpenRun, checkpoint: Checkpoint) -> str:
    """Return the error message for a checkpoint without params."""
    place = f"step {checkpoint.step} of {checkpoint.generation_id}"
    had = run.graph.had_params(checkpoint)
    if had is None:
        return (
            f"There are no params of {place}: it was reported without a state, or "
            f"begins with fresh weights. {_NEAREST}"
        )
    if had.startswith(HELD):
        return (
            f"The params of {place} are lost: they were only in the memory of a "
            f"process. {_NEAREST}"
        )
    why = _removed(run, had) or f"were removed. {_NEAREST}"
    return f"The params of {place} {why}"


def _removed(run: OpenRun, text: str) -> str | None:
    """Return why encoded params were removed; None if they were not."""
    with run.lock.lock:
        reasons = [r.reason for r in run.journal.all(Removal) if r.params == text]
    if not reasons:
        return None
    if reasons[-1] == UNREACHABLE:
        return (
            "were removed, as nothing could need them any more. Train with "
            "keep=Keep(...) to keep more."
        )
    return f"were removed: {reasons[-1]}. {_NEAREST}"
