"""The arguments of a controller, about the run that it opens."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from population.base.types import Stop
from population.core.retention import Keep
from population.run.events import OnEvent


class Options(NamedTuple):
    """What is fixed about a run while a controller has it open.

    Attributes:
        mode: "min" or "max".
        seed: The run's seed.
        stop: When the run ends.
        worker_timeout: Seconds of silence after which a slot is free; None: never.
        keep: What is kept although nothing can reach it any more; None: as recorded.
        on_event: Is called with events; None: there is no callback.
        clock: Gives seconds since the epoch.
    """

    mode: str
    seed: int
    stop: Stop
    worker_timeout: float | None
    keep: Keep | None
    on_event: OnEvent | None
    clock: Callable[[], float]
