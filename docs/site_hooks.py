"""Makes pages of the site from the files outside of `docs`, and adapts links to them.

The pages are written for people who read them in a checkout: their links are to files.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Files outside of `docs`, and their pages.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples.md",
}
_OF = {page: file for file, page in PAGES.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^```(py|python)[ \w]*$", re.M)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from files outside of `docs`."""
    for file, page in PAGES.items():
        content = (ROOT / file).read_text()
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace links to files by links to their pages; of other files the text stays."""
    here = page.file.src_uri
    source = _OF.get(here, f"docs/{here}")

    def replaced(found: re.Match[str]) -> str:
        mark, text, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in PAGES:
            new = PAGES[path]
        elif path.startswith("docs/"):
            new = path.removeprefix("docs/")
        else:
            return str(text)
        back = posixpath.relpath(new, posixpath.dirname(here) or ".")
        return f"{mark}[{text}]({back}{anchor or ''})"

    return _FENCE.sub("```python", _LINK.sub(replaced, markdown))
