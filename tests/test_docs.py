"""The README and the docs: what they show runs, and what they link to is there."""

from __future__ import annotations

import pathlib
import re
import sqlite3
import sys
import types

import pytest

from population import PopulationController, Stop
from population.mutators import FixedSchedule

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "examples/*.md")
    for page in ROOT.glob(pattern)
)


def blocks(page: pathlib.Path, language: str) -> str:
    """All code blocks of a language in a page, joined."""
    found = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    return "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(
    page: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A reader who copies the Python of a page from top to bottom gets no error.

    What recipes put in force is in force, so they do not even cause a warning.
    """
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(page.stem.replace("-", "_"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(blocks(page, "python"), page.name, "exec"), vars(module))
    if page.name == "recipes.md":
        ours = [r.getMessage() for r in caplog.records if r.name == "population"]
        assert ours == []


def test_the_loop_of_the_readme_gets_better_and_goes_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's loop trains to its end, and a second run of it has nothing to do."""
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[0]
    first: dict[str, object] = {}
    exec(code, first)
    controller = first["controller"]
    assert isinstance(controller, PopulationController)
    best = controller.best()
    assert best is not None
    assert best.value is not None
    assert best.value < 0.5  # 14 at the start
    count = len(list(controller.history()))
    second: dict[str, object] = {}
    exec(code, second)
    again = second["controller"]
    assert isinstance(again, PopulationController)
    assert len(list(again.history())) == count


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: pathlib.Path) -> None:
    """Every file that a page links to or shows is part of the project."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_queries_of_the_format_page_work(tmp_path: pathlib.Path) -> None:
    """The tables are documented as they are, and a person can query them."""
    controller = PopulationController(
        [{"lr": 0.1}], FixedSchedule({3: {"lr": 0.2}}), tmp_path, stop=Stop(reports=9)
    )
    work = controller.maybe_get_worker_data(0, None, 0, None, None)
    for step in range(1, 5):
        assert work is not None
        news = controller.maybe_get_worker_data(0, work.generation_id, step, None, None)
        work = news or work
        controller.set_eval(0, work.generation_id, step, "path", 1.0 / step)
    page = (ROOT / "docs" / "on-disk-format.md").read_text()
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        queries = blocks(ROOT / "docs/on-disk-format.md", "sql").strip().split(";")
        rows = [connection.execute(query).fetchall() for query in queries if query]
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
    connection.close()
    assert rows[0] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert [meta for _, _, meta, _ in rows[1]] == ['{"lr":0.1}', '{"lr":0.2}']
    assert [value for _, _, value, _ in rows[2]] == [0.25, 1 / 3, 0.5, 1.0]
    for (name,) in tables:
        assert f"| `{name}` |" in page
