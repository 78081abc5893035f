"""What loops of the two calls do in a golden script, and processes around them."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

import population
from population import Keep, PopulationController
from tests.golden.policies import RAISES, WILD
from tests.golden.stage import HELD, Stage, newest

Report = tuple[Any, ...]


def value(stage: Stage) -> Any:
    """The value of a loop's report."""
    rng = stage.rng
    if rng.random() < 0.12:
        return None
    if rng.random() < 0.1:
        odd = [math.nan, math.inf, -math.inf, RAISES, 5, np.float32(2.5), "a text"]
        return rng.choice(odd)
    if rng.random() < 0.3:
        return rng.choice([1.0, 2.1, 0.5])  # Ties are common.
    return rng.randrange(-20, 100) / 10


def params(stage: Stage, step: int) -> Any:
    """The params of a loop's report."""
    rng = stage.rng
    if stage.saves == "never":
        return None
    if stage.kind == "claimed" and rng.random() < 0.6:
        return HELD
    if stage.saves == "often" and rng.random() < 0.4:
        return None
    if stage.arrays and rng.random() < 0.5:
        return {"w": np.full(2, step, np.float32)}
    return rng.choice(
        [f"p{len(stage.rows)}"] * 6
        + ["again", "again", {"at": step}, pathlib.PurePath("a") / "b", [step, 0.5]]
    )


def further(stage: Stage, place: PopulationController, worker_id: int) -> Report:
    """The next report of a slot."""
    step = newest(place)[worker_id].step + stage.rng.choice([1, 1, 1, 1, 2, 3])
    generation_id = place.workers[worker_id].generation_id
    said = params(stage, step), value(stage)
    return worker_id, generation_id, step, *said, _metrics(stage)


def furthest_behind(stage: Stage, place: PopulationController) -> int:
    """The slot with the fewest steps, or any."""
    if stage.rng.random() < 0.3:
        return stage.rng.randrange(stage.size)
    return min(range(stage.size), key=lambda w: (newest(place)[w].step, w))


def anything(stage: Stage, place: PopulationController) -> Report:
    """A report that is late, repeated, of an old generation, or of none at all."""
    rng = stage.rng
    generation_id, worker_id, step = rng.choice(stage.known)
    step = max(0, step + rng.choice([-1, 0, 0, 1, 1, 2, 3, 4, 6]))
    kind = rng.random()
    if kind < 0.12:
        worker_id = rng.randrange(stage.size)
    elif kind < 0.2:
        generation_id = rng.choice(["x-0-0", "", "x-1-7"])
    elif kind < 0.24:
        worker_id = rng.choice([-1, stage.size])
    elif kind < 0.4:
        worker_id = rng.randrange(stage.size)
        generation_id = place.workers[worker_id].generation_id
        step = max(0, newest(place)[worker_id].step + rng.choice([-2, -1, 0]))
    said = params(stage, step), value(stage)
    return worker_id, generation_id, step, *said, _metrics(stage)


def _metrics(stage: Stage) -> Any:
    if stage.rng.random() < 0.85:
        return None
    return {"n": len(stage.rows), "odd": stage.rng.choice([math.nan, 1.5, "text"])}


def note(stage: Stage, report: Report) -> Report:
    """Remember what a report lacks, so that it can come later."""
    worker_id, generation_id, step, params, value, _ = report
    if params is None or params is HELD or value is None:
        stage.open_reports.append((worker_id, generation_id, step))
    return report


def report_further(stage: Stage) -> None:
    """A loop reports a later step."""
    place = stage.place()
    report = note(stage, further(stage, place, furthest_behind(stage, place)))
    stage.call("set_eval", report, lambda: place.set_eval(*report))


def report_anything(stage: Stage) -> None:
    """A report that no loop would send."""
    place = stage.place()
    report = note(stage, anything(stage, place))
    stage.call("set_eval odd", report, lambda: place.set_eval(*report))


def report_late(stage: Stage) -> None:
    """The value or the params of an earlier report come."""
    if not stage.open_reports:
        return
    rng, place = stage.rng, stage.place()
    worker_id, generation_id, step = rng.choice(stage.open_reports)
    late = params(stage, step), value(stage)
    if late[0] is HELD:
        late = "late", late[1]
    which = rng.choice(["both", "params", "value", "value"])
    late = None if which == "value" else late[0], None if which == "params" else late[1]
    report = worker_id, generation_id, step, *late, _metrics(stage)
    stage.call("set_eval late", report, lambda: place.set_eval(*report))


