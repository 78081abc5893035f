"""The site in a browser, opened as files: its colours, its search, and its widths."""

from __future__ import annotations

import contextlib
import functools
import http.server
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import needs_mkdocs

ROOT = pathlib.Path(__file__).parents[1]
# The least contrast of text that anyone can read, by WCAG 2.1 (AA).
LEGIBLE = 4.5
# For each text of the code on a page: its contrast with what is behind it.
CONTRASTS = """() => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const brightness = (color) => {
    const [r, g, b] = numbers(color).slice(0, 3).map((part) => part / 255)
      .map((p) => p <= 0.03928 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if ((numbers(color)[3] ?? 1) > 0.7) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  for (const code of document.querySelectorAll(".highlight code")) {
    const texts = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      if (!texts.currentNode.data.trim()) continue;
      const node = texts.currentNode.parentElement;
      const [ink, paper] = [getComputedStyle(node).color, behind(node)];
      const [one, other] = [brightness(ink) + 0.05, brightness(paper) + 0.05];
      found[`${ink} on ${paper}`] = Math.max(one / other, other / one);
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The site, built from the pages as they are now."""
    needs_mkdocs()
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


@contextlib.contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A tab with a page, in which no script fails."""
    context = browser.new_context(**options)
    tab = context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)
    yield tab
    context.close()
    assert errors == []


def background(tab: Any) -> str:
    """The colour of the page."""
    return str(tab.evaluate("() => getComputedStyle(document.body).backgroundColor"))


def contrast(tab: Any) -> dict[str, float]:
    """The contrast of each pair of colours of the code on a page."""
    found: dict[str, float] = tab.evaluate(CONTRASTS)
    assert found
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["recipes", "writing-a-mutator", "reference/run"])
def test_code_is_legible(
    browser: Any, site: pathlib.Path, page: str, scheme: str
) -> None:
    """In the colours that the reader's system asks for."""
    address = (site / f"{page}.html").as_uri()
    with opened(browser, address, color_scheme=scheme) as tab:
        assert (background(tab) == "rgb(255, 255, 255)") == (scheme == "light")
        for colors, found in contrast(tab).items():
            assert found >= LEGIBLE, colors


def test_the_reader_chooses_the_colours(browser: Any, site: pathlib.Path) -> None:
    """By the menu; the choice holds for the code, and on the next page."""
    light = "rgb(255, 255, 255)"
    address = (site / "recipes.html").as_uri()
    with opened(browser, address, color_scheme="light") as tab:
        tab.click("#theme-menu")
        tab.click("[data-bs-theme-value=dark]")
        assert background(tab) != light
        assert min(contrast(tab).values()) >= LEGIBLE
        tab.goto((site / "concepts.html").as_uri())
        assert background(tab) != light
        tab.click("#theme-menu")
        tab.click("[data-bs-theme-value=light]")
        assert background(tab) == light
        assert min(contrast(tab).values()) >= LEGIBLE


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """The address of a web server of this machine with the files of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def follow_result(tab: Any, place: str) -> None:
    """Go to the section that the search for a word has found."""
    links = tab.locator("#mkdocs-search-results h3 a")
    links.get_by_text("bfloat16", exact=True).first.click()
    tab.wait_for_url(f"{place}/recipes.html#bfloat16")


@pytest.mark.parametrize("page", ["index.html", "reference/run.html"])
def test_the_search_works_in_files(browser: Any, site: pathlib.Path, page: str) -> None:
    """What a reader types is found, though no server is there."""
    with opened(browser, f"{site.as_uri()}/{page}") as tab:
        tab.click("[data-bs-target='#mkdocs_search_modal']")
        tab.wait_for_selector("#mkdocs-search-query", state="visible")
        tab.locator("#mkdocs-search-query").press_sequentially("bfloat16")
        follow_result(tab, site.as_uri())


def test_the_search_works_from_a_server(browser: Any, site: pathlib.Path) -> None:
    """It is that of MkDocs, then."""
    with (
        served(site) as place,
        opened(browser, f"{place}/index.html?q=bfloat16") as tab,
    ):
        follow_result(tab, place)


@pytest.mark.parametrize("width", [1280, 400])
def test_no_page_is_wider_than_the_screen(
    browser: Any, site: pathlib.Path, width: int
) -> None:
    """A wide table, or a long line of code, scrolls by itself."""
    code = "() => document.documentElement.scrollWidth"
    viewport = {"width": width, "height": 800}
    wide = {}
    with opened(browser, "about:blank", viewport=viewport) as tab:
        for page in sorted(site.rglob("*.html")):
            if page.name != "404.html":
                tab.goto(page.as_uri())
                wide[page.name] = tab.evaluate(code)
    assert {page: n for page, n in wide.items() if n > width} == {}
