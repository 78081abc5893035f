"""Makes pages of the site from the files outside of `docs`, and adapts links to them.

The pages are written for people who read them in a checkout: their links are to files.
The site works from a web server, and opened as files: it asks no other computer.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
from typing import Any

from markdown.extensions.toc import slugify
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from pygments.formatters import HtmlFormatter

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Files outside of `docs`, and their pages.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples.md",
}
# The colours of code; `docs/theme/main.html` has the stylesheets.
STYLES = {"css/code-light.css": "default", "css/code-dark.css": "github-dark"}
_OF = {page: file for file, page in PAGES.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^```(py|python)[ \w]*$", re.M)
_CODE = re.compile(r"(^```.*?^```$)", re.M | re.S)


def on_config(config: Any) -> None:
    """Let no anchor begin with a digit: the theme's scripts use it as a selector."""

    def selectable(text: str, separator: str) -> str:
        name = str(slugify(text, separator))
        return f"v{name}" if name[:1].isdigit() else name

    config.mdx_configs["toc"]["slugify"] = selectable


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from files outside of `docs`, and the stylesheets."""
    for file, page in PAGES.items():
        content = (ROOT / file).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    for path, style in STYLES.items():
        rules = HtmlFormatter(style=style).get_style_defs(".highlight")
        files.append(File.generated(config, path, content=rules))
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

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(replaced, text) for text in parts[::2]]
    parts[1::2] = [_FENCE.sub("```python", code) for code in parts[1::2]]
    return "".join(parts)


def on_page_content(html: str, **_: Any) -> str:
    """Let a table that is wider than the screen scroll by itself."""
    html = html.replace("<table>", '<div class="table-responsive"><table>')
    return html.replace("</table>", "</table></div>")


@event_priority(-100)  # After the search has written its index.
def on_post_build(config: Any) -> None:
    """Write the index of the search as a script, for pages that are opened as files."""
    folder = pathlib.Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text(encoding="utf-8")
    script = f"window.searchIndex = {index};\n"
    (folder / "search_index.js").write_text(script, encoding="utf-8")
