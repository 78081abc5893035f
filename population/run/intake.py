"""The checks of a report: what is refused, is refused before any lock is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from population.base import codec
from population.base.types import Held, Ref
from population.core import reports
from population.core.incoming import Incoming

if TYPE_CHECKING:
    from population.run.open_run import Session


def check_and_save(
    session: Session,
    worker_id: Any,
    generation_id: Any,
    step: Any,
    params: Any,
    value: Any,
    metrics: Any = None,
    *,
    plain: bool,
) -> Incoming:
    """Check and encode a report's parts; save its arrays."""
    worker_id = session.check_id(worker_id)
    generation_id = check_generation_id(generation_id)
    step = codec.integer(step, "step")
    value = codec.number(value)
    text = None if metrics is None else codec.encode(metrics, "metrics")
    metrics = None if text is None else codec.decode(text)
    if type(params) is Held:
        held = session.held.made(params)
        name = codec.encode_params(held)
        return Incoming(
            worker_id, generation_id, step, held, name, value, metrics, text
        )
    if params is not None and type(params) is not str:
        with session.news.lock:
            if session.journal.generation(generation_id) is None:
                params = None  # The report will be dropped: save nothing for it.
    return session.keeper.prepare(
        worker_id, generation_id, step, params, value, metrics, text, plain=plain
    )


def supersedes(session: Session, worker_id: int, generation_id: Any, step: int) -> bool:
    """Whether a poll names an older generation of the worker, at a new step."""
    if generation_id is None or generation_id == "":
        return False
    generation = session.journal.generation(check_generation_id(generation_id))
    if generation is None:
        what = "is unknown; the slot was handed out"
        session.slots.once(generation_id, what)
        return False
    if generation.worker_id != worker_id:
        return False
    reports.check_step(generation, step)
    return session.graph.get_checkpoint(Ref(generation_id, step)) is None


def check_generation_id(generation_id: Any) -> str:
    """A generation id as it was handed out.

    Raises:
        TypeError: If it is no str.
    """
    if not isinstance(generation_id, str):
        raise TypeError(
            "generation_id must be the str that the poll handed out, got "
            f"{type(generation_id).__name__}."
        )
    return generation_id
