"""The checks of a report: what is refused, is refused before any lock is taken."""

from __future__ import annotations

from typing import Any

from population.base import codec
from population.core.known import check_id
from population.core.reports import check_generation_id
from population.core.step import EncodedReport
from population.journal.base import MAX


def checked(
    size: int,
    worker_id: Any,
    generation_id: Any,
    step: Any,
    params: Any,
    value: Any,
    metrics: Any = None,
) -> EncodedReport:
    """Check a report's parts, and encode them but for its params."""
    if type(worker_id) is not int or not 0 <= worker_id < size:
        worker_id = check_id(size, worker_id)
    if type(step) is not int or not 0 <= step <= MAX:
        step = codec.integer(step, "step")
    if type(generation_id) is not str:
        generation_id = check_generation_id(generation_id)
    if type(value) is not float:
        value = codec.number(value)
    text = None if metrics is None else codec.encode(metrics, "metrics")
    plain = None if text is None else codec.decode(text)
    return EncodedReport(
        worker_id, generation_id, step, params, None, value, plain, text
    )
