"""RunColumns of equal length by name; some are made when they are first asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from population.space.trees import leaves

if TYPE_CHECKING:
    import pandas

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


class RunColumns(Mapping[str, NDArray[Any]]):
    """A table as NumPy arrays: `columns["step"]`; `dict(columns)` has all.

    Those whose texts must be decoded (`meta_params.x`, `metrics.y`, `has_params`) are
    made when one of them, or the list of all names, is first asked for.

    Args:
        rows: The number of rows.
        arrays: Columns by name, each of shape [rows].
        later: Functions that return further columns, by the name or the prefix that
            they have in common.

    Attributes:
        rows: The number of rows; `len` is the number of columns.
    """

    def __init__(
        self,
        rows: int,
        arrays: Arrays,
        later: Mapping[str, Callable[[], Arrays]] | None = None,
    ) -> None:
        self.rows = rows
        self._arrays = dict(arrays)
        self._later = dict(later or {})

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column, of shape [rows].

        Raises:
            KeyError: There is no such column; the message names those that there are.
        """
        if name not in self._arrays:
            for start in [s for s in self._later if str(name).startswith(s)]:
                self._make(start)
        if name not in self._arrays:
            raise KeyError(f"{name!r}; there are {', '.join(self)}")
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        for start in list(self._later):
            self._make(start)
        return iter(list(self._arrays))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        try:
            return type(name) is str and self[name] is not None
        except KeyError:
            return False

    def __repr__(self) -> str:
        waiting = [f"{start}..." for start in self._later]
        return f"RunColumns({self.rows} rows: {', '.join([*self._arrays, *waiting])})"

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with all columns. Needs pandas (the extra `report`)."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_pandas needs pandas: pip install 'population-jax[report]'. Without "
                "it, dict(columns) has the NumPy arrays."
            ) from error
        return pandas.DataFrame(dict(self))

    def _make(self, start: str) -> None:
        self._arrays |= self._later[start]()
        del self._later[start]


def flat(prefix: str, trees: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """Return a column for each leaf of some trees, such as `meta_params.x`.

    Args:
        prefix: The first part of the names. A tree that is one leaf is a column of this
            name; a leaf in a nested one has a name as `meta_params.a/b`.
        trees: A tree for each row; None: the row has none.

    Returns:
        Arrays of shape [rows]: float64 with NaN for what is missing where all leaves
        are numbers, else objects with None.
    """
    found: dict[str, dict[int, Any]] = {}
    for row, tree in enumerate(trees):
        if isinstance(tree, (Mapping, list, tuple)):
            for name, leaf in leaves(tree):
                found.setdefault(f"{prefix}.{name}", {})[row] = leaf
        elif tree is not None:
            found.setdefault(prefix, {})[row] = tree
    return {name: column(len(trees), cells) for name, cells in found.items()}


def column(rows: int, cells: Mapping[int, Any]) -> NDArray[Any]:
    """Return an array of shape [rows] with these cells; see `flat`."""
    if all(type(cell) in (int, float) for cell in cells.values()):
        numbers = np.full(rows, math.nan)
        numbers[list(cells)] = [_number(cell) for cell in cells.values()]
        return numbers
    return objects([cells.get(row) for row in range(rows)])


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """Return an array of objects, also where all of them are sequences."""
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # An int beyond the largest float.
        return math.inf if value > 0 else -math.inf
