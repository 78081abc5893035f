"""Shrinking makes a sequence as short as possible."""

from __future__ import annotations

import itertools

import pytest

from population.testing.shrink import shrink


@pytest.mark.parametrize(
    "needed", [set(), {0}, {99}, {3, 4}, {0, 50, 99}, set(range(0, 100, 9))]
)
def test_what_is_needed_remains_in_order(needed: set[int]) -> None:
    """Wherever it is; and nothing else remains."""
    found = shrink(range(100), lambda items: needed <= set(items))
    assert found == tuple(sorted(needed))


def test_no_item_can_be_left_out_of_the_result() -> None:
    """This holds also if items have an effect only together."""

    def shows(items: tuple[int, ...]) -> bool:
        return sum(items) % 7 == 3 and len(items) >= 2

    found = shrink(range(1, 31), shows) if shows(tuple(range(1, 31))) else ()
    found = found or shrink(range(2, 31), shows)
    assert shows(found)
    for left_out in range(len(found)):
        assert not shows(found[:left_out] + found[left_out + 1 :])


def test_items_are_joined_where_that_still_shows_it() -> None:
    """Ten single steps become one of ten, if the defect remains."""

    def shows(items: tuple[int, ...]) -> bool:
        return sum(items) >= 10

    assert shrink([1] * 30, shows, lambda one, two: one + two) == (10,)


def test_only_what_can_be_joined_is() -> None:
    """Items of different kinds stay apart, each at the place of its last."""

    def join(one: tuple[str, int], two: tuple[str, int]) -> tuple[str, int] | None:
        return (one[0], one[1] + two[1]) if one[0] == two[0] else None

    def shows(items: tuple[tuple[str, int], ...]) -> bool:
        totals = {kind: sum(n for k, n in items if k == kind) for kind in "ab"}
        return totals["a"] >= 3 and totals["b"] >= 2

    items = [("a", 1), ("b", 1)] * 5
    assert sorted(shrink(items, shows, join)) == [("a", 3), ("b", 2)]


def test_shrinking_asks_seldom_and_always_the_same() -> None:
    """Dozens of calls find one item among a thousand."""
    asked: list[tuple[int, ...]] = []

    def shows(items: tuple[int, ...]) -> bool:
        asked.append(items)
        return 617 in items

    assert shrink(range(1000), shows) == (617,)
    assert len(asked) < 50
    first = asked.copy()
    asked.clear()
    shrink(range(1000), shows)
    assert asked == first


def test_an_item_is_not_lost_because_of_its_neighbours() -> None:
    """Every pair of a small sequence is found."""
    for pair in map(set, itertools.combinations(range(7), 2)):
        found = shrink(range(7), pair.issubset)
        assert found == tuple(sorted(pair))
