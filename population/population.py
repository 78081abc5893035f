"""The records and the controller under the name of the module that others import.

Programs for the population module of learned_optimization begin with
`from learned_optimization.population import population as pop_mod`. With `population`
in place of the root, that import finds this module, and in it the same objects as in
the package itself. New programs write `import population`.
"""

from population.base.interfaces import Mutator as Mutator
from population.base.types import ActiveWorker as ActiveWorker
from population.base.types import Checkpoint as Checkpoint
from population.controller import PopulationController as PopulationController
