"""The report page without a browser: its data, its escaping, its size."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html.parser
import importlib.util
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import population
from population import PopulationController, Stop
from population.mutators import PopulationBasedTraining
from population.report import page
from population.report.page import data, lines, tree, values, writing
from population.space import Categorical, LogUniform, OneMinusLogUniform, Perturb
from tests.helpers import Scripted, missing, reporter
from tests.report.recorded_runs import made_up

HOSTILE = "<script>alert(1)</script>"
REASON = '<img src=x onerror=alert(1)><a href="javascript:alert(1)">&amp;'


class Blocks(html.parser.HTMLParser):
    """Collects the scripts, the policy and all attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.content = ""
        self.policy = ""
        self.title = ""
        self.addresses: list[str | None] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember the element."""
        known = dict(attrs)
        self._inside = tag
        self.addresses += [known[name] for name in ("src", "href") if name in known]
        if "http-equiv" in known:
            self.policy = known["content"] or ""
        if tag == "script":
            self._inside = "data" if "type" in known else "script"
            self.scripts += [""] if self._inside == "script" else []

    def handle_endtag(self, tag: str) -> None:
        """Leave it."""
        self._inside = ""

    def handle_data(self, content: str) -> None:
        """Add to the text of the element."""
        if self._inside == "script":
            self.scripts[-1] += content
        elif self._inside == "data":
            self.content += content
        elif self._inside == "title":
            self.title += content


def parsed(text: str) -> Blocks:
    """The parts of a page."""
    found = Blocks()
    found.feed(text)
    return found


@pytest.fixture
def packages() -> None:
    """The test needs those of the extra `report`."""
    for name in ("jinja2", "plotly"):
        if importlib.util.find_spec(name) is None:
            missing(name)


@pytest.mark.parametrize("count", [1, 4, 41, 1000])
@pytest.mark.parametrize("most", [4, 40, 399])
def test_thinning_keeps_the_ends_and_the_extremes(count: int, most: int) -> None:
    """At most so many entries remain, NaN between them or not."""
    chosen = np.random.default_rng(count)
    numbers = chosen.normal(size=count)
    numbers[chosen.random(count) < 0.3] = np.nan
    numbers[0] = 0.0
    kept = lines.thinned(numbers, most)
    assert len(kept) <= most
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert np.nanmin(numbers[kept]) == np.nanmin(numbers)
    assert np.nanmax(numbers[kept]) == np.nanmax(numbers)
    assert np.all(np.diff(kept) > 0)


def test_thinning_keeps_each_part_s_extremes() -> None:
    """So that a peak between two others does not disappear."""
    numbers = np.zeros(1000)
    numbers[[133, 555, 777]] = 3.0, -2.0, 1.0
    assert {133, 555, 777} <= set(lines.thinned(numbers, 40).tolist())


def test_thinning_bears_lines_without_any_value() -> None:
    """Of a member that never reported one, and of infinities."""
    assert len(lines.thinned(np.full(100, np.nan), 8)) <= 8
    assert len(lines.thinned(np.array([np.inf, -np.inf] * 50), 8)) <= 8


def test_thinning_keeps_what_it_is_told_to_keep() -> None:
    """Unless that is more than fits."""
    keep = np.zeros(1000, bool)
    keep[[17, 333]] = True
    assert {17, 333} <= set(lines.thinned(np.zeros(1000), 20, keep).tolist())
    assert len(lines.thinned(np.zeros(1000), 20, np.ones(1000, bool))) <= 20


def columns(rows: list[tuple[int, int, int, int, bool]]) -> dict[str, Any]:
    """Checkpoints: generation, worker, step, parent, and whether there is a value."""
    names = ("generation", "worker_id", "step", "parent")
    found: dict[str, Any] = {
        name: np.array([row[i] for row in rows]) for i, name in enumerate(names)
    }
    return found | {"has_value": np.array([row[4] for row in rows])}


# Worker 0 trains to step 2, worker 1 to step 1; then it copies worker 0 at step 2.
FORK = [
    (0, 0, 0, -1, False),
    (1, 1, 0, -1, False),
    (0, 0, 1, 0, True),
    (1, 1, 1, 1, True),
    (0, 0, 2, 2, True),
    (2, 1, 2, 4, False),
    (2, 1, 3, 5, True),
]


def test_the_line_of_a_branched_worker_begins_at_its_donor() -> None:
    """Its curve forks from the donor's; the copy is not a point of its own."""
    checkpoints = columns(FORK)
    assert np.flatnonzero(lines.copies(checkpoints)).tolist() == [5]
    sources = lines.originals(checkpoints)
    assert sources.tolist() == [0, 1, 2, 3, 4, 4, 6]
    line = lines.of_worker(np.array([1, 3, 6]), checkpoints, sources, True)
    assert line == [1, 3, lines.GAP, 4, 6]
    line = lines.of_worker(np.array([1, 3, 6]), checkpoints, sources, False)
    assert line == [1, 3, 6]


