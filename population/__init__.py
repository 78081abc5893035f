"""Online hyperparameter control for JAX training loops.

Your training loop makes the two calls of `PopulationController`, or uses a `Worker`,
which wraps them. A mutator decides from which checkpoint each slot continues, and with
which hyperparameters.
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
    from population.offline.fork import fork as fork
    from population.offline.replay import replay as replay
    from population.reader.recorded_run import read as read

__version__ = "0.1.0"
_LOADED_WHEN_USED = {
    "fork": "population.offline.fork",
    "read": "population.reader.recorded_run",
    "replay": "population.offline.replay",
}


def __getattr__(name: str) -> typing.Any:
    """Load `fork`, `read` and `replay` on first use."""
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LOADED_WHEN_USED[name]), name)
    globals()[name] = found  # Else the module of that name would be found next time.
    return found
