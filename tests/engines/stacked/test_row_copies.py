"""The order in which rows are copied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from population.engines.stacked import row_copies

Copies = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.dictionaries(st.integers(0, n - 1), st.integers(0, n - 1), max_size=n),
        st.integers(1, 5),
    )
)


def carried_out(count: int, plan: row_copies.Plan) -> list[int]:
    """What rows 0, 1, ... hold at the end, if row i holds i at first."""
    rows = list(range(count))
    spared = [(rows[source], target) for source, target in plan.spared]
    for chunk in plan.chunks:
        read = [rows[source] for source, _ in chunk]
        for value, (_, target) in zip(read, chunk, strict=True):
            rows[target] = value
    for value, target in spared:
        rows[target] = value
    return rows


@given(Copies)
def test_no_row_is_overwritten_before_it_was_read(
    copies: tuple[int, dict[int, int], int],
) -> None:
    """Chains, cycles and donors of many rows end as if all were copied at once."""
    count, sources, size = copies
    plan = row_copies.plan(sources, size)
    wanted = [sources.get(row, row) for row in range(count)]
    assert carried_out(count, plan) == wanted
    assert all(len(chunk) <= size for chunk in plan.chunks)


def test_a_cycle_needs_one_spare_row() -> None:
    """Of three rows that exchange their contents in a ring, one is copied aside."""
    plan = row_copies.plan({0: 1, 1: 2, 2: 0}, 8)
    assert len(plan.spared) == 1
    assert sum(map(len, plan.chunks)) == 2


def test_copies_of_a_row_onto_itself_cost_nothing() -> None:
    """A row that already holds the right member is not touched."""
    assert row_copies.plan({0: 0, 3: 3}, 8) == row_copies.Plan([], [])


def test_what_nobody_reads_needs_no_spare_row() -> None:
    """The usual case, losers that copy winners, needs only chunks."""
    plan = row_copies.plan(dict.fromkeys(range(1, 20), 0), 8)
    assert not plan.spared
    assert [len(chunk) for chunk in plan.chunks] == [8, 8, 3]
