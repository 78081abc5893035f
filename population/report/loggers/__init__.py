"""Write the events of a run where people look at them: `on_event=` takes a logger.

Each is a function that returns an `EventLogger`. Loggers of other services are a few
lines: `docs/loggers-and-progress.md` has recipes.
"""

from population.report.loggers.base import EventLogger as EventLogger
from population.report.loggers.base import named as named
from population.report.loggers.combining import combined as combined
from population.report.loggers.to_csv import csv as csv
from population.report.loggers.to_tensorboard import tensorboard as tensorboard

__all__ = [
    "EventLogger",
    "combined",
    "csv",
    "named",
    "tensorboard",
]
