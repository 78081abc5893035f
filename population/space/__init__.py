"""Search spaces: the values that meta_params may have, drawn and changed at random.

A space is a tree of the same structure as the meta_params: dicts, lists and tuples,
with a domain in place of each hyperparameter, and constants everywhere else.

    space = {"learning_rate": LogUniform(1e-5, 1e-1), "layers": Integer(1, 8)}
    first = [sample(space, rng) for _ in range(8)]
    mutate_fn = Perturb(space)

`PopulationController.from_space(space, size, ...)` draws the first population.
`to_unit(space, meta_params)` is their vector of numbers from 0 to 1, for policies that
fit a model or measure distances, and `from_unit(space, vector)` turns one back.
"""

from population.space.choices import Categorical as Categorical
from population.space.choices import Ordinal as Ordinal
from population.space.domain import Domain as Domain
from population.space.explore import Gaussian as Gaussian
from population.space.explore import Perturb as Perturb
from population.space.numbers import Integer as Integer
from population.space.numbers import LogUniform as LogUniform
from population.space.numbers import OneMinusLogUniform as OneMinusLogUniform
from population.space.numbers import Uniform as Uniform
from population.space.trees import contains as contains
from population.space.trees import domains as domains
from population.space.trees import from_data as from_data
from population.space.trees import grid as grid
from population.space.trees import misfit as misfit
from population.space.trees import sample as sample
from population.space.trees import stratified as stratified
from population.space.trees import to_data as to_data
from population.space.units import from_unit as from_unit
from population.space.units import to_unit as to_unit

__all__ = [
    "Categorical",
    "Domain",
    "Gaussian",
    "Integer",
    "LogUniform",
    "OneMinusLogUniform",
    "Ordinal",
    "Perturb",
    "Uniform",
    "contains",
    "domains",
    "from_data",
    "from_unit",
    "grid",
    "misfit",
    "sample",
    "stratified",
    "to_data",
    "to_unit",
]
