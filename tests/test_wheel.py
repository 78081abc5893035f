"""The wheel that `pip install` gets, in its own environment."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import venv
import zipfile

import pytest

import population
from tests.helpers import missing

ROOT = pathlib.Path(__file__).parent.parent
SHIPPED = ("LICENSE", "Makefile", "README.md", "pyproject.toml", "setup.cfg")
UNREACHED = ("NewConnectionError", "ConnectTimeout", "Could not find a version")

# Runs where the source tree is not visible, with every warning an error.
PUBLIC = sorted({*vars(population), *population._LOADED_WHEN_USED})
LOOK = """
import importlib, importlib.metadata, importlib.resources, pkgutil, sys
import population

assert population.__file__.startswith(sys.prefix), population.__file__
found = importlib.metadata.distribution("population-jax")
assert found.version == population.__version__, found.version
assert importlib.resources.files(population).joinpath("py.typed").is_file()
for module in pkgutil.walk_packages(population.__path__, "population."):
    importlib.import_module(module.name)
for name in PUBLIC:
    getattr(population, name)
for name in ("benchmarks", "examples", "mutators", "tests"):
    assert importlib.util.find_spec(name) is None, name
print("imported", population.__version__)
"""


def run(*command: str | pathlib.Path, cwd: pathlib.Path) -> str:
    """Its output; skip, or in CI fail, if it found no package registry."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode and any(word in done.stderr for word in UNREACHED):
        missing("a package registry that pip can reach")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A wheel of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip")
    # In a copy, as the build leaves files in the tree.
    source = folder / "source"
    source.mkdir()
    for name in (*SHIPPED, "benchmarks", "examples", "mutators", "population", "tests"):
        run("cp", "-r", ROOT / name, source, cwd=folder)
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_the_library_and_nothing_else(wheel: pathlib.Path) -> None:
    """Every module of it, `py.typed`, the license, and no generic names."""
    assert wheel.name.startswith(f"population_jax-{population.__version__}-py3-none-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    described = f"population_jax-{population.__version__}.dist-info/"
    inside = {name for name in names if not name.startswith(described)}
    kinds = {".py", ".typed", ".css", ".html", ".js"}
    files = [f for f in (ROOT / "population").rglob("*.*") if f.suffix in kinds]
    assert inside == {file.relative_to(ROOT).as_posix() for file in files}
    assert f"{described}licenses/LICENSE" in names


def test_the_wheel_imports_in_an_empty_environment(
    wheel: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """It imports with only its requirements, in the versions of this environment."""
    frozen = run(sys.executable, "-m", "pip", "freeze", "--exclude-editable", cwd=ROOT)
    (tmp_path / "versions.txt").write_text(frozen)
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--constraint", "versions.txt")
    run(*pip, f"population-jax[report] @ {wheel.as_uri()}", cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    code = f"PUBLIC = {PUBLIC}\n{LOOK}"
    look = (python, "-I", "-W", "error", "-c", code)
    assert run(*look, cwd=tmp_path) == f"imported {population.__version__}\n"