def test_a_lineage_has_every_checkpoint_once() -> None:
    """Oldest first, through the donor, without the copy."""
    checkpoints = columns(FORK)
    repeats = lines.copies(checkpoints).tolist()
    found = lines.lineage(6, checkpoints["parent"].tolist(), repeats)
    assert found.tolist() == [0, 2, 4, 6]


def a_tree(seed: int, size: int = 60) -> tuple[list[int], Any, Any]:
    """Parents, first and last steps of random generations."""
    choose = random.Random(seed)
    parents: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    for index in range(size):
        parent = choose.randrange(index) if index > 3 else -1
        begin = 0 if parent < 0 else choose.randint(begins[parent], ends[parent])
        parents.append(parent)
        begins.append(begin)
        ends.append(min(390, begin + choose.randint(0, 60)))
    return parents, np.array(begins), np.array(ends)


@pytest.mark.parametrize("seed", range(10))
def test_no_lines_of_the_tree_cross(seed: int) -> None:
    """Generations in one row do not overlap; no branch goes through another line."""
    parents, begins, ends = a_tree(seed)
    rows = tree.rows(parents, begins, ends, first=[0])
    spans = list(zip(rows, begins.tolist(), ends.tolist(), strict=True))
    for index, (row, begin, end) in enumerate(spans):
        for other, low, high in spans[:index]:
            # One may continue where the other ends.
            assert other != row or begin >= high or low >= end
        parent = parents[index]
        if parent < 0:
            continue
        top = rows[parent]
        assert top <= row
        crossed = [s for s in spans if top < s[0] < row and s[1] < begin < s[2]]
        assert not crossed


def test_the_winner_s_line_is_straight() -> None:
    """Its generations share the first row, though others live longer."""
    parents = [-1, -1, 0, 0, 2]
    begins, ends = np.array([0, 0, 10, 10, 20]), np.array([10, 10, 20, 90, 30])
    assert tree.rows(parents, begins, ends, first=[0, 2, 4])[::2] == [0, 0, 0]


@pytest.mark.parametrize("most", [1, 7, 30, 200])
def test_chosen_generations_have_their_ancestors(most: int) -> None:
    """The lineages that were asked for come first; then some of all times."""
    parents, _, _ = a_tree(3, 100)
    found = tree.chosen(parents, [50], most)
    assert len(found) <= most
    assert found == sorted(set(found))
    assert all(parents[one] in {-1, *found} for one in found)
    assert most < 30 or 50 in found


def test_numbers_are_short_and_never_nan() -> None:
    """JSON has neither NaN nor infinities."""
    assert values.numbers([1.0, 0.1234567891, math.nan, math.inf, None]) == [
        1,
        0.1234568,
        None,
        None,
        None,
    ]


def test_texts_of_a_hyperparameter_are_levels() -> None:
    """Each different text is an index; more than an axis can show are one."""
    found = values.column("name", np.array(["b", None, "a", "b"], object))
    assert (found["levels"], found["values"]) == (["b", "a"], [0, None, 1, 0])
    many = values.column("name", np.array([f"{i}" for i in range(999)], object))
    assert len(many["levels"]) <= 61


def test_a_choice_of_none_is_shown() -> None:
    """Where the space has no None, it is a value that is missing."""
    space = {"act": Categorical(["relu", None]), "lr": LogUniform(1e-3, 1.0)}
    start = [{"act": None, "lr": 0.1}, {"act": "relu", "lr": 0.1}]
    cases: list[tuple[Any, Any]] = [(space, [0, 1]), (None, [None, 0])]
    for given, shown in cases:
        run = PopulationController(start, Scripted(), space=given)
        act = data.of(run.history())["hyperparameters"][0]
        assert (act["name"], act["values"]) == ("act", shown)
        run.close()


