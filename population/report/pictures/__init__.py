"""Pictures of a run, with matplotlib: each takes the run, draws, and returns the axes.

    axes = learning_curves(population.read("runs/first"), top=4)
    axes.figure.savefig("curves.png")

None of them changes a setting of matplotlib or needs `pyplot`. Needs the extra
`report`: `pip install population-jax[report]`.
"""

from population.report.pictures.comparison import compare as compare
from population.report.pictures.comparison import compare_sizes as compare_sizes
from population.report.pictures.curves import learning_curves as learning_curves
from population.report.pictures.files import save as save
from population.report.pictures.schedules import hyperparameter as hyperparameter
from population.report.pictures.schedules import winner as winner
from population.report.pictures.settings import explored as explored
from population.report.pictures.settings import explored_pairs as explored_pairs
from population.report.pictures.snapshot import Snapshot as Snapshot
from population.report.pictures.tree import lineage_tree as lineage_tree
from population.report.pictures.whole import progress as progress

__all__ = [
    "Snapshot",
    "compare",
    "compare_sizes",
    "explored",
    "explored_pairs",
    "hyperparameter",
    "learning_curves",
    "lineage_tree",
    "progress",
    "save",
    "winner",
]
