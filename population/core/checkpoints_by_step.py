"""The checkpoints of one generation as a mapping, each loaded on access."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from population.base.types import Checkpoint


class CheckpointsByStep(Mapping[int, Checkpoint]):
    """One generation's checkpoints by step, ascending; each is loaded on access.

    Args:
        generation_id: The generation.
        get: Returns the checkpoint at a step, or None.
        span: Yields all of them by step.
    """

    def __init__(
        self,
        generation_id: str,
        get: Callable[[int], Checkpoint | None],
        span: Callable[[], Iterator[Checkpoint]],
    ) -> None:
        self._id = generation_id
        self._get = get
        self._span = span

    def __getitem__(self, step: int) -> Checkpoint:
        found = self._get(step)
        if found is None:
            raise KeyError(step)
        return found

    def __iter__(self) -> Iterator[int]:
        return (checkpoint.step for checkpoint in self._span())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"CheckpointsByStep({self._id!r}, {len(self)} checkpoints)"
