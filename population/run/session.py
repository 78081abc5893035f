"""One session of a run, from its opening by a controller until it is closed.

Each opening may pass other limits, on another machine: what differs from the session
before is recorded as a fact, for people who read the run.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from population.base import codec
from population.base.types import Stop
from population.core.state import RunState
from population.core.stopping import why_ended
from population.journal.base import MAX, Find, Journal
from population.journal.records import Fact, Opening

_SESSION = "session "  # The keys are `session 1`, `session 2`, ...
_PACKAGES = ("population", "jax", "jaxlib", "flax", "optax", "numpy")


class Session:
    """Tells whether a run has ended, for one opening of it.

    It counts the seconds that the run was open, in this session and in those before it,
    without its downtime.

    Args:
        clock: Returns seconds.

    Attributes:
        seconds: The seconds until the last call of `look`.
        statuses: How many statuses came before it: only later ones may stop it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looked = 0.0
        self.seconds = 0.0
        self.statuses = 0

    def begin(
        self, journal: Journal, openings: Sequence[Opening], statuses: int
    ) -> None:
        """Start from the sum of earlier openings, each until its last checkpoint."""
        self._looked = self._clock()
        self.seconds = 0.0
        self.statuses = statuses
        ends = [*(opening.row for opening in openings[1:]), MAX]
        for opening, end in zip(openings, ends, strict=False):
            last = Find(upto=end, newest_first=True, limit=1)
            for found in journal.checkpoints(last):
                self.seconds += max(0.0, found.time - opening.time)

    def look(self) -> float:
        """Return the seconds until now."""
        before, self._looked = self._looked, self._clock()
        self.seconds += max(0.0, self._looked - before)  # A clock may be set back.
        return self.seconds

    def has_ended(self, stop: Stop, state: RunState) -> bool:
        """Whether `stop`, or a request since this session began, has ended the run."""
        return bool(why_ended(stop, state, self.look(), self.statuses))


def new_facts(recorded: Mapping[str, Any], stop: Stop) -> list[Fact]:
    """Return the fact of a session, if it differs from that of the one before.

    Args:
        recorded: The facts of the run.
        stop: The limits of the session.
    """
    limits = {k: v for k, v in dataclasses.asdict(stop).items() if v is not None}
    found = codec.normalized(
        {"stop": limits, "environment": environment()}, "the session"
    )
    number, before = _newest(recorded)
    if found == before:
        return []
    return [Fact(f"{_SESSION}{number + 1}", codec.encode(found))]


def is_of_session(key: str) -> bool:
    """Whether a fact with this key is one of a session, and not of the run."""
    return key.startswith(_SESSION)


def newest(recorded: Mapping[str, Any]) -> tuple[Stop | None, dict[str, str]]:
    """Return the limits and the environment of the newest session.

    Args:
        recorded: The facts of the run.

    Returns:
        None, and no environment, if they were not recorded or cannot be read.
    """
    _, found = _newest(recorded)
    try:
        known = {str(k): str(v) for k, v in found.get("environment", {}).items()}
        return Stop(**found["stop"]) if "stop" in found else None, known
    except (TypeError, ValueError, AttributeError):
        return None, {}


def environment() -> dict[str, str]:
    """Return versions and the kind of machine of this process, as text by name.

    Of packages that are not loaded it says nothing: to load them takes seconds.
    """
    loaded = ((name, sys.modules.get(name)) for name in _PACKAGES)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{k: str(getattr(m, "__version__", "unknown")) for k, m in loaded if m},
    }


def _newest(recorded: Mapping[str, Any]) -> tuple[int, Any]:
    """Return the number and the content of the newest session's fact."""
    numbers = [
        int(key.removeprefix(_SESSION))
        for key in recorded
        if is_of_session(key) and key.removeprefix(_SESSION).isdecimal()
    ]
    number = max(numbers, default=0)
    return number, recorded.get(f"{_SESSION}{number}", {})
