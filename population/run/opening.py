"""Opens a run: continues the one in the journal, or creates a new one."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
from collections.abc import Sequence

from population.base import codec, durable
from population.base.errors import JournalError
from population.base.run_paths import OWN_FOLDER
from population.base.types import Saved, Start
from population.core import branching, loading, reachability
from population.core.facts import read, texts_of
from population.core.owners import owner_of
from population.core.state import RunState
from population.core.step import EncodedReport, Step
from population.journal import sqlite_file
from population.journal.base import Journal
from population.journal.records import Fact, Lease, Opening
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_file import JOURNAL_NAME
from population.run import facts, liveness, session, structures
from population.run.arguments import Options
from population.run.facts import Facts
from population.run.liveness import is_foreign
from population.run.open_run import OpenRun
from population.run.params_manager import PARAMS_FOLDER
from population.run.transaction import Transaction, within

_GENERATION = re.compile(r"[0-9A-Za-z_]+-[0-9]+-[0-9]+")
_NEWEST = 200
_FEW = 8
_FOREIGN_S = 600.0  # Seconds of silence after which another host may be dead.


def open_run(
    starts: Sequence[Start], options: Options, log_dir: pathlib.Path | None
) -> OpenRun:
    """Continue the run in the journal, or create a new one.

    Args:
        starts: The start of each slot.
        options: The arguments of the controller.
        log_dir: The run folder, or None.

    Raises:
        JournalError: The run folder cannot be used.
        RunMismatchError: The journal holds a run with another size, mode, seed or
            mutator, or with another structure of its meta_params.
        TypeError: The meta_params cannot be stored; the message names the place.
        ValueError: The meta_params of a new run are not in the space, or `mutate_fn`
            could not explore them.
    """
    metas = [
        codec.encode(start.meta_params, f"initial_population[{i}]")
        for i, start in enumerate(starts)
    ]
    facts.warn_of_domains(options.space, options.mutator)
    own = log_dir and log_dir / PARAMS_FOLDER
    now = facts.facts_of(options, len(starts), own)
    journal = options.journal or _open_journal(log_dir, options.durability)
    try:
        run = OpenRun(journal, log_dir, options, len(starts))
        if journal.read_only:
            _open_to_look(run, now)
        else:
            _open_to_train(run, now, starts, metas)
    except BaseException:
        if options.journal is None:
            journal.close()
        raise
    return run


def _open_to_train(
    run: OpenRun, now: Facts, starts: Sequence[Start], metas: Sequence[str]
) -> None:
    """Record that this process continues the run, or creates it."""
    journal, params, options = run.journal, run.params, run.options
    first: list[EncodedReport] = []
    try:
        if is_new := not texts_of(journal):
            given = metas
            metas = [
                run.decider.first(worker_id, start.step, given[worker_id])
                for worker_id, start in enumerate(starts)
            ]
            made = [w for w, text in enumerate(metas) if text != given[w]]
            first_metas = [codec.decode(text) for text in metas]
            structures.check_new(options.mutator, options.space, first_metas, made)
            for worker_id, start in enumerate(starts):
                place = worker_id, f"{now['run']}-{worker_id}-0", start.step
                new = EncodedReport(*place, start.params, None, None, None, None)
                first.append(params.save(new))
        tx = within(journal, lambda: _opened(run, now, first, metas))
    except BaseException:
        run.params.undo(first)
        raise
    if is_new:
        journal.sync()
    for effect in params.after(tx, first, run.drop):
        effect()
    run.adopt(tx.state)


def _opened(
    run: OpenRun, now: Facts, first: Sequence[EncodedReport], metas: Sequence[str]
) -> Transaction:
    """Record the opening, within its transaction."""
    journal, params, options = run.journal, run.params, run.options
    recorded = read(texts_of(journal))
    if recorded:
        state = _resumed(run, recorded, now, metas)
        facts.warn_of_changes(recorded, now)
    else:
        state = RunState(now["run"], len(metas), options.mode, journal, run.graph)
    tx = run.begin(state)
    new = facts.unrecorded(recorded, now)
    tx.do(Step(tuple(Fact(key, codec.encode(value)) for key, value in new.items())))
    tx.do(Step(tuple(session.new_facts(recorded, run.stop))))
    if not recorded:
        for step in branching.start(state, first, metas, tx.at):
            tx.do(step)
        tx.do(Step((run.decider.init(state),)))
    params.keep = facts.keep_of({**now, **recorded}, options.keep)
    params.note(tx, first)
    _begin(run, tx)
    run.deciding.decide_pending(tx)
    # Last: it claims the store for this run. A refusal must leave the store unchanged.
    params.guard(texts_of(journal), run.holder.owner, _newest_saves(run, state))
    return tx


def _newest_saves(run: OpenRun, state: RunState) -> list[str]:
    """Return the paths of the slots' newest saves, as far as that is cheap."""
    newest = [slot.newest.params for slot in state.slots]
    if not any(type(params) is Saved for params in newest):
        few = itertools.islice(state.slots, _FEW)
        newest = [run.graph.resume_point(slot.newest).params for slot in few]
    return [params.path for params in newest if type(params) is Saved]


