"""The tables of a SQLite journal, and how an older format becomes this one.

`docs/on-disk-format.md` describes them for whoever reads a run without this library.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x504F504A  # "POPJ"
FORMAT = 3

_KEPT_SINCE_1 = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (row INTEGER NOT NULL, time REAL NOT NULL, owner TEXT);
CREATE TABLE generations (
    row INTEGER PRIMARY KEY,
    generation_id TEXT NOT NULL UNIQUE,
    worker_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    step INTEGER NOT NULL,
    meta_params TEXT NOT NULL,
    digest TEXT NOT NULL,
    reason TEXT NOT NULL,
    time REAL NOT NULL,
    UNIQUE (worker_id, number)
);
CREATE INDEX generations_by_digest ON generations (digest);
CREATE TABLE checkpoints (
    row INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL REFERENCES generations (row),
    step INTEGER NOT NULL,
    parent INTEGER REFERENCES checkpoints (row),
    params TEXT,
    has_value INTEGER NOT NULL,
    value REAL,
    metrics TEXT,
    time REAL NOT NULL,
    reports INTEGER NOT NULL,
    batch INTEGER NOT NULL
);
CREATE UNIQUE INDEX checkpoints_by_step ON checkpoints (generation, step);
CREATE TABLE late (
    row INTEGER PRIMARY KEY,
    checkpoint INTEGER NOT NULL REFERENCES checkpoints (row),
    params TEXT,
    has_value INTEGER NOT NULL,
    value REAL,
    metrics TEXT,
    time REAL NOT NULL,
    reports INTEGER NOT NULL,
    batch INTEGER NOT NULL
);
CREATE INDEX late_by_checkpoint ON late (checkpoint);
CREATE UNIQUE INDEX late_by_params ON late (checkpoint) WHERE params IS NOT NULL;
CREATE UNIQUE INDEX late_by_value ON late (checkpoint) WHERE has_value;
CREATE TABLE best (
    row INTEGER PRIMARY KEY,
    checkpoint INTEGER NOT NULL REFERENCES checkpoints (row),
    reports INTEGER NOT NULL
);
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    state TEXT NOT NULL,
    decisions INTEGER NOT NULL
)"""

_SINCE_2 = """
CREATE TABLE removals (
    params TEXT NOT NULL,
    row INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (params, row)
) WITHOUT ROWID;
CREATE INDEX removals_by_row ON removals (row);
CREATE TABLE saves (
    params TEXT PRIMARY KEY,
    row INTEGER NOT NULL,
    generation TEXT NOT NULL,
    step INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE leases (
    worker_id INTEGER PRIMARY KEY,
    owner TEXT,
    renewed REAL NOT NULL,
    grace REAL NOT NULL,
    handed INTEGER,
    change INTEGER NOT NULL
);
CREATE INDEX leases_by_change ON leases (change);
CREATE TABLE losses (
    row INTEGER NOT NULL,
    lost TEXT NOT NULL,
    told INTEGER,
    time REAL NOT NULL
);
CREATE INDEX losses_by_row ON losses (row);
CREATE INDEX diverged ON checkpoints (generation)
    WHERE has_value AND (value IS NULL OR abs(value) > 1.7976931348623157e308);
CREATE INDEX late_diverged ON late (checkpoint)
    WHERE has_value AND (value IS NULL OR abs(value) > 1.7976931348623157e308);"""

# What came late replaces what only the process had that reported it.
_SINCE_3 = """
CREATE VIEW history AS
SELECT c.row, c.generation, c.step,
    CASE WHEN NOT EXISTS (
        SELECT 1 FROM removals r
        WHERE r.params = coalesce(p.params, c.params)
        AND r.row >= coalesce(p.row, c.row)
    ) THEN coalesce(p.params, c.params) END AS params,
    c.has_value OR v.row IS NOT NULL AS has_value,
    CASE WHEN c.has_value THEN c.value ELSE v.value END AS value,
    coalesce(c.metrics, v.metrics) AS metrics,
    c.time,
    pg.generation_id AS parent_generation_id, pc.step AS parent_step,
    g.generation_id, g.worker_id, g.meta_params, g.reason
FROM checkpoints c
JOIN generations g ON g.row = c.generation
LEFT JOIN checkpoints pc ON pc.row = c.parent
LEFT JOIN generations pg ON pg.row = pc.generation
LEFT JOIN late p ON p.checkpoint = c.row AND p.params IS NOT NULL
LEFT JOIN late v ON v.checkpoint = c.row AND v.has_value"""

# Format 1 kept all params on disk, and no removals but of what was in memory.
_FROM_1_TO_2 = """
DROP TABLE removals;
ALTER TABLE sessions ADD COLUMN owner TEXT;"""
_TO_3 = "DROP VIEW history;"


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables that are missing. Called inside a transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        _run(connection, f"{_KEPT_SINCE_1};{_SINCE_2}{_SINCE_3}")
    elif version == 1:
        _run(connection, f"{_TO_3}{_FROM_1_TO_2}{_SINCE_2}{_SINCE_3}")
    elif version == 2:
        _run(connection, f"{_TO_3}{_SINCE_3}")
    if version != FORMAT:
        connection.execute(f"PRAGMA user_version={FORMAT}")


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Run a script statement by statement, within the transaction."""
    for statement in script.split(";"):
        connection.execute(statement)
