"""The site has every page, every public name, and a section for each mutator.

`make docs` builds it, and fails at a warning.
"""

from __future__ import annotations

import importlib
import pathlib
import re
from typing import Any

import pytest

import population
from population import mutators

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
NAV = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]


def named(page: pathlib.Path) -> list[str]:
    """What a page of the reference describes."""
    return re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)


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


def test_every_public_name_is_in_the_reference() -> None:
    """By its own name, or in a module that is described as a whole."""
    described = [found(name) for page in REFERENCE for name in named(page)]
    public = {n: v for n, v in vars(population).items() if isinstance(v, type)}
    for name, value in public.items():
        wholly = importlib.import_module(value.__module__)
        assert value in described or wholly in described, name


@pytest.mark.parametrize("kind", mutators.REGISTRY.values(), ids=lambda k: k.__name__)
def test_each_mutator_has_its_rule_its_use_and_its_source(kind: type) -> None:
    """So that a person can choose."""
    page = (DOCS / "mutators.md").read_text()
    assert f"| `{kind.__name__}`" in page or f"`{kind.__name__}`" in page
    section = page.partition(f"\n## {kind.__name__}\n")[2].partition("\n## ")[0]
    for part in ("*The rule.*", "*When.*", "*Reference.*"):
        assert part in section
