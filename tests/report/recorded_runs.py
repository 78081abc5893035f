"""Recorded runs that are made up: as large, and as hostile, as a test needs them."""

from __future__ import annotations

import math
import pathlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from population import Checkpoint, Stop
from population.reader.run_status import RunStatus

NAMES = ("learning_rate", "momentum", "optimizer/name")
_STEP = 10
_EVERY = 4  # Reports between two decisions.
_BEGAN = 1.7e9
if TYPE_CHECKING:
    from population.reader.recorded_run import RecordedRun

Columns = dict[str, NDArray[Any]]


class MadeUp:
    """Members that descend to a loss; the worst fifth copies the best one each round.

    Args:
        members: The number of slots.
        checkpoints: Of all slots together, about so many.
        names: The names of a number over decades, a number near one, and a text.
        reasons: The reasons of branches, in turns.
        diverges: Whether the last slot's last value is NaN.
    """

    def __init__(
        self,
        members: int,
        checkpoints: int,
        names: Sequence[str] = NAMES,
        reasons: Sequence[str] = ("copied the best fifth",),
        diverges: bool = False,
    ) -> None:
        self._names = names
        self._reasons = reasons
        self._choose = random.Random(members)
        self._checkpoints: list[dict[str, Any]] = []
        self._branches: list[dict[str, Any]] = []
        self._newest = [0] * members  # Index of a checkpoint, by slot.
        self._opened = [0] * members  # Generations, by slot.
        self._distance = [3.0 + self._choose.random() for _ in range(members)]
        for slot in range(members):
            self._open(slot, -1, self._first(), "start")
        turn = 0
        while len(self._checkpoints) < checkpoints:
            turn += 1
            for slot in range(members):
                self._report(slot)
            if turn % _EVERY == 0:
                self._decide()
        if diverges:
            self._report(members - 1, float("nan"))
        self.space: Any = None
        self.environment: dict[str, str] = {}
        self.warnings: tuple[str, ...] = ()
        self.log_dir: pathlib.Path | None = pathlib.Path("runs/made-up")

    def _first(self) -> list[Any]:
        choose = self._choose
        rate, near = 10 ** choose.uniform(-4, -1), 1 - 10 ** choose.uniform(-3, -0.5)
        return [rate, near, choose.choice(["adam", "sgd"])]

    def _open(self, slot: int, parent: int, metas: list[Any], reason: str) -> None:
        step = 0 if parent < 0 else self._checkpoints[parent]["step"]
        before = None if parent < 0 else self._checkpoints[parent]
        number = self._opened[slot]
        self._opened[slot] += 1
        self._branches.append(
            {
                "row": len(self._checkpoints) + 1,
                "generation_id": f"1f2e3d4c-{slot}-{number}",
                "worker_id": slot,
                "number": number,
                "step": step,
                "last_step": step,
                "checkpoints": 0,
                "parent": parent,
                "parent_generation_id": before and before["generation_id"],
                "parent_step": step if before else -1,
                "kind": "branch" if before else "start",
                "reason": reason,
                "time": _BEGAN + step,
                **{
                    f"meta_params.{n}": v
                    for n, v in zip(self._names, metas, strict=True)
                },
            }
        )
        self._add(slot, len(self._branches) - 1, parent, step, None)

    def _add(
        self, slot: int, generation: int, parent: int, step: int, value: float | None
    ) -> None:
        branch = self._branches[generation]
        branch["last_step"] = step
        branch["checkpoints"] += 1
        metas = {k: v for k, v in branch.items() if k.startswith("meta_params.")}
        self._checkpoints.append(
            {
                "row": 2 * len(self._checkpoints) + 1,
                "generation": generation,
                "generation_id": branch["generation_id"],
                "worker_id": slot,
                "step": step,
                "value": np.nan if value is None else value,
                "has_value": value is not None,
                "diverged": value is not None and not np.isfinite(value),
                "parent": parent,
                "time": _BEGAN + step,
                "batch": 0,
                "has_params": True,
                "reason": branch["reason"],
                **metas,
                "metrics.accuracy": np.nan if value is None else 1 / (1 + value),
            }
        )
        self._newest[slot] = len(self._checkpoints) - 1

    def _report(self, slot: int, value: float | None = None) -> None:
        before = self._newest[slot]
        last = self._checkpoints[before]
        rate = last[f"meta_params.{self._names[0]}"]
        off = math.log10(rate * (100 + last["step"]) / 3)  # Smaller rates later.
        self._distance[slot] *= 1 - 0.06 * math.exp(-off * off) + 0.002 * off * off
        noise = 1 + 0.04 * self._choose.gauss(0, 1)
        found = (
            (0.02 + min(self._distance[slot], 9)) * noise if value is None else value
        )
        self._add(slot, last["generation"], before, last["step"] + _STEP, found)

    def _decide(self) -> None:
        ranked = sorted(range(len(self._newest)), key=self._distance.__getitem__)
        for place, slot in enumerate(reversed(ranked[-max(1, len(ranked) // 5) :])):
            donor = self._newest[ranked[place]]
            old = self._checkpoints[donor]
            rate, near, kind = (old[f"meta_params.{name}"] for name in self._names)
            rate *= self._choose.choice([0.6, 0.8, 1.25])
            near = 1 - (1 - near) * self._choose.choice([0.7, 1.4])
            metas = [max(1e-6, rate), min(max(0.5, near), 0.9999), kind]
            self._distance[slot] = self._distance[ranked[place]]
            reason = self._reasons[len(self._branches) % len(self._reasons)]
            self._open(slot, donor, metas, reason)

    def checkpoints(self) -> Columns:
        """One row a checkpoint."""
        return _columns(self._checkpoints)

    def branches(self) -> Columns:
        """One row a generation."""
        return _columns(self._branches)

    def workers(self) -> Columns:
        """One row a slot."""
        found = []
        best = [np.inf] * len(self._newest)
        for checkpoint in self._checkpoints:
            slot = checkpoint["worker_id"]
            best[slot] = np.fmin(best[slot], checkpoint["value"])
        for slot, index in enumerate(self._newest):
            newest = self._checkpoints[index]
            metas = {k: v for k, v in newest.items() if k.startswith("meta_params.")}
            found.append(
                {
                    "worker_id": slot,
                    "status": "diverged" if newest["diverged"] else "at its end",
                    "reason": "",
                    "step": newest["step"],
                    "value": newest["value"],
                    "best": best[slot],
                    "failures": 0,
                    "branches": 0,
                    "restarts": 0,
                    "wall_s": 12.5,
                    "steps_trained": newest["step"],
                    **metas,
                }
            )
        return _columns(found)

    def best(self, window: int = 1) -> Checkpoint | None:
        """The checkpoint with the least value."""
        del window
        values = self.checkpoints()["value"]
        if not np.isfinite(values).any():
            return None
        found = self._checkpoints[int(np.nanargmin(values))]
        names = ("generation_id", "value", "step", "time", "worker_id", "row")
        known = {name: found[name] for name in names}
        return Checkpoint(params=None, meta_params=None, parent=None, **known)

    @property
    def status(self) -> RunStatus:
        """What the run is."""
        best = self.best()
        return RunStatus(
            run="1f2e3d4c",
            size=len(self._newest),
            mode="min",
            seed=7,
            mutator="PopulationBasedTraining",
            settings={"steps_per_exploit": _STEP * _EVERY, "share": 0.2},
            stop=Stop(steps=1000),
            finished=True,
            reason="every slot has reached step 1000",
            checkpoints=len(self._checkpoints),
            generations=len(self._branches),
            reports=len(self._checkpoints) - len(self._branches),
            best=None if best is None else best.value,
            step=self._checkpoints[-1]["step"],
            environment=self.environment,
            began=_BEGAN,
            newest=_BEGAN + 5000,
            open_s=4321.0,
            openings=1,
            is_open=False,
            warnings=self.warnings,
        )


def made_up(*args: Any, **options: Any) -> RecordedRun:
    """A made-up run, as the report takes it."""
    return cast("RecordedRun", MadeUp(*args, **options))


def _columns(rows: list[dict[str, Any]]) -> Columns:
    """The rows as columns."""
    return {name: _array([row[name] for row in rows]) for name in rows[0]}


def _array(values: list[Any]) -> NDArray[Any]:
    if any(value is None or isinstance(value, str) for value in values):
        return np.array(values, dtype=object)
    return np.array(values)
