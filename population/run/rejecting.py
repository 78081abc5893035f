"""Has a slot continue from an earlier save if its own is damaged or lost.

A rejection is recorded, and stays: so the library rejects a save by itself only if the
store proves to be this run's, and if a power cut may have cost it. Anything else, such
as an unmounted disk or a folder that someone has emptied, is left to people.
"""

from __future__ import annotations

import logging

from population.base.errors import LostParamsError, ParamsError
from population.base.types import Checkpoint, Event
from population.core.state import RunState
from population.core.step import Step
from population.journal.records import Removal
from population.run.open_run import OpenRun
from population.run.transaction import Transaction

logger = logging.getLogger("population")
_AT_ONCE_S = 60.0  # A power cut may cost all saves of this time.
_LOST = "lost: "
_LONGEST_REASON = 200


def reject(run: OpenRun, worker_id: int, checkpoint: Checkpoint, reason: str) -> None:
    """Record that params are damaged, and have a slot continue from other ones.

    Args:
        run: The run.
        worker_id: The slot.
        checkpoint: The checkpoint from which the slot was to continue.
        reason: What is wrong with its params, for people.
    """

    def work(tx: Transaction) -> None:
        text, why = run.graph.params_text(checkpoint), _because(reason)
        if run.graph.at(checkpoint.row).params is not None:
            tx.do(Step((Removal(tx.state.row, text, why),)))
        present = tx.state.slots[worker_id].generation.generation_id
        own = present == checkpoint.generation_id
        if tx.tells:
            tx.events.append(Event("damaged", worker_id, checkpoint, reason))
        tx.resume(worker_id, why[:_LONGEST_REASON] if own else "")

    run.transact(work)


def replace(
    run: OpenRun, worker_id: int, checkpoint: Checkpoint, error: LostParamsError
) -> None:
    """Reject params that are lost; the slot then continues from its next resume point.

    Args:
        run: The run.
        worker_id: The slot.
        checkpoint: The checkpoint from which the slot was to continue.
        error: The error of the store.

    Raises:
        ParamsError: The store may not be this run's, or an older save of the same
            lineage is lost too: nothing is rejected.
    """
    with run.lock.lock:
        state = run.state()
        is_new = run.graph.at(checkpoint.row).params is not None
        first = _first_lost(run, state, worker_id)
    saved = _origin(run, checkpoint)
    if is_new and not run.params.is_proven():
        raise _unproven(error) from error
    if is_new and run.params.is_there(checkpoint.params):
        raise error  # Its disk was mounted since: nothing is lost.
    if is_new and first is not None and saved.time < first.time - _AT_ONCE_S:
        raise ParamsError(
            f"{error} A newer save of worker {worker_id} is lost, too, and a power "
            f"cut alone does not cost saves that are over {_AT_ONCE_S:.0f} s apart. "
            "Nothing was rejected this time. Put the files back, or go on from an "
            "older checkpoint: worker.reject(reason) in a loop, or population.fork."
        ) from error
    reject(run, worker_id, checkpoint, f"{_LOST}{error}")
    if first is None:
        logger.warning(
            "worker %d goes on from an earlier save, as that of step %d is lost: %s",
            worker_id,
            saved.step,
            error,
        )


def _unproven(error: LostParamsError) -> LostParamsError:
    found = LostParamsError(
        f"{error} Nothing was rejected, as the store does not have this run's mark: "
        "mount its disk, put the folder back, or pass the right params=. If the files "
        "are gone, call worker.reject(reason), or fork from an older checkpoint."
    )
    found.params = error.params
    return found


def _because(reason: str) -> str:
    return f"rejected: {reason}"


def _origin(run: OpenRun, checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint whose report has saved these params."""
    parent = run.graph.parent(checkpoint)
    while parent is not None and parent.params == checkpoint.params:
        checkpoint, parent = parent, run.graph.parent(parent)
    return checkpoint


def _first_lost(run: OpenRun, state: RunState, worker_id: int) -> Checkpoint | None:
    """Return where a slot was when the first of its saves was found lost.

    None if it has trained since, or none was lost.
    """
    found, generation = None, state.slots[worker_id].generation
    newest = state.slots[worker_id].newest
    while generation.reason.startswith(_because(_LOST)):
        if newest.step > generation.step:
            break
        before = f"{state.run}-{worker_id}-{generation.number - 1}"
        previous = run.graph.generation(before)
        if previous is None:
            break
        generation, newest = previous, run.graph.newest_of(previous)
        found = newest
    return found
