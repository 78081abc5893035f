"""A tree without crossings, and labels that do not overlap."""

from __future__ import annotations

import itertools

import hypothesis
import numpy as np
from hypothesis import strategies as st

from population.report.pictures import layout
from population.report.pictures.lineages import Spans


@st.composite
def forests(draw: st.DrawFn) -> Spans:
    """Spans of a few steps, each from a random place on an earlier one."""
    parent, begin, end = list[int](), list[int](), list[int]()
    for place in range(draw(st.integers(1, 25))):
        above = draw(st.integers(-1, place - 1))
        start = 0 if above < 0 else draw(st.integers(begin[above], end[above]))
        parent.append(above)
        begin.append(start)
        end.append(start + draw(st.integers(1, 10)))
    size, none = np.arange(len(parent)), np.zeros(len(parent), bool)
    first, last, origin = (np.array(column) for column in (begin, end, parent))
    return Spans(size, size % 4, first, last, origin, none, none)


@hypothesis.given(forests(), st.integers(0, 2**30))
def test_no_span_hides_another_and_no_fork_crosses_one(found: Spans, seed: int) -> None:
    """Two spans in a row are apart, or one continues the other at its end."""
    favoured = np.random.default_rng(seed).random(len(found.begin)) < 0.3
    rows = layout.rows_of(found, favoured, ~favoured).tolist()
    spans = list(zip(rows, found.begin.tolist(), found.end.tolist(), strict=True))
    for place, (row, begin, end) in enumerate(spans):
        for other in range(place):
            other_row, other_begin, other_end = spans[other]
            if row == other_row:
                assert begin >= other_end or end <= other_begin
        above = int(found.parent[place])
        if above >= 0:
            assert row >= rows[above]
            for between, first, last in spans:
                if rows[above] < between < row:
                    assert not first < begin < last


def test_the_favoured_one_goes_straight_on() -> None:
    """Of those that begin at the end of a span one has its row; the rest lie below."""
    none = np.zeros(3, bool)
    found = Spans(
        np.arange(3),
        np.array([0, 0, 1]),
        np.array([0, 5, 5]),
        np.array([5, 9, 9]),
        np.array([-1, 0, 0]),
        none,
        none,
    )
    assert layout.rows_of(found, none, none).tolist() == [0, 0, 1]  # The same slot.
    best = np.array([True, False, True])
    assert layout.rows_of(found, best, none).tolist() == [0, 1, 0]


def test_a_row_is_used_again() -> None:
    """What died early leaves its place; so a long run is no long staircase."""
    begin = np.arange(0, 1000, 100)
    count, none = len(begin) + 1, np.zeros(len(begin) + 1, bool)
    found = Spans(
        np.arange(count),
        np.arange(count),
        np.append(0, begin),
        np.append(1000, begin + 50),
        np.append(-1, np.zeros(len(begin), np.int64)),
        none,
        none,
    )
    assert layout.rows_of(found, none, none).tolist() == [0, *[1] * len(begin)]


LABELS = st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.1)), max_size=12)


@hypothesis.given(LABELS)
def test_labels_do_not_overlap(pairs: list[tuple[float, float]]) -> None:
    """They keep their order, and one alone stays where it is."""
    wanted, heights = [at for at, _ in pairs], [height for _, height in pairs]
    found = layout.apart(wanted, heights)
    order = sorted(range(len(found)), key=lambda place: wanted[place])
    for low, high in itertools.pairwise(order):
        least = (heights[low] + heights[high]) / 2
        assert found[high] - found[low] >= least - 1e-9
    if len(wanted) == 1:
        assert np.allclose(found, wanted)


def test_two_labels_at_one_place_lie_around_it() -> None:
    """As far from it as each other's height; a third one far away does not move."""
    assert np.allclose(layout.apart([0.5, 0.5, 0.9], [0.1] * 3), [0.45, 0.55, 0.9])


def test_dots_of_a_category_are_spread_evenly() -> None:
    """In a square, so that dots of two categories do not lie on a diagonal."""
    x, y = layout.jitter(1000)
    cells = np.floor((np.stack([x, y]) + 0.5) * 5).astype(int)
    counts = np.bincount(cells[0] * 5 + cells[1], minlength=25)
    assert counts.min() >= 30
    assert counts.max() <= 50
