"""A file for TensorBoard with the events of one member."""

from __future__ import annotations

import importlib
import os
import pathlib
import time
from collections.abc import Mapping
from numbers import Real
from typing import Any

from population.base import codec
from population.base.types import Checkpoint, Event
from population.report.hyperparameters import one_line
from population.report.loggers.base import named, why

_LARGEST = 2**127  # Of a number of 32 bits.


class MemberFile:
    """Writes the events of one member to a file of its own.

    Args:
        folder: The member's run of TensorBoard.
        flush_s: Seconds between two flushes.
    """

    def __init__(self, folder: pathlib.Path, flush_s: float) -> None:
        # TensorBoard reads the files of a run in the order of their names.
        suffix = f".{time.time_ns()}.{os.getpid()}"
        self._writer = importlib.import_module("tensorboardX").FileWriter(
            str(folder), flush_secs=flush_s, filename_suffix=suffix
        )
        self._newest = 0
        self._steps: dict[str, int] = {}
        self._texts: dict[str, str] = {}

    def write(self, event: Event, found: Checkpoint) -> None:
        """Write an event and its checkpoint."""
        leaves: dict[str, Any] = {}
        if event.kind in ("report", "branch"):
            leaves["step"] = found.step
            leaves |= named("meta_params", found.meta_params)
        if event.kind == "report":
            leaves |= named("value", found.value) | named("metrics", found.metrics)
        scalars = {name: leaf for name, leaf in leaves.items() if _is_number(leaf)}
        texts = {name: str(leaves[name]) for name in leaves.keys() - scalars.keys()}
        texts = {n: text for n, text in texts.items() if self._texts.get(n) != text}
        self._texts |= texts
        if event.kind != "report":
            texts[f"events/{event.kind}"] = _told(event, found)
        self._add(scalars, texts, found)

    def close(self) -> None:
        """Write all to the disk and close the file."""
        self._writer.close()

    def _add(
        self, scalars: Mapping[str, float], texts: Mapping[str, str], found: Checkpoint
    ) -> None:
        """Write scalars and texts at the row of a checkpoint, or at the next free one.

        TensorBoard drops earlier points of a tag that are not before a later one.
        """
        tags = [*scalars, *texts]
        free = (self._steps.get(tag, -1) + 1 for tag in tags)
        self._newest = max(found.row, self._newest, *free)
        self._steps |= dict.fromkeys(tags, self._newest)
        summary = importlib.import_module("tensorboardX.proto.summary_pb2").Summary()
        for tag, number in scalars.items():
            summary.value.add(tag=codec.readable(tag), simple_value=float(number))
        text_of = importlib.import_module("tensorboardX.summary").text
        for tag, text in texts.items():
            # Indented, as TensorBoard would read it as Markdown.
            shown = "\n".join(
                f"    {line}" for line in codec.readable(text).split("\n")
            )
            summary.MergeFrom(text_of(codec.readable(tag), shown))
        self._writer.add_summary(summary, self._newest, found.time)


def _is_number(leaf: Any) -> bool:
    """Whether TensorBoard can draw a leaf: a bool too, but no int that is too large."""
    return isinstance(leaf, Real) and (
        not isinstance(leaf, int) or abs(leaf) < _LARGEST
    )


def _told(event: Event, found: Checkpoint) -> str:
    """Return what an event says."""
    parts = [f"step {found.step}", why(event)]
    if event.kind == "diverged":
        parts.append(f"value {found.value}")
    if event.kind == "branch":
        if found.parent is not None:
            generation_id, step = found.parent
            parts.append(f"from step {step} of {generation_id}")
        parts.append(one_line(found.meta_params))
    return "; ".join(part for part in parts if part)
