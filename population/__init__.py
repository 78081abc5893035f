"""Online hyperparameter control for JAX training loops.

Your training loop makes the two calls of `PopulationController`, or uses a `Worker`,
which wraps them. A mutator decides from which checkpoint each slot continues, and with
which hyperparameters.

To train: `PopulationController`, `Worker`, `Start`, `Stop`, `Keep`; the policies are in
`population.mutators`, search spaces in `population.space`, engines in
`population.engines`.

To look at a run: `read`, `replay`, `fork`, `Checkpoint`, `Event`, `Schedule`.

To write a policy: `Mutator`, `PopulationView`, `CheckpointGraph` (the type of
`view.graph`), `Report`, `Failure`, `Branch`, `Retire`, `Ref`, `ActiveWorker`. The
modules `rounds` and `explore` of `population.mutators` have parts for yours, and
`population.testing` checks it.

To catch: `PopulationError`, or one of its kinds, `JournalError`, `MisfitError`,
`ParamsError` and `RunMismatchError`; the rarer ones are in `population.base`.
"""

import importlib
import typing

from population.base.errors import JournalError as JournalError
from population.base.errors import MisfitError as MisfitError
from population.base.errors import ParamsError as ParamsError
from population.base.errors import PopulationError as PopulationError
from population.base.errors import RunMismatchError as RunMismatchError
from population.base.interfaces import Mutator as Mutator
from population.base.interfaces import PopulationView as PopulationView
from population.base.schedule import Schedule as Schedule
from population.base.types import ActiveWorker as ActiveWorker
from population.base.types import Branch as Branch
from population.base.types import Checkpoint as Checkpoint
from population.base.types import Event as Event
from population.base.types import Ref as Ref
from population.base.types import Report as Report
from population.base.types import Retire as Retire
from population.base.types import Start as Start
from population.base.types import Stop as Stop
from population.controller import PopulationController as PopulationController
from population.core.retention import Keep as Keep
from population.worker import Worker as Worker

if typing.TYPE_CHECKING:
    from population.base.interfaces import CheckpointGraph as CheckpointGraph
    from population.base.types import Failure as Failure
    from population.offline.fork import fork as fork
    from population.offline.replay import replay as replay
    from population.reader.recorded_run import read as read

__version__ = "0.1.0"
_LOADED_WHEN_USED = {
    "CheckpointGraph": "population.base.interfaces",
    "Failure": "population.base.types",
    "fork": "population.offline.fork",
    "read": "population.reader.recorded_run",
    "replay": "population.offline.replay",
}
__all__ = [
    "ActiveWorker",
    "Branch",
    "Checkpoint",
    "CheckpointGraph",
    "Event",
    "Failure",
    "JournalError",
    "Keep",
    "MisfitError",
    "Mutator",
    "ParamsError",
    "PopulationController",
    "PopulationError",
    "PopulationView",
    "Ref",
    "Report",
    "Retire",
    "RunMismatchError",
    "Schedule",
    "Start",
    "Stop",
    "Worker",
    "fork",
    "read",
    "replay",
]


def __getattr__(name: str) -> typing.Any:
    """Load what is needed more rarely, such as `fork`, on first use."""
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LOADED_WHEN_USED[name]), name)
    globals()[name] = found  # Else the module of that name would be found next time.
    return found


def __dir__() -> list[str]:
    """Return the names of the module, with those that are loaded on first use."""
    return sorted({*globals(), *_LOADED_WHEN_USED})
