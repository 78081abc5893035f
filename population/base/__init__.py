"""The types, interfaces and errors of the library, and the encoding of values."""

from population.base.errors import ClaimError as ClaimError
from population.base.errors import JournalError as JournalError
from population.base.errors import LostParamsError as LostParamsError
from population.base.errors import MisfitError as MisfitError
from population.base.errors import NoProgressError as NoProgressError
from population.base.errors import ParamsError as ParamsError
from population.base.errors import PopulationError as PopulationError
from population.base.errors import RunMismatchError as RunMismatchError
from population.base.interfaces import CheckpointGraph as CheckpointGraph
from population.base.interfaces import Mutator as Mutator
from population.base.interfaces import ParamsStore as ParamsStore
from population.base.interfaces import PopulationView as PopulationView
from population.base.schedule import Schedule as Schedule
from population.base.types import ActiveWorker as ActiveWorker
from population.base.types import Branch as Branch
from population.base.types import Checkpoint as Checkpoint
from population.base.types import Event as Event
from population.base.types import Failure as Failure
from population.base.types import InMemory as InMemory
from population.base.types import Ref as Ref
from population.base.types import Report as Report
from population.base.types import Retire as Retire
from population.base.types import RunPath as RunPath
from population.base.types import Saved as Saved
from population.base.types import Start as Start
from population.base.types import Stop as Stop

__all__ = [
    "ActiveWorker",
    "Branch",
    "Checkpoint",
    "CheckpointGraph",
    "ClaimError",
    "Event",
    "Failure",
    "InMemory",
    "JournalError",
    "LostParamsError",
    "MisfitError",
    "Mutator",
    "NoProgressError",
    "ParamsError",
    "ParamsStore",
    "PopulationError",
    "PopulationView",
    "Ref",
    "Report",
    "Retire",
    "RunMismatchError",
    "RunPath",
    "Saved",
    "Schedule",
    "Start",
    "Stop",
]
