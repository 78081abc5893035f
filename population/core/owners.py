"""The owner of a lease, as the journal stores it."""

from __future__ import annotations

import functools
import json
from typing import NamedTuple

from population.base.errors import damaged

UNCLAIMED = ""  # The owner of a slot that a loop polls without a claim.


class Owner(NamedTuple):
    """A worker, an engine or a controller in a process of some host.

    Attributes:
        host: Name of the machine.
        place: The boot of the machine and the process's name space: within one, process
            ids can be compared.
        pid: The process.
        started: When the process began; no later process of this id has the same.
        token: A name for one of the process's holders.
    """

    host: str
    place: str
    pid: int
    started: str
    token: str

    @property
    def process(self) -> tuple[str, str, int, str]:
        """What all owners in its process have in common, and no others."""
        return self.host, self.place, self.pid, self.started

    @property
    def text(self) -> str:
        """The owner as a journal keeps it."""
        return json.dumps(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@functools.lru_cache(maxsize=4096)
def owner_of(text: str) -> Owner:
    """Decode an owner from a text of the journal.

    Raises:
        JournalError: The text is not an owner.
    """
    try:
        host, place, pid, started, token = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(f"{error} in the owner {text[:60]!r}") from error
    texts = (host, place, started, token)
    if type(pid) is not int or pid < 0 or any(type(x) is not str for x in texts):
        raise damaged(f"{text[:60]!r} is no owner")
    return Owner(host, place, pid, started, token)
