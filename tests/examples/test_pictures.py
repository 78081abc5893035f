"""The pictures of the README come from a real run."""

from __future__ import annotations

import pathlib

import population
from examples import pictures


def test_a_run_is_trained_and_drawn(tmp_path: pathlib.Path) -> None:
    """Three PNG files; the run improves, is kept, and is drawn again as it is."""
    run, first, again = tmp_path / "run", tmp_path / "first", tmp_path / "again"
    flags = ["--log_dir", str(run), "--workers", "2", "--steps", "60", "--width", "2"]
    files = pictures.main([*flags, "--folder", str(first)])
    assert {file.stem for file in files} == {
        "learning_curves",
        "lineage_tree",
        "winner",
    }
    recorded = population.read(run)
    values = [c.value for c in recorded if c.value is not None]
    assert min(values) < values[0]
    for file in pictures.draw(recorded, again):
        assert file.read_bytes() == (first / file.name).read_bytes()
