"""Opens a run: goes on with the one that a journal holds, or makes a new one."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from population.base import codec, durable
from population.base.errors import JournalError
from population.base.run_paths import OWN_FOLDER
from population.base.types import Start
from population.core.incoming import Incoming
from population.journal import sqlite_file
from population.journal.base import Journal
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_file import JOURNAL_NAME
from population.run import resuming, structures
from population.run.params_manager import PARAMS_FOLDER
from population.run.sweeping import Sweeper

if TYPE_CHECKING:
    from population.run.open_run import Session

_GENERATION = re.compile(r"[0-9A-Za-z_]+-[0-9]+-[0-9]+")

_NEWEST = 200


def open_run(
    session: Session, starts: Sequence[Start], metas: Sequence[str], space: Any
) -> None:
    """Go on with the run that the journal holds, or make a new one.

    Args:
        session: The run.
        starts: Where each slot begins.
        metas: The meta_params of `starts`, encoded.
        space: What the meta_params may be, or None.

    Raises:
        RunMismatchError: If the journal holds a run under other rules, or with another
            structure of its meta_params.
        ValueError: If the meta_params of a new run are not of the space, or `mutate_fn`
            could not explore them.
    """
    journal, keeper, rules = session.journal, session.keeper, session.rules
    if journal.read_only:
        return _open_to_look(session, len(starts))
    keeper.begin(session.holder.owner.token)
    token = resuming.new_token()
    now = resuming.facts(session.mutator, len(starts), rules.mode, rules.seed, token)
    incoming: list[Incoming] = []
    try:
        if not journal.facts():
            resuming.check_within(space, starts)
            structures.check_new(session.mutator, metas)
            run = codec.decode(now["run"])
            for i, start in enumerate(starts):
                saved = keeper.prepare(i, f"{run}-{i}-0", start.step, start.params)
                incoming.append(saved)
        with journal:
            taken = _recorded(session, now, incoming, metas, space)
    except BaseException:
        fresh = [new for new in incoming if new.fresh]
        keeper.forget_unrecorded(fresh, session.graph)
        raise
    keeper.forget(incoming, taken)


def _recorded(
    session: Session,
    now: dict[str, str],
    incoming: Sequence[Incoming],
    metas: Sequence[str],
    space: Any,
) -> list[Incoming]:
    """Record the opening; say which of the first params were recorded with it."""
    journal, keeper, rules = session.journal, session.keeper, session.rules
    taken: list[Incoming] = []
    recorded = journal.facts()
    if recorded:
        resuming.check(recorded, now)
        place = session.mutator, space, metas, session.log_dir
        structures.check_resumed(journal, *place)
        resuming.warn_of_settings(recorded, now)
        session.reload()
        end = session.slots.row
        for _ in journal.records(max(0, end - _NEWEST), end):
            pass  # None of the newest rows is missing, or damaged.
        resuming.check_host(journal, rules.clock(), session.leases.timeout)
    else:
        _create(session, now, incoming, metas)
        taken = session.slots.taken
    resuming.record_space(journal, recorded, space)
    own = session.log_dir and session.log_dir / PARAMS_FOLDER
    is_given = keeper.store is not None and (
        getattr(keeper.store, "folder", None) != own
    )
    keep = resuming.record_params(journal, recorded, rules.keep, keeper.store, is_given)
    keeper.guard(journal.facts(), session.holder.owner)
    session.sweeper = Sweeper(keeper, keep)
    session.sweeper.note(session, taken)
    _begin(session)
    return taken


def _open_to_look(session: Session, size: int) -> None:
    """Show a run that this user may not write to."""
    journal, rules = session.journal, session.rules
    with journal.reading():
        recorded = journal.facts()
        if not recorded:
            raise JournalError(
                f"{session.log_dir} holds no run yet, and this user may not make one "
                "there. Choose another log_dir."
            )
        token = resuming.new_token()
        now = resuming.facts(session.mutator, size, rules.mode, rules.seed, token)
        resuming.check(recorded, now)
        resuming.warn_of_settings(recorded, now)
        session.reload()
        _note_open_time(session)


def open_journal(log_dir: pathlib.Path | None, durability: str) -> Journal:
    """The journal of a run folder, which is made if there is none; else in memory.

    Raises:
        JournalError: If the folder cannot be used.
    """
    if log_dir is None:
        return SqliteJournal()
    try:
        if durability == "power":
            durable.make_folder(log_dir)
        log_dir.mkdir(parents=True, exist_ok=True)
        file = log_dir / JOURNAL_NAME
        left = _left_of_a_run(file)
    except OSError as error:
        raise JournalError(
            f"log_dir must be a folder that can be written to, got {log_dir}: "
            f"{error.strerror}. Choose another one."
        ) from error
    sqlite_file.warn_of_network(log_dir)
    journal = SqliteJournal(file, durability=durability, left=left)
    if durability == "power" and not journal.read_only:
        durable.sync(log_dir)
    return journal


def _holds_weights(folder: pathlib.Path) -> bool:
    """Whether a folder has files in a folder that is named as a generation is."""
    if not folder.is_dir():
        return False
    return any(
        entry.is_file()
        for generation in folder.iterdir()
        if generation.is_dir() and _GENERATION.fullmatch(generation.name)
        for entry in generation.rglob("*")
    )


def _left_of_a_run(file: pathlib.Path) -> pathlib.Path | None:
    """What was recorded with a journal, if there is something; None if not.

    To be looked at before the journal: another process may be making the run just now.

    Raises:
        JournalError: If the file is missing or empty: SQLite would remove its log.
    """
    params, own = file.with_name(PARAMS_FOLDER), file.with_name(OWN_FOLDER)
    left = [folder for folder in (params, own) if _holds_weights(folder)]
    real = pathlib.Path(os.path.realpath(file))
    log = sqlite_file.log_of(real)
    left += [log] if log.is_file() and log.stat().st_size else []
    is_empty = real.is_file() and not real.stat().st_size
    if left and (is_empty or not real.exists()):
        what = "empty" if is_empty else "missing"
        raise sqlite_file.incomplete(file, what, left[0])
    return left[0] if left else None


def _create(
    session: Session,
    facts: Mapping[str, str],
    starts: Sequence[Incoming],
    metas: Sequence[str],
) -> None:
    """Record a new run."""
    for key, text in facts.items():
        session.journal.add_fact(key, text)
    session.slots.begin(session.rules.clock())
    session.slots.create(codec.decode(facts["run"]), starts, metas)
    session.decisions.begin()


def _begin(session: Session) -> None:
    """Record that this process has opened the run."""
    slots, journal, clock = session.slots, session.journal, session.rules.clock
    slots.begin(clock())
    session.held.lapse_dead()
    session.claims.end_foreign()
    _note_open_time(session)
    journal.add_session(slots.row, slots.time, session.holder.text)


def _note_open_time(session: Session) -> None:
    """For how long the run was open so far."""
    session.watched_at = session.rules.clock()
    session.open_s = sum(end - begin for begin, end in session.journal.sessions())
