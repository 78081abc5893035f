"""The report page in a browser: it draws, answers, runs nothing else, asks nobody."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from population.report import page as report
from tests.report.recorded_runs import NAMES, made_up

HOSTILE = "<script>alert(1)</script>"
REASON = '<img src=x onerror=alert(1)><a href="javascript:alert(1)">copied</a>'
BUTTONS = {
    *("download plot as a png", "zoom", "pan"),
    *("zoom in", "zoom out", "reset axes"),
}
# Where the pointer has to be for a checkpoint of a trace.
PLACE = """async ([id, trace, at]) => {
  const chart = document.getElementById(id);
  chart.scrollIntoView({block: "center"});
  for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);  // Scrolled.
  const found = chart._fullData[trace];
  const named = (name) => chart._fullLayout[`${name[0]}axis${name.slice(1)}`];
  const axes = [named(found.xaxis), named(found.yaxis)];
  const box = chart.getBoundingClientRect();
  return [
    box.left + axes[0]._offset + axes[0].d2p(found.x[at]),
    box.top + axes[1]._offset + axes[1].d2p(found.y[at]),
  ];
}"""

# Remembers the next time that the curves are drawn.
DRAWN = """() => {
  const chart = document.getElementById("curves");
  window.drawn = new Promise((done) => chart.once("plotly_afterplot", done));
}"""
CHART = "document.getElementById('curves')"


class Opened:
    """A page of a run, with all that the browser says of it.

    Attributes:
        tab: The tab.
        said: Messages of the console, errors, and dialogs.
        asked: The addresses of all requests.
    """

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.said: list[str] = []
        self.asked: list[str] = []

    def listen(self) -> None:
        """Remember from now on what the page says and asks for."""
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", self._refuse)
        self.tab.on("request", lambda request: self.asked.append(request.url))

    def _refuse(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def hover(self, chart: str, trace: int, at: int) -> str:
        """What the card says with the pointer over a point."""
        x, y = self.tab.evaluate(PLACE, [chart, trace, at])
        self.tab.mouse.move(x - 1, y - 1)
        self.tab.mouse.move(x, y)
        self.tab.wait_for_selector("#card:not([hidden])")
        return str(self.tab.inner_text("#card"))

    def choose(self, name: str, label: str) -> None:
        """Choose an option, and wait until it is drawn."""
        self.tab.evaluate(DRAWN)
        self.tab.select_option(f"#{name}", label=label)
        self.tab.evaluate("() => window.drawn")

    def lines(self, chart: str = "curves") -> list[int]:
        """The number of points of each trace."""
        code = "(id) => document.getElementById(id).data.map((trace) => trace.x.length)"
        return list(self.tab.evaluate(code, chart))


class BusyTime:
    """Processor time of the page's thread since now, whatever else the machine does."""

    def __init__(self, tab: Any) -> None:
        self._session = tab.context.new_cdp_session(tab)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._began = self._spent()

    def _spent(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

    def seconds(self) -> float:
        """How much it was."""
        return self._spent() - self._began


@contextlib.contextmanager
def opened(
    browser: Any, run: Any, folder: pathlib.Path, **options: Any
) -> Iterator[Opened]:
    """The page of a run, drawn; at its end it has said nothing and asked nobody."""
    place = report.write(run, folder / "report.html")
    context = browser.new_context(**options)
    context.set_default_timeout(120_000)
    found = Opened(context.new_page())
    found.listen()
    found.tab.goto(place.as_uri())
    found.tab.wait_for_selector("body[data-ready=yes]")
    yield found
    titles = found.tab.locator(".modebar-btn").evaluate_all(
        "(buttons) => buttons.map((one) => one.dataset.title.toLowerCase())"
    )
    assert set(titles) <= BUTTONS  # None of them sends the data elsewhere.
    assert found.said == []
    beyond = [url for url in found.asked if not url.startswith(("data:", "blob:"))]
    assert beyond == [place.as_uri()]
    context.close()


def test_hovering_shows_the_checkpoint(browser: Any, tmp_path: pathlib.Path) -> None:
    """Its worker, generation, step, value, hyperparameters, and why it was branched."""
    run = made_up(4, 120)
    with opened(browser, run, tmp_path) as page:
        page.choose("lineage", "none")
        page.choose("worker", "worker 0")
        last = page.lines()[0] - 1
        card = page.hover("curves", 0, last - 1)
        for word in ("worker", "1f2e3d4c-0-", "step", "value", *NAMES, "opened by"):
            assert word in card, card
        trace = page.tab.evaluate(f"() => {CHART}.data[0].y")
        assert f"{trace[last - 1]:.5g}"[:4] in card
        assert "learning_rate" in page.hover("winner", 0, 3)
        code = "() => document.getElementById('tree').data.map((one) => one.customdata)"
        hovered = [i for i, ids in enumerate(page.tab.evaluate(code)) if ids]
        assert "steps" in page.hover("tree", hovered[0], 0)


def test_curves_are_filtered(browser: Any, tmp_path: pathlib.Path) -> None:
    """By worker and by lineage; another hyperparameter is drawn below."""
    with opened(browser, made_up(4, 120), tmp_path) as page:
        whole = page.lines()
        assert len(whole) == 2 * 5 + 1  # Four workers and the best, above and below.
        page.choose("worker", "worker 2")
        assert page.lines() == [*whole[4:6], *whole[8:10], 0]
        page.choose("worker", "all")
        page.choose("lineage", "none")
        assert len(page.lines()) == 2 * 4 + 1
        page.choose("lineage", "worker 3, now")
        page.tab.check("#only-lineage")
        page.tab.wait_for_function(f"() => {CHART}.data.length === 3")
        page.choose("shown-hyperparameter", "optimizer/name")
        ticks = f"() => {CHART}.layout.yaxis2.ticktext"
        assert set(page.tab.evaluate(ticks)) == {"adam", "sgd"}


def test_zooming_keeps_its_part_when_the_filter_changes(
    browser: Any, tmp_path: pathlib.Path
) -> None:
    """Dragging over a part enlarges it."""
    part = f"() => {CHART}._fullLayout.xaxis.range"
    with opened(browser, made_up(4, 120), tmp_path) as page:
        before = page.tab.evaluate(part)
        x, y = page.tab.evaluate(PLACE, ["curves", 0, 2])
        page.tab.mouse.move(x, y)
        page.tab.mouse.down()
        page.tab.mouse.move(x + 200, y + 4, steps=4)
        page.tab.mouse.up()
        page.tab.wait_for_function(
            f"(end) => {CHART}._fullLayout.xaxis.range[1] < end",
            arg=before[1],
        )
        after = page.tab.evaluate(part)
        page.choose("worker", "worker 1")
        assert page.tab.evaluate(part) == after


def test_tables_are_sorted_and_filtered(browser: Any, tmp_path: pathlib.Path) -> None:
    """By a click on a heading; by words that a row has."""
    run = made_up(4, 120, reasons=("copied worker 9", "lost"))
    with opened(browser, run, tmp_path) as page:
        rows = "#branches tbody tr"
        whole = page.tab.locator(rows).count()
        assert whole == len(run.branches()["row"])
        page.tab.fill("#branches input", "COPIED branch")
        found = page.tab.locator(rows).all_inner_texts()
        assert 0 < len(found) < whole
        assert all("copied worker 9" in row for row in found)
        page.tab.click("#members th button:text-is('best value')")
        cells = page.tab.locator("#members tbody tr td:nth-child(5)").all_inner_texts()
        assert [float(cell) for cell in cells] == sorted(map(float, cells))


def test_texts_of_the_run_stay_texts(browser: Any, tmp_path: pathlib.Path) -> None:
    """A hyperparameter called `<script>` is shown so; nothing of it runs or links."""
    run: Any = made_up(3, 60, (HOSTILE, "<b>bold</b>", "c"), (REASON,))
    run.warnings = (REASON,)
    with opened(browser, run, tmp_path) as page:
        last = page.lines()[0] - 1
        card = page.hover("curves", 0, last)
        assert HOSTILE in card
        shown = page.tab.inner_text("body")
        assert REASON in shown
        assert "<b>bold</b>" in shown
        titles = page.tab.locator("#curves .y2title, #winner .annotation-text")
        assert HOSTILE in " ".join(titles.all_text_contents())
        assert (
            page.tab.locator("main [href], main img, main b, #card [href]").count() == 0
        )
        page.choose("shown-hyperparameter", "<b>bold</b>")
        assert "<b>bold</b>" in page.tab.locator("#curves .y2title").text_content()


def test_scripts_that_are_not_of_the_page_do_not_run(
    browser: Any, tmp_path: pathlib.Path
) -> None:
    """Even if a text became an element, the policy would stop it, and every request."""
    place = report.write(made_up(1, 4), tmp_path / "report.html")
    tab = browser.new_page()
    tab.goto(place.as_uri())
    tab.evaluate("""() => {
      window.blocked = [];
      document.addEventListener("securitypolicyviolation",
        (event) => window.blocked.push(event.effectiveDirective));
      document.body.insertAdjacentHTML("beforeend", '<img src="x.png">');
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
      fetch("other.json").catch(() => {});
    }""")
    tab.wait_for_function("() => window.blocked.length >= 3")
    found = set(tab.evaluate("() => window.blocked"))
    assert {"script-src-elem", "img-src", "connect-src"} <= found
    assert tab.evaluate("() => window.ran") is None
    tab.close()


def test_a_run_without_values_is_shown(browser: Any, tmp_path: pathlib.Path) -> None:
    """Without the sections that need a winner."""
    with opened(browser, made_up(2, 2), tmp_path) as page:
        assert not page.tab.is_visible("#winner-section")
        assert page.tab.is_visible("#members table")


def test_the_page_fits_a_phone(browser: Any, tmp_path: pathlib.Path) -> None:
    """Nothing is wider than the screen, in both colours; a tap shows the checkpoint."""
    phone = {"width": 390, "height": 844}
    options = {"viewport": phone, "has_touch": True, "color_scheme": "light"}
    wide = "() => document.documentElement.scrollWidth"
    ink = f"() => {CHART}._fullLayout.font.color"
    with opened(browser, made_up(36, 2000), tmp_path, **options) as page:
        assert page.tab.evaluate(wide) <= phone["width"]
        assert page.tab.evaluate(ink) == "#1b1f24"
        page.tab.evaluate(DRAWN)
        page.tab.emulate_media(color_scheme="dark")
        page.tab.evaluate("() => window.drawn")
        assert page.tab.evaluate(ink) == "#e8ecf0"
        assert page.tab.evaluate(wide) <= phone["width"]
        x, y = page.tab.evaluate(PLACE, ["winner", 0, 5])
        page.tab.touchscreen.tap(x, y)
        page.tab.wait_for_selector("#card:not([hidden])")


def test_100_000_checkpoints_stay_responsive(
    browser: Any, tmp_path: pathlib.Path
) -> None:
    """The page says that it is thinned out; two filters and a hover answer soon."""
    with opened(browser, made_up(36, 107_000), tmp_path) as page:
        assert re.search(
            r"of 10\d,\d{3} checkpoints", page.tab.inner_text("#curves-note")
        )
        assert max(page.lines()) < 20_000
        busy = BusyTime(page.tab)
        page.choose("worker", "worker 7")
        page.choose("worker", "all")
        page.hover("curves", 0, 50)
        assert busy.seconds() < 5  # About 1 s here.
