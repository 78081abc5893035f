"""Writes the page: a template, its style, its scripts and the data in one file."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from population.base.whole_files import write_whole
from population.report.page import data

if TYPE_CHECKING:
    from population.reader.recorded_run import RecordedRun

_HERE = pathlib.Path(__file__).parent
_SCRIPTS = ("page.js", "charts.js", "tables.js")  # In the order in which they run.
# Within a script, these could end it or begin a comment.
_HARMLESS = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def write(
    run: RecordedRun, path: str | os.PathLike[str], *, title: str | None = None
) -> pathlib.Path:
    """Write a run as one HTML file of 5 to 10 MB, which opens without a network.

    The file is complete or is not there: it is written beside `path`, then renamed.

    Args:
        run: The run, as `population.read` returns it.
        path: The file; one that exists is replaced. Its folder is made if needed.
        title: The title of the page; by default the name of the run's folder.

    Returns:
        The absolute path of the file.

    Raises:
        ValueError: `path` is a folder.
        ImportError: jinja2 or plotly is not installed.
    """
    place = pathlib.Path(path).absolute()
    if place.is_dir():
        raise ValueError(
            f"path must be a file to write, got the folder {str(place)!r}. Pass for "
            "example 'report.html'."
        )
    page = render(run, title=title).encode("utf-8", "replace")
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, page)
    return place


def render(run: RecordedRun, *, title: str | None = None) -> str:
    """Return the page of a run as HTML.

    All texts of the run are in one block of JSON; the page shows them as text only,
    and its policy forbids other scripts and every request.

    Args:
        run: The run, as `population.read` returns it.
        title: The title of the page; by default the name of the run's folder.

    Raises:
        ImportError: jinja2 or plotly is not installed.
    """
    jinja2 = _jinja2()
    scripts = [_plotly(), *(_text(name) for name in _SCRIPTS)]
    name = "population" if run.log_dir is None else run.log_dir.name
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined
    ).from_string(_text("page.html"))
    return str(
        template.render(
            title=title or f"Run {name}",
            policy=_policy(scripts),
            style=_text("page.css"),
            data=embedded(data.of(run)),
            scripts=scripts,
        )
    )


def embedded(content: Any) -> str:
    """Return JSON that is safe within a script element: ASCII, no `<`, `>`, `&`.

    Raises:
        ValueError: It holds NaN or an infinity, which JSON has not.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.translate(_HARMLESS)


def _text(name: str) -> str:
    """Return a file of this folder."""
    return (_HERE / name).read_text(encoding="utf-8")


def _policy(scripts: Iterable[str]) -> str:
    """Return a policy that allows these scripts alone, and no request at all."""
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _jinja2() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise _needed("jinja2") from error
    return jinja2


def _plotly() -> str:
    """Return plotly.js as the package of plotly has it, without importing that."""
    found = importlib.util.find_spec("plotly")
    folders = found.submodule_search_locations if found is not None else None
    for folder in folders or ():
        file = pathlib.Path(folder, "package_data", "plotly.min.js")
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise _needed("plotly")


def _needed(package: str) -> ImportError:
    return ImportError(
        f"A report needs the package {package}, which is not installed. Run "
        "pip install 'population-jax[report]'."
    )
