"""The mutators are in `population/mutators/`; this package exports the same objects."""

from population.mutators import REGISTRY as REGISTRY
from population.mutators import BranchingSingleMachine as BranchingSingleMachine
from population.mutators import FixedSchedule as FixedSchedule
from population.mutators import MultiFrequencyPBT as MultiFrequencyPBT
from population.mutators import PopulationBasedTraining as PopulationBasedTraining
from population.mutators import SuccessiveHalving as SuccessiveHalving
from population.mutators import TwoSpeedPBT as TwoSpeedPBT
from population.mutators import WinnerTakeAllGenetic as WinnerTakeAllGenetic
