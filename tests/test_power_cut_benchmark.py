"""The benchmark of power cuts runs, and its table says what was lost."""

from __future__ import annotations

import json
import pathlib

import pytest

from benchmarks import render
from benchmarks.durability import kept, power_cuts
from benchmarks.durability.power_cuts import Loss
from tests.helpers import missing
from tests.power_cut import record


def test_what_each_durability_loses_is_in_the_tables(tmp_path: pathlib.Path) -> None:
    """On both disks "power" loses nothing and "process" loses something."""
    if record.compiled(tmp_path) is None:
        missing("Linux with a C compiler (cc)")
    out = tmp_path / "power_cuts.json"
    power_cuts.main(["--quick", "--out", str(out)])
    found = json.loads(out.read_text())
    assert [table["title"] for table in found["tables"]] == list(power_cuts.DISKS)
    for table in found["tables"]:
        power, process = table["rows"]
        assert "power" in power[0]
        assert power[1:] == ["0", "0", "0", "0", str(power_cuts.QUICK_CUTS)]
        assert "process" in process[0]
        assert int(process[1].replace(",", "")) > 0
    assert "| cuts that lost any |" in render.render([out])


def test_losses_are_added_up() -> None:
    """A cut before the first acknowledged report loses neither any nor all."""
    losses = [Loss(0, 0), Loss(0, 5), Loss(2, 5), Loss(7, 7)]
    assert power_cuts.row("x", losses) == ["x", "2,250", "2", "1", "7", "4"]


def test_optuna_has_its_rows_and_must_be_installed_for_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for the comparison is told how to install it."""
    names = [subject.name for subject in kept.subjects(peers=True)]
    assert sum(name.startswith(kept.OPTUNA) for name in names) == 2
    assert len(kept.subjects(peers=False)) == 2
    monkeypatch.setattr(kept, "has_optuna", lambda: False)
    with pytest.raises(SystemExit):
        power_cuts.main(["--peers"])
    assert "make bench-peers" in capsys.readouterr().err


def test_a_quick_look_overwrites_no_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Few cuts are no result."""
    with pytest.raises(SystemExit):
        power_cuts.main(["--quick"])
    assert "pass --out" in capsys.readouterr().err
