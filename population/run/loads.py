"""Loads the params of checkpoints, and says why that is not possible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from population.base.codec import HELD
from population.base.errors import MisfitError, ParamsError
from population.base.types import Checkpoint, Saved
from population.core.graph import JournalGraph
from population.core.retention import saved_text
from population.journal.base import Journal
from population.journal.records import UNREACHABLE, Removal
from population.run.open_run import OpenRun

_NEAREST = "controller.graph.resume_point(checkpoint) is the nearest that has some."


class Loads:
    """Loads the params of checkpoints in one journal.

    Args:
        journal: The journal.
        graph: Its checkpoints.
        lock: Held while this reads the journal.
        read: Returns the content of params, and takes a tree `like`.
    """

    def __init__(
        self,
        journal: Journal,
        graph: JournalGraph,
        lock: contextlib.AbstractContextManager[object],
        read: Callable[[Any, Any], Any],
    ) -> None:
        self._journal, self._graph, self._lock = journal, graph, lock
        self._read = read

    def load(self, checkpoint: Checkpoint, like: Any) -> Any:
        """Return a checkpoint's params, as the run has them now.

        Args:
            checkpoint: A checkpoint, which may be older than what was recorded since.
            like: As for a params store.

        Raises:
            ParamsError: It has no params, or they cannot be read.
        """
        found = self._present(checkpoint)
        if found is None:  # It is of another run.
            return self.params(checkpoint.params, like)
        if found.params is None:
            raise ParamsError(self._lacks(found))
        try:
            return self._read(found.params, like)
        except MisfitError:
            raise
        except ParamsError as error:
            found = self._present(checkpoint)
            if found is not None and found.params is None:  # Removed at this moment.
                raise ParamsError(self._lacks(found)) from error
            raise

    def params(self, params: Any, like: Any) -> Any:
        """Return the content of a checkpoint's params.

        Args:
            params: The params of a checkpoint, which may have lost them since.
            like: As for a params store.

        Raises:
            ParamsError: `params` is None, or they cannot be read.
        """
        if params is None:
            raise ParamsError(
                "load needs the params of a checkpoint, got None: it was reported "
                "without a state, or begins with fresh weights, which init makes."
            )
        try:
            return self._read(params, like)
        except MisfitError:
            raise
        except ParamsError as error:
            is_saved = type(params) is Saved
            why = self._removed(saved_text(params.path)) if is_saved else None
            if why is None:
                raise
            raise ParamsError(f"The params {params.path!r} {why}") from error

    def _present(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Return a checkpoint as the run has it now; None if it is of another run."""
        found = self._graph.get_checkpoint(checkpoint.ref)
        return None if found is None or found.row != checkpoint.row else found

    def _lacks(self, checkpoint: Checkpoint) -> str:
        """Return the error message for a checkpoint without params."""
        place = f"step {checkpoint.step} of {checkpoint.generation_id}"
        had = self._graph.had_params(checkpoint)
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
        why = self._removed(had) or f"were removed. {_NEAREST}"
        return f"The params of {place} {why}"

    def _removed(self, text: str) -> str | None:
        """Return why encoded params were removed; None if they were not."""
        with self._lock:
            reasons = [r.reason for r in self._journal.all(Removal) if r.params == text]
        if not reasons:
            return None
        if reasons[-1] == UNREACHABLE:
            return (
                "were removed, as nothing could need them any more. Train with "
                "keep=Keep(...) to keep more."
            )
        return f"were removed: {reasons[-1]}. {_NEAREST}"


def of(run: OpenRun) -> Loads:
    """Return what loads the params of an open run."""
    return Loads(run.journal, run.graph, run.lock.lock, run.params.load)
