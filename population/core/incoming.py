"""A report on its way into the journal."""

from __future__ import annotations

from typing import Any, NamedTuple


class Incoming(NamedTuple):
    """A report whose parts were checked and encoded, before any lock is taken.

    Attributes:
        worker_id: The slot that it names.
        generation_id: The generation that it names.
        step: Training steps.
        params: A storable value, `Saved`, or None.
        params_text: `params` encoded, or None.
        value: The value, or None.
        metrics: Further figures, or None.
        metrics_text: `metrics` encoded, or None.
        bytes: Size of what the params store has saved for this very report; None if it
            has saved nothing.
    """

    worker_id: int
    generation_id: str
    step: int
    params: Any
    params_text: str | None
    value: float | None
    metrics: Any
    metrics_text: str | None
    bytes: int | None = None

    @property
    def fresh(self) -> bool:
        """Whether the params store has saved `params` for this very report."""
        return self.bytes is not None
