"""`population export`: a run as a table in a file."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io

from population.cli import arguments
from population.cli.output import Exit, json_text, not_written, records, say, write
from population.reader.columns import RunColumns

NAME = "export"
HELP = "all checkpoints, or another table, as CSV, JSON or Parquet"
_TABLES = ("checkpoints", "branches", "workers", "saves")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", metavar="RUN", help="the run folder (log_dir)")
    parser.add_argument("--table", choices=_TABLES, default=_TABLES[0])
    kinds = parser.add_mutually_exclusive_group()
    for kind, what in (("csv", "CSV"), ("json", "a JSON list of rows")):
        kinds.add_argument(
            f"--{kind}",
            metavar="FILE",
            nargs="?",
            const="-",
            help=f"{what}; without FILE to standard output",
        )
    kinds.add_argument("--parquet", metavar="FILE", help="Parquet; needs pyarrow")


def run(options: argparse.Namespace) -> int:
    """Write the table."""
    columns = getattr(arguments.opened(options), options.table)()
    if options.parquet is not None:
        _write_parquet(columns, options.parquet)
        target = options.parquet
    elif options.json is not None:
        write(options.json, json_text(records(columns)) + "\n")
        target = options.json
    else:
        target = options.csv or "-"
        write(target, csv_text(columns))
    if target != "-":
        say(f"{target}: {columns.rows} rows, {len(columns)} columns")
    return Exit.DONE


def csv_text(columns: RunColumns) -> str:
    """Return columns as CSV with a head; what is missing, and NaN, is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = list(columns)
    writer.writerow(names)
    cells = [columns[name].tolist() for name in names]
    for row in zip(*cells, strict=True):
        writer.writerow(["" if _is_missing(cell) else cell for cell in row])
    return stream.getvalue()


def _is_missing(cell: object) -> bool:
    return cell is None or cell != cell  # NaN alone differs from itself.


def _write_parquet(columns: RunColumns, path: str) -> None:
    frame = columns.to_pandas()
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(
            "--parquet needs pyarrow: pip install pyarrow. --csv needs nothing more."
        )
    for name, values in frame.items():
        if values.dtype == object:  # Of mixed kinds, perhaps, which Parquet has not.
            frame[name] = values.map(lambda cell: None if cell is None else str(cell))
    try:
        frame.to_parquet(path)
    except OSError as error:
        raise not_written(path, error) from error