def test_a_log_scale_needs_positive_values_over_a_decade() -> None:
    """The space of the run knows better, where there is one."""
    rates = np.array([1e-4, 1e-2, np.nan])
    assert values.column("lr", rates)["scale"] == "log"
    assert values.column("lr", rates, "linear")["scale"] == "linear"
    assert values.column("lr", np.array([0.0, 1e-2]))["scale"] == "linear"


def test_the_data_are_those_of_the_run() -> None:
    """What can be drawn is drawn: every checkpoint that is no copy."""
    run = made_up(4, 60)
    found = data.of(run)
    checkpoints = run.checkpoints()
    whole = np.flatnonzero(~lines.copies(checkpoints))
    assert found["points"]["step"] == checkpoints["step"][whole].tolist()
    assert found["points"]["value"] == values.numbers(checkpoints["value"][whole])
    best = run.best()
    assert best is not None
    assert found["points"]["value"][found["best"]] == values.number(best.value)
    assert found["lineages"][0]["points"][-1] == found["best"]
    assert found["generations"]["parent"][:4] == [-1] * 4
    names = [column["name"] for column in found["hyperparameters"]]
    assert names == ["learning_rate", "momentum", "optimizer/name"]
    pairs = dict(found["overview"])
    assert pairs["Mutator"] == "PopulationBasedTraining"
    assert "share=0.2" in pairs["Its settings"]
    assert pairs["Stop"] == "steps=1000"
    assert found["notes"]["points"] == len(whole)


def trained(folder: pathlib.Path) -> PopulationController:
    """A run of four slots that has trained to step 24, the third of them failing."""
    space = {
        "lr": LogUniform(1e-4, 1.0),
        "net": {"decay": OneMinusLogUniform(1e-4, 0.1)},
    }
    controller = PopulationController.from_space(
        space,
        4,
        PopulationBasedTraining(Perturb(space), 4, synchronous=True),
        log_dir=folder,
        mode="max",
        max_failures=1,
        stop=Stop(steps=24),
    )
    controller.fail(2, "out of memory")
    for step in range(1, 25):
        for slot in (0, 1, 3):
            lr = controller.workers[slot].meta_params["lr"]
            reporter(controller, slot)(step * lr)
    return controller


def test_the_schedule_of_the_winner_is_the_run_s(tmp_path: pathlib.Path) -> None:
    """Each checkpoint has the hyperparameters that trained it; scales are recorded."""
    with contextlib.closing(trained(tmp_path)) as controller:
        best = controller.best()
        assert best is not None
        schedule = controller.schedule(best)
    run = population.read(tmp_path)
    found = data.of(run)
    assert [column["scale"] for column in found["hyperparameters"]] == [
        "log",
        "near one",
    ]
    names = [column["name"] for column in found["hyperparameters"]]
    assert names == ["lr", "net/decay"]
    points = found["points"]
    winner = [one for one in found["lineages"][0]["points"] if points["step"][one] > 0]
    assert points["value"][winner[-1]] == values.number(best.value)
    assert [points["step"][one] for one in winner] == list(range(1, best.step + 1))
    for one in winner:
        used = schedule.at(points["step"][one] - 1)
        place = points["generation"][one]
        shown = [column["values"][place] for column in found["hyperparameters"]]
        assert shown == values.numbers([used["lr"], used["net"]["decay"]])
    pairs = dict(found["overview"])
    assert pairs["Mode"] == "max: greater is better"
    assert pairs["Mutator"] == "PopulationBasedTraining"
    assert "space={'lr': LogUniform(low=0.0001" in pairs["Its settings"]
    assert pairs["Status"].startswith("ended")
    assert "out of memory" in json.dumps([found["members"], found["warnings"]])


def test_a_run_may_grow_while_it_is_read() -> None:
    """Newer generations, whose checkpoints were not read, are left out."""
    run: Any = made_up(4, 60)
    branches = {name: np.append(v, v[-1:]) for name, v in run.branches().items()}
    branches["parent"][-1] = 10**6
    expected = data.of(run)
    run.branches = lambda: branches
    assert data.of(run) == expected


def test_a_run_without_values_has_a_page_too() -> None:
    """It has no winner; hyperparameters and members are shown."""
    found = data.of(made_up(3, 3))
    assert found["best"] is None
    assert len(found["points"]["step"]) == 3
    json.dumps(found, allow_nan=False)


