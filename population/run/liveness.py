"""Who holds a lease: a worker in a process of some host, and whether it is still there.

A process is told by its id and by when it began, in the kernel's own ticks, which no
change of the clock moves.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import secrets
import socket
import weakref
from typing import NamedTuple

from population.base.errors import damaged

_PROC = pathlib.Path("/proc")
_START_TIME = 19  # Field 22 of /proc/PID/stat, counted behind the name.


class Owner(NamedTuple):
    """Where something lives.

    Attributes:
        host: Name of the machine.
        place: The boot of the machine and the process's name space: within one, process
            ids can be compared.
        pid: The process.
        started: When it began; no later process of this id has the same.
        token: Which of the process's holders it is.
    """

    host: str
    place: str
    pid: int
    started: str
    token: str

    @property
    def text(self) -> str:
        """The owner as a journal keeps it."""
        return json.dumps(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Holder:
    """Somebody in this process who may hold leases, until it is closed or forgotten.

    Args:
        within: Another one, with which it is closed; None: it stands alone.

    Attributes:
        owner: What others know of it.
        text: The same, as a journal keeps it.
        within: The same.
        closed: Whether it holds nothing any more.
        warm: Whether it has made its first step, and so has compiled.
    """

    def __init__(self, within: Holder | None = None) -> None:
        pid = os.getpid()
        token = secrets.token_hex(4)
        self.owner = Owner(_host(), _place(), pid, _own_start(pid), token)
        self.text = self.owner.text
        self.within = within
        self.closed = False
        self.warm = False
        _HOLDERS[self.owner.token] = self


_HOLDERS: weakref.WeakValueDictionary[str, Holder] = weakref.WeakValueDictionary()


def is_within(owner: Owner, holder: Holder) -> bool:
    """Whether an owner is this holder, or one that is closed with it."""
    found = _HOLDERS.get(owner.token)
    return found is not None and holder in (found, found.within)


@functools.lru_cache(maxsize=4096)
def owner_of(text: str) -> Owner:
    """The owner that a journal's text names.

    Raises:
        JournalError: If it names none.
    """
    try:
        host, place, pid, started, token = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(f"{error} in the owner {text[:60]!r}") from error
    texts = (host, place, started, token)
    if type(pid) is not int or pid < 0 or any(type(x) is not str for x in texts):
        raise damaged(f"{text[:60]!r} is no owner")
    return Owner(host, place, pid, started, token)


def is_gone(owner: Owner) -> bool:
    """Whether it can be told for sure that an owner will never be heard of again."""
    if is_foreign(owner):
        return False
    pid = os.getpid()
    if owner.pid == pid and owner.started == _own_start(pid):
        holder = _HOLDERS.get(owner.token)
        while holder is not None and not holder.closed:
            if holder.within is None:
                return False
            holder = holder.within
        return True
    boot, _, space = owner.place.partition("/")
    our_boot, _, our_space = _place().partition("/")
    if boot != our_boot:
        return True
    return space == our_space and _started(owner.pid) != owner.started


def check_not_forked(pid: int) -> None:
    """Refuse to go on in a child of the process that opened a run.

    Raises:
        RuntimeError: Saying what to do instead.
    """
    if pid != os.getpid():
        raise RuntimeError(
            "A controller must not be used in a process that was forked from its own, "
            "nor its run be opened there: SQLite's locks do not hold in it. Begin such "
            "processes with spawn, as population.engines.processes does, or before the "
            "run is opened."
        )


def is_foreign(owner: Owner) -> bool:
    """Whether an owner lives on another machine; the name alone may change."""
    same_boot = owner.place.partition("/")[0] == _place().partition("/")[0] != ""
    return owner.host != _host() and not same_boot


@functools.cache
def _host() -> str:
    return socket.gethostname()


@functools.cache
def _place() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return "/"


@functools.cache
def _own_start(pid: int) -> str:
    return _started(pid) or ""


def _started(pid: int) -> str | None:
    """When a process began; None if there is none, or it is dead but not yet buried."""
    if not (_PROC / "self/stat").exists():
        return _started_elsewhere(pid)
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[_START_TIME]


def _started_elsewhere(pid: int) -> str | None:
    """The same where there is no /proc."""
    import psutil

    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return None if dead else str(process.create_time())
    except psutil.Error:
        return None
