"""Three pictures of a real run: its curves, its lineages, and the best's schedule.

    python -m examples.pictures --folder pictures

A population of CNNs finds ten hyperparameters while it trains; `complex_cnn` explains
the training. With `--log_dir` the run is kept, and drawn again without training.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from typing import Any

import population
from examples.complex_cnn import train_threads
from population.reader.recorded_run import RecordedRun
from population.report import pictures

NAME = "validation loss"


def draw(run: RecordedRun, folder: pathlib.Path) -> list[pathlib.Path]:
    """Draw the three pictures; return their files."""
    shown: dict[str, Any] = {
        "learning_curves": pictures.learning_curves(run, log=True, label=NAME).figure,
        "lineage_tree": pictures.lineage_tree(run, label=NAME).figure,
        "winner": pictures.winner(run, log=True, label=NAME),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in shown.items():
        figure.savefig(folder / f"{name}.png", dpi=110)
    return [folder / f"{name}.png" for name in shown]


def main(argv: list[str] | None = None) -> list[pathlib.Path]:
    """Train, then draw."""
    parser = argparse.ArgumentParser(description="Three pictures of a real run.")
    parser.add_argument("--folder", type=pathlib.Path, default="pictures")
    parser.add_argument("--log_dir", help="the run folder; by default it is not kept")
    parser.add_argument("--workers", default="8")
    parser.add_argument("--steps", default="400", help="training steps of each worker")
    parser.add_argument("--width", default="8", help="channels")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        log_dir = options.log_dir or folder
        arguments = {
            "--log_dir": log_dir,
            "--workers": options.workers,
            "--steps": options.steps,
            "--width": options.width,
            "--threads": "2",
            "--mutator": "pbt",
            "--steps_per_exploit": "40",
            "--every": "20",
        }
        given = [part for pair in arguments.items() for part in pair]
        train_threads.main(given).close()
        files = draw(population.read(log_dir), options.folder)
    print("pictures:", *files, sep="\n  ")
    return files


if __name__ == "__main__":
    main()
