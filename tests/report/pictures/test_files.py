"""The usual pictures as files."""

from __future__ import annotations

import pathlib
import sys

import pytest

from population.report import pictures
from tests.report.pictures.runs import copied, of_values

USUAL = ["learning_curves", "winner", "lineage_tree", "progress", "explored"]


def test_the_usual_pictures_are_written(tmp_path: pathlib.Path) -> None:
    """Each is a PNG, and each hyperparameter has one; the folder is made."""
    files = pictures.save(copied(), tmp_path / "new" / "plots", log=["opt/lr"])
    assert [file.stem for file in files] == [*USUAL, "opt_lr"]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")


def test_a_picture_loads_no_pyplot(tmp_path: pathlib.Path) -> None:
    """So it changes no backend, and leaves no figure open in the user's program."""
    before = "matplotlib.pyplot" in sys.modules
    pictures.save(of_values([[1.0]]), tmp_path)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_names_become_names_of_files(tmp_path: pathlib.Path) -> None:
    """Those with odd characters, those that differ only there, and very long ones."""
    odd = ["a/b", "a:b", "A_B", "..", "winner", "é$\n", "x" * 300]
    meta = {name: 0.5 for name in odd}
    files = pictures.save(of_values([[1.0]], [meta]), tmp_path)
    names = [file.name for file in files]
    assert len({name.lower() for name in names}) == len(USUAL) + len(odd)
    assert all(file.parent == tmp_path for file in files)
    assert {"a_b.png", "a_b-2.png", "A_B-3.png", "winner-2.png"} <= set(names)


def test_log_names_the_logarithmic_axes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are linear then; without it the run's space decides."""
    seen: dict[str, str | None] = {}
    original = pictures.hyperparameter

    def remember(run: pictures.Snapshot, name: str, *, scale: str | None) -> object:
        seen[name] = scale
        return original(run, name, scale=scale)

    monkeypatch.setattr("population.report.pictures.files.hyperparameter", remember)
    run = of_values([[1.0]], [{"a": 0.1, "b": 0.1}])
    pictures.save(run, tmp_path, log=["a"], value="loss", log_value=True)
    assert seen == {"a": "log", "b": "linear"}
    pictures.save(run, tmp_path)
    assert seen == {"a": None, "b": None}