def _resumed(
    run: OpenRun, recorded: Facts, now: Facts, metas: Sequence[str] | None
) -> RunState:
    """Return the state of a recorded run, after a check that it can continue.

    Args:
        run: The run.
        recorded: Its facts.
        now: The facts that a new run with these arguments would have.
        metas: The present `initial_population`; None: the run is read, not trained.
    """
    journal, options = run.journal, run.options
    facts.check(recorded, now)
    state = loading.load(journal, run.graph, options.mode)
    if metas is not None:
        given = [codec.decode(text) for text in metas]
        fixed = journal, state, recorded, options
        structures.check_resumed(*fixed, given, run.log_dir)
        for _ in journal.log(max(0, state.row - _NEWEST), state.row):
            pass  # Raises if one of the newest rows is missing or damaged.
    facts.warn_of_settings(recorded, now)
    run.decider.named(state)  # Raises if the mutator's state cannot be read.
    return state


def _begin(run: OpenRun, tx: Transaction) -> None:
    """Record that this process has opened the run."""
    state = tx.state
    foreign = _held_elsewhere(run, state, tx.at.clock)
    openings = run.journal.all(Opening)
    known = [owner_of(o.owner) for o in openings if o.owner is not None]
    alive = {o.token for o in known if not (is_foreign(o) or liveness.is_gone(o))}
    lost = reachability.lose(
        state, tx.graph, run.decider, lambda held: held.session not in alive
    )
    tx.do(lost)
    for lease in foreign:
        tx.do(run.leases.end(state, lease.worker_id, tx.at))
        tx.resume(lease.worker_id, "takeover")
    run.session.begin(run.journal, openings, state.members.count)
    tx.do(Step((Opening(state.row, tx.at.now, run.holder.text),)))


def _held_elsewhere(run: OpenRun, state: RunState, now: float) -> list[Lease]:
    """Return the leases of workers on other hosts that have been silent for long.

    Raises:
        JournalError: A worker on another host may be training; the message names it.
    """
    held = [lease for _, lease in sorted(state.leases.items()) if lease.owner]
    found = [lease for lease in held if is_foreign(owner_of(str(lease.owner)))]
    patience = max(_FOREIGN_S, 2 * (run.options.worker_timeout or 0.0))
    for lease in found:
        if min(abs(now - lease.renewed), abs(now - state.time)) < patience:
            raise JournalError(
                f"This run is in use on another host: {owner_of(str(lease.owner))} "
                f"holds worker {lease.worker_id}. A SQLite journal serves the "
                "processes of one host; several hosts share a run through a PostgreSQL "
                f"journal only. If that worker is dead, open the run {patience:.0f} s "
                "after its last sign of life."
            )
    return found


def _open_to_look(run: OpenRun, now: Facts) -> None:
    """Open a run that this process can only read."""
    journal = run.journal
    with journal.reading():
        recorded = read(texts_of(journal))
        if not recorded:
            raise JournalError(
                f"{run.log_dir} holds no run yet, and this user may not make one "
                "there. Choose another log_dir."
            )
        state = _resumed(run, recorded, now, None)
        run.session.begin(journal, journal.all(Opening), state.members.count)
    run.adopt(state)


def _open_journal(log_dir: pathlib.Path | None, durability: str) -> Journal:
    """Open the journal of a run folder, made if it is missing; None: in memory.

    Raises:
        JournalError: The folder cannot be used.
    """
    if log_dir is None:
        return SqliteJournal()
    try:
        durable.make_folder(log_dir)
        file = log_dir / JOURNAL_NAME
        left = _left_of_a_run(file)
    except OSError as error:
        raise JournalError(
            f"log_dir must be a folder that can be written to, got {log_dir}: "
            f"{error.strerror}. Choose another one."
        ) from error
    sqlite_file.warn_of_network(log_dir)
    journal = SqliteJournal(file, durability=durability, left=left)
    return journal


def _holds_weights(folder: pathlib.Path) -> bool:
    """Whether a folder has files in a subfolder with the name of a generation."""
    if not folder.is_dir():
        return False
    return any(
        entry.is_file()
        for generation in folder.iterdir()
        if generation.is_dir() and _GENERATION.fullmatch(generation.name)
        for entry in generation.rglob("*")
    )


def _left_of_a_run(file: pathlib.Path) -> pathlib.Path | None:
    """Return a folder or file that an earlier journal of this run has left, or None.

    Call this before the journal is opened: another process may be creating the run.

    Raises:
        JournalError: Something is left, but the journal's file is missing or empty:
            SQLite would remove its log.
    """
    params, own = file.with_name(PARAMS_FOLDER), file.with_name(OWN_FOLDER)
    left = [folder for folder in (params, own) if _holds_weights(folder)]
    real = pathlib.Path(os.path.realpath(file))
    is_empty = real.is_file() and not real.stat().st_size
    if is_empty or not real.exists():
        left += [sqlite_file.log_of(real)] if sqlite_file.log_has_run(real) else []
        if left:
            what = "empty" if is_empty else "missing"
            raise sqlite_file.incomplete(file, what, left[0])
    return left[0] if left else None