def report_again(stage: Stage) -> None:
    """A report is repeated, also in another process."""
    rng, place = stage.rng, stage.place()
    report = note(stage, further(stage, place, rng.randrange(stage.size)))
    for _ in range(2):
        report_at = stage.place().set_eval
        stage.call("set_eval twice", report, functools.partial(report_at, *report))


def report_batch(stage: Stage) -> None:
    """Several reports in one transaction."""
    rng, place = stage.rng, stage.place()
    if rng.random() < 0.7:
        slots = [w for w in range(stage.size) if rng.random() < 0.8]
        batch = [note(stage, further(stage, place, w)) for w in slots]
    else:
        count = rng.randint(1, 4)
        batch = [note(stage, anything(stage, place)) for _ in range(count)]
    if rng.random() < 0.3:
        batch.reverse()
    stage.call("set_evals", batch, lambda: place.set_evals(batch))


def poll(stage: Stage) -> None:
    """A loop asks for news, with a generation of any age or with none."""
    rng, place = stage.rng, stage.place()
    worker_id = rng.randrange(stage.size)
    generation_id: str | None = place.workers[worker_id].generation_id
    step = newest(place)[worker_id].step
    kind = rng.random()
    if kind < 0.3:
        generation_id, step = rng.choice([None, "", "x-0-0"]), rng.choice([0, step])
    elif kind < 0.6:
        generation_id, old, step = rng.choice(stage.known)
        worker_id = old if rng.random() < 0.8 else worker_id
    elif kind < 0.7:
        step = max(0, step - rng.randint(0, 3))
    said = worker_id, generation_id, step
    stage.call(
        "poll", said, lambda: place.maybe_get_worker_data(*said, None, {"h": 0.0})
    )


def ask(stage: Stage) -> None:
    """A caller reads something of the run."""
    place = stage.place()
    best = place.best()
    questions: dict[str, Callable[[], Any]] = {
        "ask workers": lambda: place.workers,
        "ask finished": lambda: place.finished,
        "ask diverged": place.diverged,
        "ask reachable": place.reachable,
        "ask best": lambda: best,
        "ask lineage": lambda: best and [c.ref for c in place.lineage(best)],
        "ask schedule": lambda: best and dict(place.schedule(best)),
        "ask newest": lambda: [place.newest(w) for w in range(stage.size)],
    }
    name = stage.rng.choice(sorted(questions))
    stage.call(name, None, questions[name])


def claim_all(stage: Stage) -> None:
    """One loop takes all slots, if it can."""
    place = stage.place()
    found = stage.call("claim_all", None, place.claim_all)
    if found is not None:
        stage.holders = dict.fromkeys(range(stage.size), place)


def restart(stage: Stage) -> None:
    """One process or all of them end, and as many open the run again."""
    rng = stage.rng
    ending = [stage.place()] if rng.random() < 0.6 else list(stage.places)
    for place in ending:
        stage.close(place)
    for _ in ending:
        stage.places.append(stage.opened())
    stage.call("restart", len(ending), lambda: None)


def fork(stage: Stage) -> None:
    """The run, or its beginning, is forked; the script continues with the fork."""
    rng, place = stage.rng, stage.place()
    if stage.forked is not None:
        return
    row = max(newest(place)[w].row for w in range(stage.size))
    at = rng.choice([None, row, rng.randint(1, row), rng.randint(1, row), row + 99])
    source: Any = rng.choice([stage.run, place])
    target = stage.folder / "fork"
    options = {**stage.options, "keep": rng.choice([None, Keep(everything=True)])}
    made: list[PopulationController] = []

    def work() -> list[Any]:
        made.append(
            population.fork(source, target, mutator=WILD.make(), at=at, **options)
        )
        return made[0].workers

    stage.call("fork", at, work)
    if made:
        for old in list(stage.places):
            stage.close(old)
        stage.options, stage.forked = options, target
        stage.known, stage.open_reports = [], []
        stage.places = made
        if rng.random() < 0.4:
            stage.places.append(stage.opened())
