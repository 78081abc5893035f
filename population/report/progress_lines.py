"""What the progress display says: a line for the population, and one a member."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from population.report.hyperparameters import short
from population.report.run_watch import MemberProgress, PopulationProgress, RunWatch

_GAP = "  "
_FEW = 5  # Members that are shown if not all fit.
_LEAST = 40  # The columns below which there are no bars.
_DROPPED = ("elapsed", "mean", "bar", "size", "retired", "branches", "failures")


class BarLine(NamedTuple):
    """A line with a bar.

    Attributes:
        head: The text before the bar.
        share: How much of the bar is full, from 0 to 1.
        bar: The width of the bar; 0 for none.
        tail: The text after the bar.
    """

    head: str
    share: float
    bar: int
    tail: str

    @property
    def full(self) -> int:
        """How many columns of the bar are full; all of them only at the end."""
        return min(self.bar, math.floor(self.share * self.bar + 1e-9))

    def text(self) -> str:
        """Return the line with its bar."""
        bar = "━" * self.full + "─" * (self.bar - self.full)
        return _GAP.join(part for part in (self.head, bar, self.tail) if part)


def screen(watch: RunWatch, width: int, height: int) -> list[BarLine]:
    """Look at a run, and return lines that fit on a screen.

    The first is the population's. Then all members follow; if they do not fit, those
    with the best values.

    Args:
        watch: The run.
        width: The columns of the screen.
        height: The lines of the screen.
    """
    progress = watch.look()
    size, room = progress.size, max(0, height - 1)
    shown: Sequence[int] = range(size)
    if size > room:
        shown = watch.ranked()[: min(_FEW, max(0, room - 1))]
    members = [watch.member(worker_id) for worker_id in shown]
    bar = min(30, width // 5) if width >= _LEAST else 0
    found = [population_line(progress, width, bar)]
    found += [
        _member_line(member, progress.end, size, width, bar) for member in members
    ]
    if 0 < len(shown) < size:
        found.append(BarLine(f"and {size - len(shown)} more", 0.0, 0, ""))
    return found


def population_line(
    progress: PopulationProgress, width: int | None = None, bar: int = 0
) -> BarLine:
    """Return the line of the population.

    Args:
        progress: How far the population is.
        width: The columns of the screen; what is less important is left out to fit.
            None: there is room for all.
        bar: The width of the bar.
    """
    parts = _parts(progress)
    share = progress.mean / progress.end if progress.end else 0.0
    drawn = bar if progress.end else 0
    for name in _DROPPED:
        if width is None or _width(parts, drawn) <= width:
            break
        if name == "bar":
            drawn = 0
        parts.pop(name, None)
    head = parts.pop("size", "")
    found = BarLine(head, share, drawn, _GAP.join(parts.values()))
    return found if width is None else _fitted(found, width)


def _width(parts: dict[str, str], bar: int) -> int:
    """Return how wide a line with these parts is."""
    widths = [*map(cell_len, parts.values()), *([bar] if bar else [])]
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _parts(progress: PopulationProgress) -> dict[str, str]:
    """Return what the line of the population says, by name, in order."""
    best, end = progress.best, progress.end
    steps = f"{progress.furthest}/{end} steps" if end else f"{progress.furthest} steps"
    parts = {"size": _counted(progress.size, "worker"), "steps": steps}
    if round(progress.mean) != progress.furthest:
        parts["mean"] = f"mean {progress.mean:.0f}"
    if best is not None:
        parts["best"] = f"best {short(best.value)} (worker {best.worker_id})"
    parts["branches"] = _counted(progress.branches, "branch", "branches")
    parts["failures"] = _counted(progress.failures, "failure")
    if progress.retired:
        parts["retired"] = f"{progress.retired} retired"
    parts["elapsed"] = f"{duration(progress.elapsed_s)} elapsed"
    if progress.left_s:
        parts["left"] = f"{duration(progress.left_s)} left"
    return parts


def _member_line(
    member: MemberProgress, end: int | None, size: int, width: int, bar: int
) -> BarLine:
    """Return the line of a member; numbers are below each other."""
    step, value = member.newest.step, member.newest.value
    head = f"worker {member.worker_id:>{len(str(size - 1))}}"
    steps = f"{step:>{len(str(end))}}/{end} steps" if end else f"{step} steps"
    parts = [steps]
    if member.retired:
        parts.append("retired")
    if member.failures:
        parts.append(f"failed {member.failures}x")
    if value is not None:
        parts.append(f"value {short(value)}")
    tail = _GAP.join((*parts, member.note) if member.note else parts)
    share = min(1.0, step / end) if end else 0.0
    return _fitted(BarLine(head, share, bar if end else 0, tail), width)


def _fitted(line: BarLine, width: int) -> BarLine:
    """Return a line that fits, with escapes for what a terminal would act on."""
    if not (line.bar or line.tail):
        return line._replace(head=_cut(line.head, width))
    head = _cut(line.head, width)
    before = [part for part in (cell_len(head), line.bar) if part]
    room = width - sum(before) - len(_GAP) * len(before)
    return line._replace(head=head, tail=_cut(line.tail, room))


def _cut(text: str, width: int) -> str:
    """Return a text of at most this width, with "…" if something is left out."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, width - 1)}…" if width > 0 else ""


def _counted(number: int, what: str, many: str = "") -> str:
    return f"{number} {what if number == 1 else many or what + 's'}"


def duration(seconds: float) -> str:
    """Return a time as minutes and seconds, or with hours: 2:05, 1:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
