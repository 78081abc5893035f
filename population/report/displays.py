"""Where progress is shown: on a terminal, in a notebook, or as plain lines."""

from __future__ import annotations

import abc
import importlib
import importlib.util
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment

from population.report.progress_lines import BarLine, population_line, screen
from population.report.run_watch import RunWatch

_NOTEBOOK = (110, 30)  # Columns and lines.


class Display(abc.ABC):
    """Shows the progress of a run; `with` begins and ends it.

    Attributes:
        interval_s: The least seconds from one `show` to the next.
    """

    interval_s: float

    @abc.abstractmethod
    def show(self, watch: RunWatch) -> None:
        """Look at a run and show how far it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:  # noqa: B027
        """Leave what was shown last."""


def display_on(console: Console, every_s: float) -> Display:
    """Return the display for a console.

    Args:
        console: Where to show it.
        every_s: The seconds between two lines where there is no terminal.
    """
    if console.is_jupyter and importlib.util.find_spec("IPython") is not None:
        return NotebookDisplay()
    if console.is_terminal and console.is_interactive and not console.is_jupyter:
        return TerminalDisplay(console)
    return PlainDisplay(console, every_s)


class TerminalDisplay(Display):
    """Draws all lines again and again at the same place of a terminal.

    What the program prints meanwhile appears above them.

    Args:
        console: The terminal.
    """

    interval_s = 0.25

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    def show(self, watch: RunWatch) -> None:
        """Look at a run and draw how far it is."""
        width, height = self._console.size
        self._live.update(_Drawn(screen(watch, width, height - 1)), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()


class NotebookDisplay(Display):
    """Replaces the text of one output of a notebook's cell again and again."""

    interval_s = 1.0

    def __init__(self) -> None:
        self._ipython: Any = importlib.import_module("IPython.display")
        self._output: Any = None
        self._shown = ""

    def show(self, watch: RunWatch) -> None:
        """Look at a run and show how far it is, if that has changed."""
        text = "\n".join(line.text() for line in screen(watch, *_NOTEBOOK))
        if text == self._shown:
            return
        self._shown, content = text, {"text/plain": text}
        if self._output is None:
            self._output = self._ipython.display(content, raw=True, display_id=True)
        else:
            self._output.update(content, raw=True)


class PlainDisplay(Display):
    """Prints the line of the population every so often, where there is no terminal.

    Args:
        console: Where to print it.
        every_s: The seconds between two lines.
    """

    def __init__(self, console: Console, every_s: float) -> None:
        self.interval_s, self._console = every_s, console

    def show(self, watch: RunWatch) -> None:
        """Look at a run and print how far it is."""
        line = population_line(watch.look()).text()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Drawn:
    """Lines for a terminal; ten times as fast as `rich.text.Text`."""

    def __init__(self, lines: list[BarLine]) -> None:
        self._lines = lines

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Yield the lines; a terminal without Unicode gets other bars."""
        done, rest = console.get_style("bar.complete"), console.get_style("bar.back")
        ended, plain = console.get_style("bar.finished"), options.ascii_only
        for line in self._lines:
            head = (
                f"{line.head}  " if line.head and (line.bar or line.tail) else line.head
            )
            tail = f"  {line.tail}" if line.bar and line.tail else line.tail
            if plain:
                head, tail = (
                    t.encode("ascii", "replace").decode() for t in (head, tail)
                )
            yield Segment(head)
            if line.bar:
                full, left = "#-" if plain else "━─"
                yield Segment(full * line.full, ended if line.share >= 1 else done)
                yield Segment(left * (line.bar - line.full), rest)
            yield Segment(tail)
            yield Segment.line()
