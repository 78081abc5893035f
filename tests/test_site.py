"""The site has every page, every public name, and a section for each mutator.

`make docs` builds it, and fails at a warning.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pathlib
import re
import types
from typing import Any

import pytest

from population import mutators
from tests.helpers import needs_mkdocs

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
PACKAGES = (
    *("population", "population.base", "population.mutators", "population.params"),
    *("population.report.loggers", "population.report.page"),
    *("population.report.pictures", "population.space", "population.testing"),
)
MODULES = (
    *("population.engines.processes", "population.engines.threads"),
    *("population.engines.vectorized", "population.hyperparams"),
    *("population.mutators.exploit", "population.mutators.explore"),
    *("population.mutators.rounds", "population.report.progress"),
)
# A name on a page of the reference, and its options.
SHOWN = re.compile(r"^::: ([\w.]+)$((?:\n .*)*)", re.M)
NAV = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]


def named(page: pathlib.Path) -> list[str]:
    """What a page of the reference describes."""
    return [name for name, _ in SHOWN.findall(page.read_text(encoding="utf-8"))]


def found(name: str) -> Any:
    """The object with a dotted name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            thing = getattr(thing, part)
        return thing
    raise AssertionError(name)


def test_every_page_is_in_the_navigation() -> None:
    """A page that nobody finds might as well not exist."""
    for page in (*DOCS.glob("*.md"), *REFERENCE):
        assert re.search(rf": {page.relative_to(DOCS)}$", NAV, re.M), page.name


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.name)
def test_the_reference_describes_what_there_is(page: pathlib.Path) -> None:
    """Each name leads to something that has a docstring."""
    names = named(page)
    assert names
    for name in names:
        assert found(name).__doc__, name


def public(module: types.ModuleType) -> dict[str, Any]:
    """What a module offers, by name: in `__all__`; else what it defines or renames."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = []
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                names.append(node.name)
            elif isinstance(node, ast.ImportFrom):
                names += [one.name for one in node.names if one.asname == one.name]
    found = {name: getattr(module, name) for name in names if name[0] != "_"}
    return {name: value for name, value in found.items() if callable(value)}


def described() -> list[Any]:
    """All classes and functions of the reference; a module may be there in part."""
    things = []
    for page in REFERENCE:
        for name, options in SHOWN.findall(page.read_text(encoding="utf-8")):
            thing = found(name)
            if not inspect.ismodule(thing):
                things.append(thing)
                continue
            members = re.search(r"members: \[(.*)\]", options)
            names = members[1].split(", ") if members else vars(thing)
            for value in map(vars(thing).get, names):
                if getattr(value, "__module__", None) == thing.__name__:
                    things.append(value)
    return things


def test_the_public_packages_are_those_that_name_what_they_offer() -> None:
    """A new one comes into the list."""
    files = (ROOT / "population").rglob("__init__.py")
    offering = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in files
        if re.search("^__all__", file.read_text(encoding="utf-8"), re.M)
    }
    assert offering == set(PACKAGES)


@pytest.mark.parametrize("name", [*PACKAGES, *MODULES])
def test_every_public_name_is_in_the_reference(name: str) -> None:
    """By its own name, or in a module that is described as a whole."""
    offered = public(importlib.import_module(name))
    assert offered
    known = described()
    assert [one for one, value in offered.items() if value not in known] == []


@pytest.mark.parametrize("kind", mutators.REGISTRY.values(), ids=lambda k: k.__name__)
def test_each_mutator_has_its_rule_its_use_and_its_source(kind: type) -> None:
    """So that a person can choose."""
    page = (DOCS / "mutators.md").read_text(encoding="utf-8")
    assert f"`{kind.__name__}`" in page.partition("\n## ")[0]
    section = page.partition(f"\n## {kind.__name__}\n")[2].partition("\n## ")[0]
    for part in ("*The rule.*", "*When.*", "*Reference.*"):
        assert part in section


def test_links_in_code_are_code() -> None:
    """Only those in the text become links to pages; blocks of code stay as they are."""
    needs_mkdocs()
    place = importlib.util.spec_from_file_location("hooks", DOCS / "site_hooks.py")
    assert place is not None
    assert place.loader is not None
    hooks = importlib.util.module_from_spec(place)
    place.loader.exec_module(hooks)
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="concepts.md"))
    text = (
        "[a](../README.md#b), [setup](../setup.cfg)\n\n```py\nx[a](../README.md)\n```\n"
    )
    assert hooks.on_page_markdown(text, page) == (
        "[a](index.md#b), setup\n\n```python\nx[a](../README.md)\n```\n"
    )
