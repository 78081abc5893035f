"""Every mutator that a page shows keeps the promises that the kit checks."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import sys
import types
from typing import Any

import pytest

from population import Mutator
from population.mutators import PopulationBasedTraining
from population.testing import BrokenPromise, MutatorWarning, check_mutator
from tests.test_docs import PAGES, blocks

SHOWS = re.compile(r"^class \w+\(Mutator\b|^    def donor\(", re.MULTILINE)
# Shown as a mistake: the page says which promise it breaks.
WRONG = {"CopyTheBest"}
# Shown as a likely mistake: the page says which, and the kit warns of it.
LIKELY_WRONG = {"WrongHalf"}


@functools.cache
def definitions(page: pathlib.Path) -> list[ast.stmt]:
    """The imports, classes and functions of a page's Python."""
    body = ast.parse(blocks(page, "python")).body
    kinds = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
    return [node for node in body if isinstance(node, kinds)]


@functools.cache
def names_of(page: pathlib.Path) -> dict[str, Any]:
    """The names that a page defines; what it runs is for `tests/test_docs.py`.

    They are in a module, in which the types of a state are found.
    """
    module = types.ModuleType(f"mutators_of_{page.stem.replace('-', '_')}")
    sys.modules[module.__name__] = module
    code = compile(ast.Module(definitions(page), []), page.name, "exec")
    exec(code, vars(module))
    return vars(module)


CLASSES = [
    pytest.param(page, node.name, id=f"{page.stem}-{node.name}")
    for page in PAGES
    if SHOWS.search(blocks(page, "python"))
    for node in definitions(page)
    if isinstance(node, ast.ClassDef)
]


@pytest.mark.parametrize(("page", "name"), CLASSES)
def test_a_policy_on_a_page_passes_the_kit(page: pathlib.Path, name: str) -> None:
    """A reader who copies it begins with one that works; a rule is tried in PBT.

    A mutator on a page takes a `mutate_fn` and the steps between two decisions.
    """
    kind = names_of(page)[name]
    if hasattr(kind, "donor"):
        check_mutator(lambda fn: PopulationBasedTraining(fn, 3, exploit=kind()))
    elif name in LIKELY_WRONG:
        with pytest.warns(MutatorWarning, match=name):
            assert check_mutator(kind)
    elif issubclass(kind, Mutator) and name not in WRONG:
        check_mutator(lambda fn: kind(fn, 3))
    elif name in WRONG:
        with pytest.raises(BrokenPromise) as caught:
            check_mutator(lambda fn: kind(fn, 3))
        assert caught.value.promise in page.read_text()


def test_the_pages_show_policies_of_each_kind() -> None:
    """Copies, old checkpoints, fresh weights, barriers, retirements and failures."""
    names = {param.values[1] for param in CLASSES}
    kinds = {"BetterHalf", "BackToTheMark", "Newcomers", "Impatient", "Cautious"}
    assert kinds | WRONG | {"NextBetter"} <= names
