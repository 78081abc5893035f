"""The params stores for arrays: in memory, in files, or sharded by Orbax.

A store has three methods: `save`, `load`, `remove` (`population.base.ParamsStore`). The
stores of this package also have `names`, which lists their saves, including incomplete
ones of a killed process. Those that outlive the process also have `claim` and
`claimed`: a note, in the store, of the journal in which a run is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from population.params.checks import check as check
from population.params.files import FileParams as FileParams
from population.params.memory import MemoryParams as MemoryParams

__all__ = [
    "FileParams",
    "MemoryParams",
    "check",
]

if TYPE_CHECKING:
    from population.params.orbax import OrbaxParams as OrbaxParams


def __getattr__(name: str) -> Any:
    """Load Orbax on the first use of its store."""
    if name == "OrbaxParams":
        from population.params.orbax import OrbaxParams

        return OrbaxParams
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
