"""Checks whether the owner of a lease, a part of some process, is still alive.

A process is identified by its id and its start time in the kernel's own ticks, which do
not change when the clock is set.
"""

from __future__ import annotations

import functools
import os
import pathlib
import secrets
import socket
import weakref

from population.core.owners import Owner

_PROC = pathlib.Path("/proc")
_TOKEN = 8  # The length of a token; those of siblings begin with one more.
_START_TIME = 19  # Field 22 of /proc/PID/stat, counted after the name.


class LeaseHolder:
    """A part of this process that may hold leases, until it is closed or collected.

    Args:
        within: The holder to which this one belongs: closing that closes this one too.
            None: it belongs to no other.

    Attributes:
        owner: The identity of the holder for other processes.
        text: `owner` as a journal keeps it.
        within: The holder to which it belongs, or None.
        closed: Whether it was closed, so that its leases are free.
        warm: Whether its first training step is done, and so compiled.
    """

    def __init__(self, within: LeaseHolder | None = None) -> None:
        pid = os.getpid()
        token = f"{_Siblings.token}{secrets.token_hex(_TOKEN // 2)}"
        self.owner = Owner(_host(), _place(), pid, _own_start(pid), token)
        self.text = self.owner.text
        self.within = within
        self.closed = False
        self.warm = False
        _HOLDERS[self.owner.token] = self


_HOLDERS: weakref.WeakValueDictionary[str, LeaseHolder] = weakref.WeakValueDictionary()


def is_within(owner: Owner, holder: LeaseHolder) -> bool:
    """Whether an owner is this holder, or belongs to it."""
    found = _HOLDERS.get(owner.token)
    return found is not None and holder in (found, found.within)


def is_gone(owner: Owner) -> bool:
    """Whether an owner is certainly dead or closed."""
    if is_foreign(owner):
        return False
    pid = os.getpid()
    if owner.pid == pid and owner.started == _own_start(pid):
        holder = _HOLDERS.get(owner.token)
        if holder is None or holder.closed:
            return True
        return holder.within is not None and holder.within.closed
    boot, _, space = owner.place.partition("/")
    our_boot, _, our_space = _place().partition("/")
    if boot != our_boot:
        return True
    return space == our_space and _started(owner.pid) != owner.started


class _Siblings:
    """The processes of one call of an engine, as one of them knows them.

    Attributes:
        token: What the tokens of all their lease holders begin with; "": none.
        parent: The process that has started them.
    """

    token = ""
    parent = 0


def join_siblings(token: str) -> None:
    """Make this process one of several that its parent has started, and watches.

    Args:
        token: A name for them all.
    """
    _Siblings.token, _Siblings.parent = token, os.getppid()


def is_child(owner: Owner) -> bool:
    """Whether an owner is in a process that a call of an engine has started."""
    return len(owner.token) > _TOKEN


def has_free_leases(owner: Owner) -> bool:
    """Whether the leases of an owner are free, as it is dead or closed.

    Those of a sibling are not: their parent records the failure first, and ends them.
    """
    is_sibling = bool(_Siblings.token) and owner.token.startswith(_Siblings.token)
    if is_sibling and owner.pid != os.getpid() and os.getppid() == _Siblings.parent:
        return False
    return is_gone(owner)


def is_foreign(owner: Owner) -> bool:
    """Whether an owner is on another machine: the host name alone may have changed."""
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
    """Return when a process began; None if it does not exist or is a zombie process."""
    if not (_PROC / "self/stat").exists():
        return _started_without_proc(pid)
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[_START_TIME]


def _started_without_proc(pid: int) -> str | None:
    """Return when a process began, on systems without /proc."""
    import psutil

    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return None if dead else str(process.create_time())
    except psutil.Error:
        return None
