"""Files for TensorBoard: one of its runs for each member."""

from __future__ import annotations

import importlib
import os
import pathlib
import threading
from collections.abc import Collection

from population.base.types import Event
from population.report.loggers.base import EventLogger
from population.report.loggers.member_file import MemberFile


def tensorboard(
    folder: str | os.PathLike[str],
    *,
    workers: Collection[int] | None = None,
    flush_s: float = 10.0,
) -> EventLogger:
    """Return a logger that writes files for TensorBoard: a run `worker_3` a member.

    A report writes the scalars `value`, `step` (training steps), `metrics/a/b` and
    `meta_params/x`, where numbers and bools are scalars, NaN and infinities included,
    and other values texts, written when they change. A branch writes the new
    `meta_params`. Branches, failures, divergences, retirements, takeovers and damaged
    params are texts `events/...`.

    TensorBoard's axis `step` is the checkpoint's `row` in the journal: it never goes
    back, while training steps do if a member is branched to an earlier checkpoint, and
    TensorBoard would then hide points. An event of an older row (a value that comes
    late) is at the next free place. TensorBoard keeps numbers of 32 bits.

    A run that is resumed adds further files, and TensorBoard joins them. It reads one
    file of a run at a time: give each program that trains the same population a folder
    of its own. The engines write from one process.

    Args:
        folder: For `tensorboard --logdir`; made if it does not exist.
        workers: The worker ids to log; None: all. Each has an open file and a thread.
        flush_s: Seconds after which what was logged is on the disk, at the latest.

    Raises:
        ImportError: tensorboardX is not installed.
        ValueError: `flush_s` is not positive.
    """
    if not flush_s > 0:
        raise ValueError(f"flush_s must be a positive number, got {flush_s!r}.")
    try:
        importlib.import_module("tensorboardX")
    except ImportError as error:
        raise ImportError(
            "tensorboard() needs the package tensorboardX, which cannot be imported: "
            f"{error}. Install it: pip install population-jax[report]"
        ) from error
    return TensorBoardLogger(pathlib.Path(folder), workers, flush_s)


class TensorBoardLogger(EventLogger):
    """Writes the events of each member to a run of TensorBoard.

    Args:
        folder: The folder of all runs.
        workers: The worker ids to log; None: all.
        flush_s: Seconds between two flushes.
    """

    def __init__(
        self, folder: pathlib.Path, workers: Collection[int] | None, flush_s: float
    ) -> None:
        self._folder, self._flush_s = folder, flush_s
        self._workers = None if workers is None else frozenset(workers)
        self._lock = threading.Lock()
        self._members: dict[int, MemberFile] = {}
        self._is_closed = False

    def __call__(self, event: Event) -> None:
        """Write an event, unless it is of no member, or of one that is not logged."""
        worker_id, found = event.worker_id, event.checkpoint
        if found is None or event.kind == "claim":
            return
        if self._workers is not None and worker_id not in self._workers:
            return
        with self._lock:
            if self._is_closed:
                return
            if worker_id not in self._members:
                place = self._folder / f"worker_{worker_id}"
                self._members[worker_id] = MemberFile(place, self._flush_s)
            self._members[worker_id].write(event, found)

    def close(self) -> None:
        """Write all to the disk and close the files."""
        with self._lock:
            self._is_closed = True
            while self._members:
                self._members.popitem()[1].close()
