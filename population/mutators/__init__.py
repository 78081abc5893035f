"""The policies, one a file. `REGISTRY` lists them; the tests walk it.

To add one, write `population/mutators/your_policy.py` in the order of the others and
add its class to `REGISTRY`. The code that policies share is public, for yours, too:
`explore` calls a user's `mutate_fn`, `rounds` has the barriers of policies whose
workers wait, `exploit` the selection rules, and `standings` the members that are
compared.
"""

from population.base.interfaces import Mutator
from population.mutators.explore import MutationContext as MutationContext
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

__all__ = [
    "REGISTRY",
    "BranchingSingleMachine",
    "FixedSchedule",
    "MultiFrequencyPBT",
    "MutationContext",
    "PopulationBasedTraining",
    "SuccessiveHalving",
    "TwoSpeedPBT",
    "WinnerTakeAllGenetic",
]

REGISTRY: dict[str, type[Mutator]] = {  # type: ignore[type-arg]
    "winner": WinnerTakeAllGenetic,
    "fixed": FixedSchedule,
    "explore": BranchingSingleMachine,
    "pbt": PopulationBasedTraining,
    "two_speed": TwoSpeedPBT,
    "multi": MultiFrequencyPBT,
    "halving": SuccessiveHalving,
}
