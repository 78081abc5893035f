"""The page about what comes after a run: each command on it works."""

from __future__ import annotations

import pathlib
import re
import shlex
import sys
import types

import pytest

from population.cli import main as command_line
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "after-the-run.md"


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md"], ids=lambda p: p.name)
def test_the_commands_of_a_page_work(
    page: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After its Python, in the same folder, one after the other."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("after_the_run")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(blocks(page, "python"), page.name, "exec"), vars(module))
    commands = [
        shlex.split(line, comments=True)
        for line in blocks(page, "sh").splitlines()
        if line.startswith("population ")
    ]
    assert len(commands) >= 5
    for command in commands:
        _, *arguments = command
        assert command_line.main(arguments) == 0, command
    assert capsys.readouterr().err == ""
    assert (tmp_path / "schedule.json").exists()


def test_the_page_names_every_command_and_exit_code() -> None:
    """A command that is not documented does not exist for people."""
    text = PAGE.read_text()
    for command in command_line.COMMANDS:
        assert re.search(rf"^\| `{command.NAME}\b", text, re.M), command.NAME
    for code in ("0 done", "1 no", "2 wrong", "3 the run", "4 a package", "130"):
        assert code in " ".join(text.split())
