"""The mutators are in `population/mutators/`; this package exports the same objects.

Each module is here too, of a policy and of what policies share: `from mutators import
winner_take_all_genetic, rounds`, and `from mutators.explore import MutationContext`.
"""

import sys as _sys

from population.mutators import REGISTRY as REGISTRY
from population.mutators import BranchingSingleMachine as BranchingSingleMachine
from population.mutators import FixedSchedule as FixedSchedule
from population.mutators import MultiFrequencyPBT as MultiFrequencyPBT
from population.mutators import MutationContext as MutationContext
from population.mutators import PopulationBasedTraining as PopulationBasedTraining
from population.mutators import SuccessiveHalving as SuccessiveHalving
from population.mutators import TwoSpeedPBT as TwoSpeedPBT
from population.mutators import WinnerTakeAllGenetic as WinnerTakeAllGenetic
from population.mutators import exploit as exploit
from population.mutators import explore as explore
from population.mutators import fixed_schedule as fixed_schedule
from population.mutators import multi_frequency as multi_frequency
from population.mutators import population_based_training as population_based_training
from population.mutators import rounds as rounds
from population.mutators import single_worker_explore as single_worker_explore
from population.mutators import standings as standings
from population.mutators import successive_halving as successive_halving
from population.mutators import two_speed as two_speed
from population.mutators import winner_take_all_genetic as winner_take_all_genetic

for _module in (
    exploit,
    explore,
    fixed_schedule,
    multi_frequency,
    population_based_training,
    rounds,
    single_worker_explore,
    standings,
    successive_halving,
    two_speed,
    winner_take_all_genetic,
):
    # An import of this name finds the same module, and so the same classes.
    _sys.modules[_module.__name__.removeprefix("population.")] = _module
