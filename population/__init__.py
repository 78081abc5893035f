"""Online hyperparameter control for JAX training loops.

Two calls in a loop of your own (`PopulationController`), or the `Worker` handle around
them; a mutator decides who goes on from what with which hyperparameters.
"""

from population.base import ActiveWorker as ActiveWorker
from population.base import Branch as Branch
from population.base import Checkpoint as Checkpoint
from population.base import Mutator as Mutator
from population.base import PopulationView as PopulationView
from population.base import Ref as Ref
from population.base import Report as Report
from population.base import Schedule as Schedule
from population.base import Start as Start
from population.base import Stop as Stop
from population.controller import PopulationController as PopulationController
from population.errors import JournalError as JournalError
from population.errors import ParamsError as ParamsError
from population.errors import PopulationError as PopulationError
from population.errors import RunMismatchError as RunMismatchError
from population.worker import Worker as Worker

__version__ = "0.1.0"
