"""Opens a run: goes on with the one that a journal holds, or makes a new one."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from population.base import codec, durable
from population.base.errors import JournalError
from population.base.run_paths import OWN_FOLDER
from population.base.types import Start
from population.core import branching, loading, reachability
from population.core.facts import texts_of
from population.core.owners import owner_of
from population.core.state import RunState
from population.core.step import EncodedReport, Step
from population.journal import sqlite_file
from population.journal.base import Journal
from population.journal.records import Fact, Opening
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_file import JOURNAL_NAME
from population.run import liveness, resuming, structures
from population.run.open_run import OpenRun
from population.run.params_manager import PARAMS_FOLDER
from population.run.transaction import Transaction, within

_GENERATION = re.compile(r"[0-9A-Za-z_]+-[0-9]+-[0-9]+")

_NEWEST = 200


def open_run(
    run: OpenRun, starts: Sequence[Start], metas: Sequence[str], space: Any
) -> None:
    """Go on with the run that the journal holds, or make a new one.

    Args:
        run: The run.
        starts: Where each slot begins.
        metas: The meta_params of `starts`, encoded.
        space: What the meta_params may be, or None.

    Raises:
        RunMismatchError: The journal holds a run under other rules, or with another
            structure of its meta_params.
        ValueError: The meta_params of a new run are not of the space, or `mutate_fn`
            could not explore them.
    """
    journal, params, options = run.journal, run.params, run.options
    now = resuming.facts(
        run.decider.mutator,
        len(starts),
        options.mode,
        options.seed,
        resuming.new_token(),
    )
    if journal.read_only:
        return _open_to_look(run, now)
    params.begin(run.holder.owner.token)
    first: list[EncodedReport] = []
    try:
        if not texts_of(journal):
            resuming.check_within(space, starts)
            structures.check_new(run.decider.mutator, metas)
            for new in _reports_of(starts, now):
                first.append(params.save(new))
        tx = within(journal, lambda: _opened(run, now, first, metas, space))
    except BaseException:
        run.undo(first)
        raise
    for effect in params.after(tx, first):
        effect()
    run.adopt(tx.state)
    return None


def _reports_of(
    starts: Sequence[Start], now: Mapping[str, str]
) -> Iterator[EncodedReport]:
    """The first checkpoint of each slot, as if it were reported."""
    token = codec.decode(now["run"])
    for worker_id, start in enumerate(starts):
        place = worker_id, f"{token}-{worker_id}-0", start.step, start.params
        yield EncodedReport(*place, None, None, None, None)


def _opened(
    run: OpenRun,
    now: dict[str, str],
    first: Sequence[EncodedReport],
    metas: Sequence[str],
    space: Any,
) -> Transaction:
    """Record the opening, within its transaction."""
    journal, params, options = run.journal, run.params, run.options
    recorded = texts_of(journal)
    if recorded:
        state = _resumed(run, recorded, now, metas, space)
    else:
        token = codec.decode(now["run"])
        state = RunState(token, len(metas), options.mode, journal, run.graph)
    tx = Transaction(journal, state, run.graph, run.moment(state))
    if not recorded:
        tx.do(Step(tuple(Fact(key, text) for key, text in now.items())))
        for step in branching.start(state, first, metas, tx.at):
            tx.do(step)
        tx.do(Step((run.decider.init(state),)))
    own = run.log_dir and run.log_dir / PARAMS_FOLDER
    is_given = params.store is not None and (
        getattr(params.store, "folder", None) != own
    )
    params.keep, facts = resuming.kept_params(
        recorded, options.keep, params.store, is_given
    )
    tx.do(Step((*resuming.space_facts(recorded, space), *facts)))
    params.guard(texts_of(journal), run.holder.owner)
    params.note(tx, first)
    _begin(run, tx)
    return tx


def _resumed(
    run: OpenRun,
    recorded: dict[str, str],
    now: dict[str, str],
    metas: Sequence[str],
    space: Any,
) -> RunState:
    """What is known of a run that goes on, once it is certain that it may."""
    journal, options = run.journal, run.options
    resuming.check(recorded, now)
    structures.check_resumed(journal, run.decider.mutator, space, metas, run.log_dir)
    resuming.warn_of_settings(recorded, now)
    state = loading.load(journal, run.graph, options.mode)
    run.decider.named(state)  # The mutator's state can be read.
    for _ in journal.log(max(0, state.row - _NEWEST), state.row):
        pass  # None of the newest rows is missing, or damaged.
    timeout = options.worker_timeout
    resuming.check_host(state, options.clock(), timeout)
    return state


def _begin(run: OpenRun, tx: Transaction) -> None:
    """Record that this process has opened the run."""
    openings = run.journal.all(Opening)
    known = [owner_of(o.owner) for o in openings if o.owner is not None]
    here = [owner for owner in known if not liveness.is_foreign(owner)]
    alive = {owner.token for owner in here if not liveness.is_gone(owner)}
    lost = reachability.lose(
        tx.state, tx.graph, run.decider, lambda held: held.session not in alive
    )
    tx.do(lost)
    for worker_id, lease in sorted(tx.state.leases.items()):
        # It was found silent for long enough.
        if lease.owner and liveness.is_foreign(owner_of(lease.owner)):
            tx.do(run.leases.claim(tx.state, None, worker_id, tx.at))
            tx.resume(worker_id, "takeover")
    run.open_time.begin(run.journal, openings)
    tx.do(Step((Opening(tx.state.row, tx.at.now, run.holder.text),)))


def _open_to_look(run: OpenRun, now: dict[str, str]) -> None:
    """Show a run that this user may not write to."""
    journal = run.journal
    with journal.reading():
        recorded = texts_of(journal)
        if not recorded:
            raise JournalError(
                f"{run.log_dir} holds no run yet, and this user may not make one "
                "there. Choose another log_dir."
            )
        resuming.check(recorded, now)
        resuming.warn_of_settings(recorded, now)
        state = loading.load(journal, run.graph, run.options.mode)
        run.decider.named(state)
        run.open_time.begin(journal, journal.all(Opening))
    run.adopt(state)


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
