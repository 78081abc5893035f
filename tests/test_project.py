"""The project's own files: messages on a fresh machine, and the wheel."""

from __future__ import annotations

import configparser
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import population

ROOT = pathlib.Path(__file__).parent.parent


def make(tmp_path: pathlib.Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run `make check` on a machine without an environment, with this Python."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    clean = {
        k: v for k, v in os.environ.items() if k not in {"CI", "LANE", "MAKEFLAGS"}
    }
    return subprocess.run(
        ["make", "check", f"PYTHON={python}"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def script(path: pathlib.Path, body: str) -> str:
    """A replacement for a Python that lacks something."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMakefile:
    """It says what is missing before it does anything."""

    def test_without_python(self, tmp_path: pathlib.Path) -> None:
        """The message names the version that is needed and a way to get it."""
        done = make(tmp_path, str(tmp_path / "no-python"))
        assert done.returncode != 0
        assert "Python 3.11 or newer is needed" in done.stdout
        assert "PYTHON=python3.13" in done.stdout
        assert not (tmp_path / ".venv").exists()

    def test_with_an_old_python(self, tmp_path: pathlib.Path) -> None:
        """An old Python is named with its version."""
        old = script(
            tmp_path / "python3", 'case "$2" in *print*) echo 3.9;; *) exit 1;; esac'
        )
        done = make(tmp_path, old)
        assert done.returncode != 0
        assert "is 3.9." in done.stdout

    def test_without_venv(self, tmp_path: pathlib.Path) -> None:
        """A Debian without python3-venv is told which package to install."""
        body = (
            'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; *) exit 0;; esac'
        )
        done = make(tmp_path, script(tmp_path / "python3", body))
        assert done.returncode != 0
        assert "apt-get install python3.11-venv" in done.stdout


def test_only_the_library_is_shipped() -> None:
    """The wheel has no generic names: no `mutators`, `examples`, `tests`."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.packages.find"]["include"].strip() == "population*"
    assert setup["metadata"]["name"] == "population-jax"
    assert "tensorflow" not in setup["options"]["install_requires"]


def test_the_changelog_knows_the_version() -> None:
    """The version of the code has an entry."""
    assert f"## {population.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_the_tests_need_has_a_floor() -> None:
    """The oldest lane installs these; a package without one gets its newest version."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    needed = [setup["options"]["install_requires"]]
    needed += [extras[name] for name in ("examples", "cifar", "test", "dev")]
    for line in "\n".join(needed).split():
        assert re.fullmatch(r"[A-Za-z0-9_-]+>=[0-9.]+", line), line
