"""The names that a user gets from `population`, and what its help says."""

from __future__ import annotations

import ast
import importlib
import inspect
import pathlib
import pydoc
import re
from typing import Any

import pytest

import population
from population.base import CheckpointGraph
from population.core.graph import JournalGraph
from tests.test_house import ROOT, run

TREE = ast.parse((ROOT / "population" / "__init__.py").read_text())
# What is loaded at once, and, in the block for type checkers, what is loaded when used.
EAGER, LAZY = (
    {
        alias.asname
        for body in bodies
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for bodies in ([TREE.body], [n.body for n in TREE.body if isinstance(n, ast.If)])
)


def test_all_names_are_listed_in_order() -> None:
    """`__all__` has what is loaded at once and what is loaded when it is used."""
    assert set(population.__all__) == EAGER | LAZY
    assert population.__all__ == sorted(population.__all__)


def test_a_star_import_gives_all_of_them() -> None:
    """Also those that are loaded on first use."""
    names: dict[str, Any] = {}
    exec("from population import *", names)
    assert set(names) - {"__builtins__"} == set(population.__all__)


def test_the_names_that_are_loaded_when_used_are_shown() -> None:
    """`dir` has them before; completion in a shell uses it."""
    code = "import population; print(*dir(population)); print(*vars(population))"
    shown, loaded = (set(line.split()) for line in run(code).splitlines())
    assert set(population.__all__) <= shown
    assert LAZY.isdisjoint(loaded)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of every module."""
    with pytest.raises(AttributeError, match="no attribute 'Checkpoints'"):
        _ = population.Checkpoints


@pytest.mark.parametrize("name", population.__all__)
def test_each_name_says_what_it_is(name: str) -> None:
    """Its own docstring, and not that of a base class."""
    found = getattr(population, name)
    text = vars(found).get("__doc__") if isinstance(found, type) else found.__doc__
    assert text
    assert re.match(r"[A-Z]", text)


def test_the_help_says_what_each_name_is_for() -> None:
    """The first page of `help(population)` names all, by what a user wants to do."""
    text = pydoc.plain(pydoc.render_doc(population))
    first, rest = text.split("PACKAGE CONTENTS")
    named = set(re.findall(r"`([A-Za-z]+)`", first))
    assert set(population.__all__) <= named
    for name in population.__all__:
        kind = "class " if inspect.isclass(getattr(population, name)) else ""
        assert re.search(rf"^    {kind}{name}\(", rest, re.MULTILINE)


PACKAGES = (
    "base",
    "mutators",
    "params",
    "report.loggers",
    "report.page",
    "report.pictures",
    "space",
    "testing",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_help_of_each_public_package_shows_its_names(package: str) -> None:
    """`help` shows what `__all__` lists, and nothing else that is imported."""
    module = importlib.import_module(f"population.{package}")
    tree = ast.parse(pathlib.Path(str(module.__file__)).read_text())
    names = [
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    ]
    assert set(module.__all__) == {*names, *({"REGISTRY"} & set(vars(module)))}
    text = pydoc.plain(pydoc.render_doc(module))
    for name in names:
        assert re.search(rf"^    (class )?{name}\(", text, re.MULTILINE), name


def test_every_package_that_gives_names_has_a_list_of_them() -> None:
    """So that none is forgotten above; that of processes gives names to itself."""
    found = {
        ".".join(path.parent.relative_to(ROOT / "population").parts)
        for path in (ROOT / "population").rglob("__init__.py")
        if re.search(r"^from population.* as ", path.read_text(), re.MULTILINE)
    }
    assert found - {"", "engines.processes"} == set(PACKAGES)


def test_the_type_of_the_graph_has_a_public_name() -> None:
    """A policy's functions can be annotated with it."""
    assert population.CheckpointGraph is CheckpointGraph
    assert issubclass(JournalGraph, population.CheckpointGraph)
    graph = inspect.signature(
        inspect.getattr_static(population.PopulationView, "graph").fget
    )
    assert graph.return_annotation == "CheckpointGraph"