def test_a_diverged_member_is_marked() -> None:
    """Its value is nowhere, and the member says so."""
    found = data.of(made_up(3, 40, diverges=True))
    (place,) = found["points"]["diverged"]
    assert found["points"]["value"][place] is None
    status = next(c for c in found["members"] if c["name"] == "status")
    assert status["levels"][status["values"][2]] == "diverged"


def test_the_versions_are_the_recorded_ones() -> None:
    """If the run has recorded none, they are said to be this process's."""
    run: Any = made_up(1, 3)
    assert data.of(run)["environment"]["recorded"] is False
    run.environment = {"jax": "9.9"}
    assert data.of(run)["environment"] == {"recorded": True, "pairs": [["jax", "9.9"]]}


def test_embedded_json_cannot_leave_its_script() -> None:
    """It is ASCII without what HTML reads, and still the same data."""
    content = {HOSTILE: "<!-- & \u2028\u2029 \ud800 </script>"}
    text = writing.embedded(content)
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == content
    with pytest.raises(ValueError, match="JSON"):
        writing.embedded(math.nan)


@pytest.mark.usefixtures("packages")
def test_texts_of_the_run_are_only_in_the_json() -> None:
    """And the title is escaped; nothing is loaded from elsewhere."""
    names = (HOSTILE, "momentum", "z")
    found = page.render(made_up(3, 40, names, [REASON]), title=HOSTILE)
    blocks = parsed(found)
    assert blocks.title == HOSTILE
    assert "alert(1)" not in "".join(blocks.scripts)
    assert HOSTILE not in found
    assert REASON not in found
    assert blocks.addresses == ["data:,"]
    content = json.loads(blocks.content)
    assert content["hyperparameters"][0]["name"] == HOSTILE
    assert REASON in content["texts"]


@pytest.mark.usefixtures("packages")
def test_the_policy_allows_these_scripts_and_no_request() -> None:
    """Each script by its hash; plotly.js is the first one."""
    blocks = parsed(page.render(made_up(1, 4)))
    assert len(blocks.scripts) == 4
    assert "plotly.js" in blocks.scripts[0][:200]
    for script in blocks.scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in blocks.policy
    assert blocks.policy.startswith("default-src 'none'; ")
    for word in ("http", "unsafe-eval", "*", "self"):
        assert word not in blocks.policy.replace("sha256-", "")[:30]


@pytest.mark.usefixtures("packages")
def test_the_file_is_written_as_a_whole(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is there is replaced; nothing else stays in the folder."""
    run = made_up(2, 10)
    place = tmp_path / "new" / "report.html"
    assert page.write(run, place, title="first") == place
    assert page.write(run, str(place), title="second") == place
    assert parsed(place.read_text()).title == "second"
    assert list(place.parent.iterdir()) == [place]

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        page.write(run, place, title="third")
    assert list(place.parent.iterdir()) == [place]
    assert parsed(place.read_text()).title == "second"


def test_a_folder_is_no_file(tmp_path: pathlib.Path) -> None:
    """The error says what to pass."""
    with pytest.raises(ValueError, match=r"Pass for example 'report\.html'"):
        page.write(made_up(1, 3), tmp_path)


@pytest.mark.parametrize("name", ["jinja2", "plotly"])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda asked, *rest: None if asked == name else find(asked, *rest),
    )
    monkeypatch.setitem(sys.modules, name, None)
    if name == "plotly" and find("jinja2") is None:
        missing("jinja2")
    with pytest.raises(ImportError, match=rf"{name}.*population-jax\[report\]"):
        page.render(made_up(1, 3))


def test_nothing_is_imported_before_it_is_needed() -> None:
    """Neither the library nor this package loads jinja2 or plotly."""
    code = (
        "import population, sys; assert 'population.report' not in sys.modules; "
        "import population.report.page; "
        "assert not {'jinja2', 'plotly'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("members", [36, 1000])
def test_100_000_checkpoints_are_a_file_of_under_10_mb(members: int) -> None:
    """It is made in under 10 s, and says how many of how many it shows."""
    run = made_up(members, 107_000)
    began = time.process_time()
    found = page.render(run)
    assert time.process_time() - began < 10
    assert len(found.encode()) < 10e6
    notes = json.loads(parsed(found).content)["notes"]
    assert notes["checkpoints"] >= 100_000
    assert (
        notes["points"] <= data.POINTS + data.BEST_POINTS * 2 + data.LINEAGE_POINTS * 2
    )
    assert notes["listed"] <= data.LISTED + data.TREE
    assert notes["tree"] <= data.TREE
