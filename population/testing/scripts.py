"""The scripts that `check_mutator` plays; the same ones for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from population.testing.ranked import RankedReport
from population.testing.runner import MAX_FAILURES, ScriptEvent
from population.testing.script import (
    Again,
    AllReport,
    Earlier,
    Fails,
    GivenUp,
    LateValue,
    OldReport,
    Passes,
    Revives,
    ScriptedReport,
)

_BAD = (math.nan, math.inf, -math.inf, None)
Generator = np.random.Generator
Maker = Callable[[int, int, Generator], Iterator[ScriptEvent]]


def scripts(size: int, seed: int) -> list[tuple[ScriptEvent, ...]]:
    """Return a script of each kind for `size` workers.

    Each worker trains about 24 steps, in some kinds many of them at once.
    """
    count = max(10 * size, 30)
    makers: Sequence[Maker] = (
        _in_step,
        _in_batches,
        _in_any_order,
        _with_stragglers,
        _with_bad_values,
        _all_diverged,
        _with_gaps,
        _with_late_values,
        _with_repeats,
        _with_everything,
        _with_unsaved_divergence,
        _with_failures,
        _with_retired,
        _with_last_failing,
    )
    return [
        tuple(make(size, count, np.random.default_rng([seed, number])))
        for number, make in enumerate(makers)
    ]


def long_script(size: int, seed: int) -> tuple[ScriptEvent, ...]:
    """Return a script with many decisions."""
    rng = np.random.default_rng([seed, 100])
    return tuple(AllReport(3, _values(size, rng), saved=True) for _ in range(36))


def long_scripts(size: int, seed: int) -> list[tuple[ScriptEvent, ...]]:
    """Return that one, one of steady progress, and one with failures and NaN."""
    rng = np.random.default_rng([seed, 101])
    ranks = tuple(8.0 * (1 + w) for w in range(size))
    better = RankedReport(3, ranks, parting=True, per_step=1.0)
    failing: list[ScriptEvent] = []
    for number in range(24):
        values = list(_values(size, rng))
        if number % 3 == 2:
            values[(number // 3) % size] = math.nan
        failing += [AllReport(3, tuple(values), saved=True), Fails(number % size)]
    return [long_script(size, seed), (better,) * 36, tuple(failing)]


def scripts_with_gap(
    size: int, gap: int, seed: int
) -> Iterator[tuple[ScriptEvent, ...]]:
    """Yield scripts in which one worker is given up, or retired, at once.

    The others differ clearly.
    """
    rng = np.random.default_rng([seed, 200])
    others = [
        ScriptedReport(w, 2, round(10.0 * w + float(rng.normal()), 2), saved=True)
        for _ in range(15)
        for w in range(size)
        if w != gap
    ]
    yield (GivenUp(gap), *others)
    yield (*[Fails(gap)] * MAX_FAILURES, *others)


def one_round(steps: int) -> tuple[ScriptEvent, ...]:
    """Return a script in which all report once."""
    values = (3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0, 3.5, 8.0)
    return (AllReport(steps, tuple(value + 1 / 7 for value in values)),)


def many_rounds(seed: int) -> tuple[ScriptEvent, ...]:
    """Return a script in which late reports can be compared with early ones."""
    rng = np.random.default_rng([seed, 600])
    return tuple(AllReport(1, _values(10, rng), saved=True) for _ in range(32))


def _in_step(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for _ in range(count // size):
        yield AllReport(int(rng.integers(1, 4)), _values(size, rng), saved=True)


def _in_batches(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for _ in range(count // size):
        steps = int(rng.integers(1, 5))
        yield AllReport(steps, _values(size, rng), at_once=True)


def _in_any_order(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for _ in range(count):
        yield ScriptedReport(_worker(size, rng), int(rng.integers(1, 5)), _good(rng))


def _with_stragglers(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    """The last worker reports rarely, and worker 0 twice as often as the others."""
    for number in range(count // size):
        for worker_id in [0, *range(size - 1)]:
            yield ScriptedReport(worker_id, 2, _good(rng), saved=True)
        if number % 5 == 4 or size == 1:
            yield ScriptedReport(size - 1, 8, _good(rng), saved=True)


def _with_bad_values(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for _ in range(count):
        bad = _BAD[int(rng.integers(len(_BAD)))]
        value = bad if rng.random() < 0.5 else _good(rng)
        steps = int(rng.integers(1, 5))
        yield ScriptedReport(
            _worker(size, rng), steps, value, saved=bool(rng.random() < 0.7)
        )


def _with_unsaved_divergence(
    size: int, count: int, rng: Generator
) -> Iterator[ScriptEvent]:
    """Reports that are finite are saved, those that diverged are not."""
    for number in range(count):
        value = math.nan if rng.random() < 0.3 else _good(rng)
        yield ScriptedReport(number % size, 2, value, saved=math.isfinite(value))


def _with_failures(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    """Now and then one fails; it may be retired, and is sometimes revived."""
    for _ in range(count):
        draw, worker_id = rng.random(), _worker(size, rng)
        if draw < 0.2:
            yield from [Fails(worker_id)] * int(rng.integers(1, MAX_FAILURES + 1))
        elif draw < 0.3:
            yield Revives(worker_id)
        else:
            steps, value = int(rng.integers(1, 5)), _good(rng)
            saved = bool(rng.random() < 0.8)
            yield ScriptedReport(worker_id, steps, value, saved)


def _with_last_failing(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    """In each round the last one fails, once or twice, while all others are ahead."""
    for _ in range(max(3, count // size // 3)):
        last = _worker(size, rng)
        for worker_id in range(size):
            if worker_id != last:
                yield ScriptedReport(worker_id, 3, _good(rng), saved=True)
        yield from [Fails(last)] * int(rng.integers(1, MAX_FAILURES))
        yield ScriptedReport(last, 3, _good(rng), saved=True)


def _with_retired(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    """The last worker is soon retired, and revived when the others are far ahead."""
    for number in range(count):
        if number == size:
            yield from [Fails(size - 1)] * MAX_FAILURES
        if number == 2 * count // 3:
            yield Revives(size - 1)
        yield ScriptedReport(number % size, 2, _good(rng), saved=True)


def _all_diverged(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for number in range(count):
        value = _BAD[int(rng.integers(len(_BAD)))]
        yield ScriptedReport(number % size, int(rng.integers(1, 4)), value, saved=True)


def _with_gaps(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for _ in range(count):
        draw = rng.random()
        if draw < 0.1:
            yield GivenUp(_worker(size, rng))
        elif draw < 0.2:
            yield Passes(20.0)
        else:
            steps = int(rng.integers(1, 5))
            yield ScriptedReport(_worker(size, rng), steps, _good(rng), saved=True)


def _with_late_values(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for _ in range(count // 2):
        worker_id = _worker(size, rng)
        draw = rng.random()
        if draw < 0.2:
            yield Earlier(worker_id, _good(rng))
        elif draw < 0.4:
            yield LateValue(worker_id, _good(rng))
        else:
            yield ScriptedReport(worker_id, int(rng.integers(2, 5)), None, saved=True)
            if rng.random() < 0.7:
                yield LateValue(worker_id, _good(rng))


def _with_repeats(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for _ in range(count):
        draw, worker_id = rng.random(), _worker(size, rng)
        if draw < 0.15:
            yield Again(worker_id)
        elif draw < 0.3:
            value = -abs(10 * _good(rng))
            yield OldReport(worker_id, int(rng.integers(1, 9)), value)
        else:
            steps = int(rng.integers(1, 5))
            yield ScriptedReport(worker_id, steps, _good(rng), saved=True)


def _with_everything(size: int, count: int, rng: Generator) -> Iterator[ScriptEvent]:
    for _ in range(count):
        draw, worker_id, good = int(rng.integers(16)), _worker(size, rng), _good(rng)
        rare: dict[int, ScriptEvent] = {
            0: Again(worker_id),
            1: OldReport(worker_id, 3, math.nan),
            2: LateValue(worker_id, good),
            3: Earlier(worker_id, good),
            4: GivenUp(worker_id),
            14: Fails(worker_id),
            15: Revives(worker_id),
        }
        value = None if draw == 5 else math.nan if draw == 6 else good
        saved = bool(rng.random() < 0.5)
        yield rare.get(draw) or ScriptedReport(worker_id, 1 + draw % 4, value, saved)


def _worker(size: int, rng: Generator) -> int:
    return int(rng.integers(size))


def _good(rng: Generator) -> float:
    return round(float(rng.normal(0.0, 3.0)), 2)


def _values(size: int, rng: Generator) -> tuple[float, ...]:
    return tuple(_good(rng) for _ in range(size))
