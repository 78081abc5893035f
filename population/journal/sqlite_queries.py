"""The longer questions to a SQLite journal."""

from __future__ import annotations

from typing import Any

from population.journal.records import (
    BestRecord,
    CheckpointRecord,
    GenerationRow,
    LateRecord,
    LossRecord,
    RemovalRecord,
)

TAIL = """
SELECT max(
        coalesce((SELECT max(row) FROM checkpoints), 0),
        coalesce((SELECT max(row) FROM generations), 0),
        coalesce((SELECT max(row) FROM late), 0)),
    max(
        coalesce((SELECT time FROM checkpoints ORDER BY row DESC LIMIT 1), 0.0),
        coalesce((SELECT time FROM late ORDER BY row DESC LIMIT 1), 0.0)),
    max(
        coalesce((SELECT reports FROM checkpoints ORDER BY row DESC LIMIT 1), 0),
        coalesce((SELECT reports FROM late ORDER BY row DESC LIMIT 1), 0)),
    (SELECT checkpoint FROM best ORDER BY row DESC LIMIT 1),
    coalesce((SELECT reports FROM best ORDER BY row DESC LIMIT 1), 0)
"""

HAD_PARAMS = """
SELECT 1 FROM checkpoints
WHERE row = ? AND params IS NOT NULL AND substr(params, 1, ?) <> ?
UNION ALL SELECT 1 FROM late WHERE checkpoint = ? AND params IS NOT NULL
"""

WAS_HELD = "SELECT 1 FROM checkpoints WHERE row = ? AND substr(params, 1, ?) = ?"

# Only a finite value is surely no larger; NaN is NULL here.
SAVED_OR_DIVERGED = """
(params IS NOT NULL OR coalesce(abs(value) > 1.7976931348623157e308, 1))
"""

DIVERGED = """
SELECT g.worker_id, count(*) FROM (
    SELECT generation FROM checkpoints
    WHERE has_value AND (value IS NULL OR abs(value) > 1.7976931348623157e308)
    UNION ALL
    SELECT c.generation FROM late l JOIN checkpoints c ON c.row = l.checkpoint
    WHERE l.has_value
    AND (l.value IS NULL OR abs(l.value) > 1.7976931348623157e308)
) d JOIN generations g ON g.row = d.generation GROUP BY g.worker_id
"""

PROGRESS = """
WITH valued (value) AS (
    SELECT value FROM checkpoints WHERE row > ?1 AND has_value
    UNION ALL SELECT value FROM late WHERE row > ?1 AND has_value
)
SELECT EXISTS (SELECT 1 FROM valued WHERE abs(value) <= 1.7976931348623157e308),
    EXISTS (SELECT 1 FROM valued
        WHERE value IS NULL OR abs(value) > 1.7976931348623157e308),
    coalesce((SELECT max(step) FROM checkpoints WHERE row > ?1)
        > (SELECT max(step) FROM checkpoints WHERE row <= ?1), 0)
"""

PULSE = """
SELECT EXISTS (SELECT 1 FROM removals WHERE row >= ? AND reason <> ?),
    EXISTS (SELECT 1 FROM facts WHERE key = 'saved'),
    coalesce((SELECT max(rowid) FROM losses), 0),
    (SELECT decisions FROM state),
    (SELECT max(change) FROM leases)
"""

TOUCHED = """
SELECT g.worker_id, g.row FROM (
    SELECT DISTINCT generation FROM checkpoints NOT INDEXED WHERE row > ?
) c JOIN generations g ON g.row = c.generation
"""

TRAINED = """
SELECT generation_id FROM generations WHERE row > ?
UNION
SELECT g.generation_id FROM generations g JOIN (
    SELECT worker_id, max(number) AS number FROM generations WHERE row <= ?
    GROUP BY worker_id
) p ON p.worker_id = g.worker_id AND p.number = g.number
"""

LATE = """
SELECT checkpoint FROM late WHERE row > ?
UNION
SELECT c.row FROM checkpoints c NOT INDEXED WHERE c.row > ? AND EXISTS (
    SELECT 1 FROM checkpoints n
    WHERE n.generation = c.generation AND n.step > c.step AND n.row < c.row)
"""

RECORDS: list[tuple[type[Any], str]] = [
    (kind, f"SELECT {columns} FROM {table} WHERE row > ? AND row <= ? ORDER BY {order}")
    for kind, columns, table, order in (
        (GenerationRow, "*", "generations", "row"),
        (CheckpointRecord, "*", "checkpoints", "row"),
        (LateRecord, "*", "late", "row"),
        (BestRecord, "*", "best", "row"),
        (RemovalRecord, "row, params, reason", "removals", "row"),
        (LossRecord, "*", "losses", "row, rowid"),
    )
]

SESSIONS = """
SELECT s.time, max(s.time, coalesce((
    SELECT c.time FROM checkpoints c
    WHERE c.row <= coalesce((
        SELECT min(n.row) FROM sessions n WHERE n.rowid > s.rowid), 9223372036854775807)
    ORDER BY c.row DESC LIMIT 1), s.time))
FROM sessions s ORDER BY s.rowid
"""
