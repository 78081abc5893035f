"""The packages of the library: imports, sizes, and the cost of importing."""

from __future__ import annotations

import ast
import collections
import functools
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

import mutators
from population import mutators as rooms

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "population").rglob("*.py"))
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): (
        file
    )
    for file in FILES
}
FRAMEWORKS = {"jax", "jaxlib", "flax", "optax", "orbax", "tensorflow", "msgpack"}
# A package may import only packages on lower floors. Imports for type checkers, or
# within a function, count like any other.
FLOORS = (
    {"base"},
    {"space", "params", "journal"},
    {"mutators", "in_force", "core"},
    {"run", "hyperparams"},
    {"worker", "reader"},
    {"controller"},
    {"offline", "population", "report", "testing"},
    {"engines", "cli"},
    {"benchmarks", "__main__"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

ISOLATES = {
    "population.cli.arguments",
    "population.run.events",
    "population.params.disk",
    "population.run.remover",
    "population.testing.runner",
}
PRIVATE = re.compile("_[^_]")
# Of named tuples, threading, JAX and Python: they are documented, or have no other way.
NOT_OURS = {"_replace", "_fields", "_is_owned", "_value_holders", "_getframe"}
REGISTERS = {"weakref.finalize"}  # They hold it, and call nothing.
SHARED_BY_MUTATORS = {
    f"population.mutators.{helper}"
    for helper in ("explore", "exploit", "rounds", "standings")
}


@functools.cache
def parsed(name: str) -> ast.Module:
    """The tree of a module; whoever looks at it leaves it as it is."""
    return ast.parse(MODULES[name].read_text())


def imported(name: str, *, always: bool = False) -> set[str]:
    """The modules that a module imports.

    Args:
        name: The module.
        always: Only what is imported when it is loaded; else also what is imported in
            functions and for type checkers.
    """
    tree = parsed(name)
    found: set[str] = set()
    for node in _at_module_level(tree.body) if always else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found


def _at_module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _at_module_level(node.orelse)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        else:
            yield node
            for part in ("body", "orelse", "finalbody", "handlers"):
                for inner in getattr(node, part, []):
                    statements = inner.body if part == "handlers" else [inner]
                    yield from _at_module_level(statements)


def own(name: str) -> set[str]:
    """Which modules of the library it imports."""
    return {other for other in imported(name) if other.split(".")[0] == "population"}


def room_of(name: str) -> str:
    """The package of a module: the folder or file at the top of `population`."""
    return name.split(".")[1]


def within(room: str) -> list[str]:
    """The modules of a sub-package, without its `__init__`."""
    return [name for name in MODULES if name.startswith(f"population.{room}.")]


@pytest.mark.parametrize("name", [name for name in MODULES if name != "population"])
def test_a_room_imports_only_what_stands_on_lower_floors(name: str) -> None:
    """So data flows one way: each package can be understood after those below it."""
    here = room_of(name)
    for other in own(name) - {"population"}:
        there = room_of(other)
        lower = FLOOR_OF[there] < FLOOR_OF[here]
        assert there == here or lower, f"{name} imports {other}"


def test_the_table_of_floors_is_the_house() -> None:
    """Every package has its floor; there are at most twenty, on nine floors."""
    rooms = {room_of(name) for name in MODULES if name != "population"}
    assert rooms == FLOOR_OF.keys() - {"benchmarks"}
    assert len(rooms) <= 20
    assert len(FLOORS) <= 9


@pytest.mark.parametrize("name", within("mutators"))
def test_a_mutator_knows_neither_another_one_nor_the_controller(name: str) -> None:
    """It may use the ground floor, spaces, and helpers that all policies share."""
    allowed = {"population.space", "population.base", *within("base")}
    assert own(name) <= allowed | SHARED_BY_MUTATORS


@pytest.mark.parametrize("name", [name for name in MODULES if name != "population"])
def test_nobody_inside_imports_the_facade(name: str) -> None:
    """They import each other's modules, so that the facade can stay small."""
    assert "population" not in own(name)


@pytest.mark.parametrize("name", MODULES)
def test_frameworks_are_loaded_only_where_they_are_needed(name: str) -> None:
    """A controller must be able to run on a head node, beside a job on the GPU."""
    may = ("params", "hyperparams", "in_force.", "engines.", "testing", "report.")
    if not name.startswith(tuple(f"population.{room}" for room in may)):
        found = imported(name, always=True)
        assert not {other.partition(".")[0] for other in found} & FRAMEWORKS


def test_there_are_no_circles() -> None:
    """Each module can be understood, and loaded, after those that it imports."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in sorted(own(name) & MODULES.keys()):
                visit(other, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def run(code: str) -> str:
    """The output of a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import population",
        "import population.mutators",
        "import population as p; from population.mutators import FixedSchedule\n"
        "c = p.PopulationController([0.1], FixedSchedule({0: 0.1, 2: 0.2}))\n"
        "w = c.worker(); w.poll(); w.step += 1; w.report(0.1, 'path'); w.release()\n"
        "c.set_eval(0, c.workers[0].generation_id, 2, 'path', 0.1); c.best()\n"
        "c.close()",
    ],
)
def test_importing_the_library_loads_no_framework(code: str) -> None:
    """It loads neither JAX nor Flax, so no backend; nor does a run without arrays."""
    loaded = run(f"{code}\nimport sys; print(*sys.modules)").split()
    assert "population.controller" in loaded or "population.mutators" in loaded
    assert not {name.partition(".")[0] for name in loaded} & FRAMEWORKS


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported_first(name: str) -> None:
    """No module depends on another one that was loaded before it."""
    if not name.startswith("population.report"):  # It needs an extra.
        source = MODULES[name].read_text()
        compile(source, name, "exec")
        assert ast.get_docstring(parsed(name)), f"{name} says nothing of itself"


