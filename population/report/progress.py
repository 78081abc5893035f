"""The progress of a run while it trains: on a terminal, in a notebook, or in a log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import rich
from rich.console import Console

from population.base.errors import JournalError
from population.controller import PopulationController
from population.report.displays import Display, display_on
from population.report.run_watch import RunWatch

_TIMES = 100  # At least so long is a pause, in units of the last look's own time.


@contextlib.contextmanager
def bars(
    controller: PopulationController,
    *,
    quiet: bool = False,
    every_s: float = 30.0,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Show how far a run is while the block runs.

    On a terminal and in a notebook, the first line is that of the population: the step
    of the member that is furthest, the mean of all, the best value and whose it is, how
    many branches and failures there were, and about how long the run still takes. Then
    each member has a line: its steps, value and hyperparameters are those of its newest
    own report. If they do not fit on the screen, the five with the best values have.
    Anywhere else the line of the population is printed every so often and at the end.

    The display takes at most 1 % of a core: if drawing takes long, it is rarer.

    Args:
        controller: The run.
        quiet: Whether to show nothing.
        every_s: Seconds between two lines where there is no terminal.
        console: Where to show it; None: rich's, which is standard output.
        clock: Returns seconds; for the times that are shown.

    Raises:
        ValueError: `every_s` is not positive.
    """
    if not every_s > 0:
        raise ValueError(f"every_s must be a positive number, got {every_s!r}.")
    if quiet:
        yield
        return
    display = display_on(console or rich.get_console(), every_s)
    watch, stopped = RunWatch(controller, clock), threading.Event()
    with contextlib.suppress(JournalError):
        watch.look()  # What was before is read now, not while others train.
    thread = threading.Thread(
        target=_keep_on,
        args=(display, watch, stopped),
        name="population-bars",
        daemon=True,
    )
    with display:
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            _show(display, watch)


def _keep_on(display: Display, watch: RunWatch, stopped: threading.Event) -> None:
    """Show the run until it is stopped; sleep at least 99 % of the time."""
    pause_s = display.interval_s
    while not stopped.wait(pause_s):
        began = time.thread_time()
        _show(display, watch)
        pause_s = max(display.interval_s, _TIMES * (time.thread_time() - began))


def _show(display: Display, watch: RunWatch) -> None:
    """Show the run, unless it is closed or cannot be read now."""
    with contextlib.suppress(JournalError):
        display.show(watch)
