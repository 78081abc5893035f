"""The policies, one a file. `REGISTRY` lists them; the tests walk it.

To add one, write `population/mutators/your_policy.py` in the order of the others and
add its class to `REGISTRY`. `explore`, `exploit`, `standings` and `rounds` have the
code that policies share.
"""

from population.base.interfaces import Mutator
from population.mutators.fixed_schedule import FixedSchedule as FixedSchedule
from population.mutators.multi_frequency import MultiFrequencyPBT as MultiFrequencyPBT
from population.mutators.population_based_training import (
    PopulationBasedTraining as PopulationBasedTraining,
)
from population.mutators.single_worker_explore import (
    BranchingSingleMachine as BranchingSingleMachine,
)
from population.mutators.successive_halving import (
    SuccessiveHalving as SuccessiveHalving,
)
from population.mutators.two_speed import TwoSpeedPBT as TwoSpeedPBT
from population.mutators.winner_take_all_genetic import (
    WinnerTakeAllGenetic as WinnerTakeAllGenetic,
)

REGISTRY: dict[str, type[Mutator]] = {  # type: ignore[type-arg]
    "winner": WinnerTakeAllGenetic,
    "fixed": FixedSchedule,
    "explore": BranchingSingleMachine,
    "pbt": PopulationBasedTraining,
    "two_speed": TwoSpeedPBT,
    "multi": MultiFrequencyPBT,
    "halving": SuccessiveHalving,
}