def test_the_facade_has_at_most_twenty_names() -> None:
    """A user has to know these; everything else is in its package."""
    names = run(
        "import population, types\n"
        "print(*[n for n, v in vars(population).items() if not n.startswith('_')"
        " and not isinstance(v, types.ModuleType)])"
    ).split()
    assert 10 <= len(names) <= 20
    exported = {
        alias.asname
        for node in parsed("population").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(names) == exported


def test_the_signpost_names_the_same_objects() -> None:
    """`mutators` at the top re-exports them; there are no copies."""
    names = [name for name in vars(mutators) if not name.startswith("_")]
    for name in names:
        assert getattr(mutators, name) is getattr(rooms, name)
    classes = {kind.__name__ for kind in rooms.REGISTRY.values()}
    assert classes | {"REGISTRY"} <= set(names)
    for kind in rooms.REGISTRY.values():
        assert kind.__module__.startswith("population.mutators.")


def test_the_signpost_does_not_go_into_the_wheel() -> None:
    """A package with that name in site-packages would shadow the user's own."""
    assert "include = population*" in (ROOT / "setup.cfg").read_text()


def test_every_policy_is_in_the_registry() -> None:
    """The tests that use the registry leave no policy out."""
    registered = {kind.__module__ for kind in rooms.REGISTRY.values()}
    assert set(within("mutators")) - SHARED_BY_MUTATORS == registered


def test_no_two_classes_have_the_same_name() -> None:
    """A reader of a name, in the code or in an error, knows which class it is."""
    classes = collections.Counter(
        node.name
        for name in MODULES
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.ClassDef)
    )
    assert not {name for name, times in classes.items() if times > 1}


@pytest.mark.parametrize("name", MODULES)
def test_no_module_reaches_into_another(name: str) -> None:
    """What begins with an underscore is changed, and read, in its module alone."""
    tree = parsed(name)
    own_names = {
        getattr(node, part)
        for node in ast.walk(tree)
        for part in ("name", "id", "attr")
        if hasattr(node, part) and not isinstance(getattr(node, "ctx", None), ast.Load)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not PRIVATE.match(node.attr):
            continue
        if ast.unparse(node.value) not in {"self", "cls"}:  # Else it is inherited.
            reached = f"{name}:{node.lineno}: {ast.unparse(node)}"
            assert node.attr in own_names | NOT_OURS, reached


@pytest.mark.parametrize("name", MODULES)
def test_no_constructor_hands_on_what_it_is_making(name: str) -> None:
    """What is half built could be used by the parts that it is built of."""
    for kind in ast.walk(parsed(name)):
        if not isinstance(kind, ast.FunctionDef) or kind.name != "__init__":
            continue
        for call in ast.walk(kind):
            if isinstance(call, ast.Call) and ast.unparse(call.func) not in REGISTERS:
                given = [*call.args, *(keyword.value for keyword in call.keywords)]
                names = {node.id for node in given if isinstance(node, ast.Name)}
                assert "self" not in names, f"{name}:{call.lineno}"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_over_400_lines(name: str) -> None:
    """A reader can read a module in one go."""
    assert len(MODULES[name].read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", MODULES)
def test_no_function_is_over_60_lines(name: str) -> None:
    """A function does one thing; its docstring counts."""
    for node in ast.walk(parsed(name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{name}.{node.name} has {length} lines"


@pytest.mark.parametrize("name", sorted(set(within("mutators")) - SHARED_BY_MUTATORS))
def test_a_mutator_has_under_150_lines_of_code(name: str) -> None:
    """Without docstrings and blank lines, a policy fits on two screens."""
    source = MODULES[name].read_text()
    lines = {
        number
        for number, line in enumerate(source.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(parsed(name)):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node):
            text = node.body[0]
            assert text.end_lineno is not None
            lines -= set(range(text.lineno, text.end_lineno + 1))
    assert len(lines) < 150


@pytest.mark.parametrize("name", MODULES)
def test_errors_are_not_asserted_and_not_swallowed(name: str) -> None:
    """There is no `assert`, and a bare `except` only re-raises or isolates."""
    for node in ast.walk(parsed(name)):
        assert not isinstance(node, ast.Assert), f"{name}:{node.lineno} asserts"
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            where = f"{name}:{node.lineno} catches {caught or 'everything'}"
            # The kit turns what a mutator raises into a broken promise; what a user's
            # on_event or store raises beside the training is logged; what readers of
            # other packages raise at a file of params is a ParamsError; what the module
            # of `--mutator` raises is a line for the user.
            assert caught not in {"", "Exception"} or name in ISOLATES, where
