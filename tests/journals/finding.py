"""What a journal promises about lookups of generations and of present checkpoints."""

from __future__ import annotations

import contextlib
import math
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from population.base import codec
from population.journal.base import Find, Journal
from population.journal.records import CheckpointRow, Record, Removal
from tests.journals.opening import Opening
from tests.journals.runs import (
    Draft,
    answers,
    break_off,
    checkpoint,
    generation,
    late,
    random_find,
    record,
)
from tests.journals.twin import Twin

# Each journal that inherits this test has the same property.
_INHERITED = [hypothesis.HealthCheck.differing_executors]
_KINDS_OF_RECORDS = 16


def rows_of(journal: Journal, find: Find) -> list[int]:
    """The rows of the checkpoints that were found."""
    return [row.row for row in journal.checkpoints(find)]


def fits(row: CheckpointRow, find: Find) -> bool:
    """Whether all conditions hold, word by word as `Find` describes them."""
    has_value, has_params = row.has_value == 1, row.params is not None
    is_finite = row.value is not None and math.isfinite(row.value)
    rules = {
        "generation_id": row.generation_id == find.generation_id,
        "after": row.row > find.after,
        "upto": row.row <= find.upto,
        "low": row.step >= find.low,
        "high": row.step <= find.high,
        "value": has_value,
        "params": has_params,
        "finite": not has_value or is_finite,
        "decides": has_value and (has_params or not is_finite),
        "diverged": has_value and not is_finite,
    }
    defaults = Find()._asdict()
    asked = [name for name, value in find._asdict().items() if value != defaults[name]]
    return all(rules[name] for name in asked if name in rules)


def expected(history: list[CheckpointRow], find: Find) -> list[CheckpointRow]:
    """The expected result from the whole history."""
    found = [row for row in history if fits(row, find)]
    found.sort(key=lambda row: row.step if find.generation_id else row.row)
    if find.newest_first:
        found.reverse()
    return found if find.limit < 0 else found[: find.limit]


def random_batches(seed: int, count: int) -> list[list[Record]]:
    """Some transactions of a random run."""
    rng, draft = random.Random(seed), Draft()
    return [
        [draft.next(rng.randrange(_KINDS_OF_RECORDS), rng) for _ in range(5)]
        for _ in range(count)
    ]


class Finding(Opening):
    """Promises of `generations` and `checkpoints`."""

    def test_generations_by_each_condition(self, journal: Journal) -> None:
        """Oldest first; of a slot only the newest one; all conditions must hold."""
        one, two = codec.digest(1.0), codec.digest(2.0)
        first, second = generation(1, 0, 0, 1.0), generation(2, 1, 0, 2.0)
        third, fourth = generation(3, 0, 1, 2.0), generation(4, 0, 2, 1.0)
        record(journal, second, fourth, first, third)
        ask = journal.generations
        assert ask() == [first, second, third, fourth]
        assert ask(after=2) == [third, fourth]
        assert ask(id="run-0-1") == [third]
        assert ask(worker_id=0) == [fourth]
        assert ask(worker_id=1) == [second]
        assert ask(digest=two) == [second, third]
        assert ask(digest=one, after=1) == [fourth]
        assert ask(worker_id=0, digest=two) == [third]
        assert ask(worker_id=0, after=3) == [fourth]
        assert ask(id="run-0-0", worker_id=0, digest=one) == [first]
        nothing = [
            ask(id="run-9-9"),
            ask(worker_id=9),
            ask(digest="none"),
            ask(after=4),
            ask(id="run-0-0", worker_id=1),
            ask(id="run-0-0", digest=two),
            ask(id="run-0-0", after=1),
        ]
        assert nothing == [[]] * len(nothing)

    @pytest.mark.parametrize("id", ["", "'", "run-0-0' OR '1'='1", "%", "\ud800", "\0"])
    def test_no_id_is_a_pattern_or_a_command(self, journal: Journal, id: str) -> None:
        """A text that is not an id of this journal finds nothing."""
        record(journal, generation(1), checkpoint(2))
        assert journal.generations(id=id) == []
        assert journal.generations(digest=id) == []
        assert journal.checkpoints(Find(generation_id=id)) == []
        assert rows_of(journal, Find()) == [2]

    def test_a_checkpoint_knows_its_generation_and_parent(
        self, journal: Journal
    ) -> None:
        """A root has no parent."""
        record(journal, generation(1), generation(2, 1, 0, 2.0))
        record(journal, checkpoint(3, 1, 10), checkpoint(4, 2, 20, parent=3))
        root, child = journal.checkpoints(Find())
        assert (root.parent, root.parent_generation_id, root.parent_step) == (None,) * 3
        parent = (child.parent, child.parent_generation_id, child.parent_step)
        assert parent == (3, "run-0-0", 10)
        assert (child.generation, child.generation_id, child.worker_id) == (
            *(2, "run-1-0", 1),
        )
        assert (child.meta_params, child.reason) == ("2.0", "start")

    def test_late_values_and_params_are_part_of_a_checkpoint(
        self, journal: Journal
    ) -> None:
        """They may come one by one, or together."""
        record(journal, generation(1), checkpoint(2), checkpoint(3, metrics="1"))
        record(journal, late(4, 2, params='"p"'), late(5, 2, value=2.0, metrics="2"))
        record(journal, late(6, 3, params='"q"', value=math.nan, metrics="3"))
        record(journal, checkpoint(7, value=4.0), late(8, 7, metrics="4"))
        record(journal, checkpoint(9), late(10, 9, metrics="5"), late(11, 9, value=1.0))
        first, second, third, fourth = journal.checkpoints(Find())
        assert (third.has_value, third.value, third.metrics) == (1, 4.0, "4")
        assert (fourth.has_value, fourth.value, fourth.metrics) == (1, 1.0, "5")
        assert (first.params, first.has_value, first.value) == ('"p"', 1, 2.0)
        assert (second.params, second.has_value, second.value) == ('"q"', 1, None)
        assert (first.metrics, second.metrics) == ("2", "1")
        assert (first.row, first.time) == (2, 2.0)

    def test_late_params_replace_held_ones(self, journal: Journal) -> None:
        """Once they are saved, the journal has their path; held ones may be removed."""
        held = '{"!held":["t",1]}'
        record(journal, generation(1), checkpoint(2, params=held))
        record(journal, late(3, 2, params='"saved"'), Removal(3, held, "unreachable"))
        (found,) = journal.checkpoints(Find())
        assert (found.params, found.had_params) == ('"saved"', '"saved"')

    def test_removed_params_are_gone_and_were_there(self, journal: Journal) -> None:
        """All checkpoints that name them lose them; `had_params` is still true."""
        record(journal, generation(1), *(checkpoint(r, params='"p"') for r in (2, 3)))
        record(journal, checkpoint(4), checkpoint(5), late(6, 5, params='"p"'))
        record(journal, Removal(6, '"p"', "unreachable"), Removal(6, '"q"', "r"))
        found = [(row.params, row.had_params) for row in journal.checkpoints(Find())]
        assert found == [(None, '"p"'), (None, '"p"'), (None, None), (None, '"p"')]
        assert rows_of(journal, Find(params=True)) == []

    def test_a_removal_means_what_was_recorded_before(self, journal: Journal) -> None:
        """Equal params that are recorded after its row, first or late, are kept."""
        record(journal, generation(1), checkpoint(2, params='"p"'), checkpoint(3))
        record(journal, Removal(3, '"p"', "unreachable"))
        record(journal, checkpoint(4, params='"p"'), late(5, 3, params='"p"'))
        assert rows_of(journal, Find(params=True)) == [3, 4]
        record(journal, Removal(4, '"p"', "unreachable"))
        assert rows_of(journal, Find(params=True)) == [3]
        record(journal, Removal(5, '"p"', "unreachable"))
        assert rows_of(journal, Find(params=True)) == []

    def test_each_condition_alone(self, journal: Journal) -> None:
        """Each condition alone means what the docstring of `Find` says."""
        record(journal, generation(1), generation(2, 1))
        record(
            journal,
            checkpoint(3, 1, 30, params='"p"', value=1.0),
            checkpoint(4, 1, 10, value=math.nan),
            checkpoint(5, 2, 20, params='"q"'),
            checkpoint(6, 2, 40, params='"r"', value=-math.inf),
            checkpoint(7, 1, 20, value=2.0),
            checkpoint(8, 2, 50),
            late(9, 8, value=math.inf),
        )
        assert rows_of(journal, Find()) == [3, 4, 5, 6, 7, 8]
        assert rows_of(journal, Find(generation_id="run-0-0")) == [4, 7, 3]
        assert rows_of(journal, Find(generation_id="run-2-0")) == []
        assert rows_of(journal, Find(after=5)) == [6, 7, 8]
        assert rows_of(journal, Find(upto=4)) == [3, 4]
        assert rows_of(journal, Find(after=4, upto=5)) == [5]
        assert rows_of(journal, Find(low=30)) == [3, 6, 8]
        assert rows_of(journal, Find(high=20)) == [4, 5, 7]
        assert rows_of(journal, Find(value=True)) == [3, 4, 6, 7, 8]
        assert rows_of(journal, Find(params=True)) == [3, 5, 6]
        assert rows_of(journal, Find(finite=True)) == [3, 5, 7]
        assert rows_of(journal, Find(decides=True)) == [3, 4, 6, 8]
        assert rows_of(journal, Find(diverged=True)) == [4, 6, 8]
        assert rows_of(journal, Find(newest_first=True)) == [8, 7, 6, 5, 4, 3]
        assert rows_of(journal, Find(limit=2)) == [3, 4]
        assert rows_of(journal, Find(limit=0)) == []

    def test_conditions_together(self, journal: Journal) -> None:
        """All conditions hold; the order is applied before the limit."""
        record(journal, generation(1), generation(2, 1))
        steps = {3: 9, 4: 1, 5: 5, 6: 3}
        record(journal, *(checkpoint(r, 1, s, value=1.0) for r, s in steps.items()))
        record(journal, checkpoint(7, 2, 4, value=1.0))
        within = Find(generation_id="run-0-0", low=2, high=8, value=True)
        assert rows_of(journal, within) == [6, 5]
        newest = within._replace(newest_first=True, limit=1)
        assert rows_of(journal, newest) == [5]
        assert rows_of(journal, within._replace(after=5)) == [6]
        assert rows_of(journal, within._replace(finite=True, diverged=True)) == []
        assert rows_of(journal, within._replace(params=True)) == []

    @pytest.mark.parametrize("seed", range(6))
    def test_any_conditions_together(self, journal: Journal, seed: int) -> None:
        """The result is that of a loop over the whole history."""
        for batch in random_batches(seed, 12):
            record(journal, *batch)
        history, rng = journal.checkpoints(Find()), random.Random(seed)
        for find in [random_find(rng) for _ in range(150)]:
            assert journal.checkpoints(find) == expected(history, find), find

    @hypothesis.settings(max_examples=40, suppress_health_check=_INHERITED)
    @hypothesis.given(
        st.lists(
            st.tuples(
                st.lists(st.integers(0, _KINDS_OF_RECORDS - 1), max_size=12),
                st.booleans(),
            ),
            max_size=8,
        ),
        st.integers(0, 2**16),
    )
    def test_any_run_is_as_in_plain_python(
        self, transactions: list[tuple[list[int], bool]], seed: int
    ) -> None:
        """Whatever is written or rolled back, every answer equals that of the twin."""
        draft, rng, twin = Draft(), random.Random(seed), Twin()
        with contextlib.closing(self.open_journal()) as journal:
            for kinds, stays in transactions:
                before = draft.copy()
                records = [draft.next(kind, rng) for kind in kinds]
                if stays:
                    record(twin, *records)
                    record(journal, *records)
                    continue
                draft = before
                with pytest.raises(KeyboardInterrupt):
                    break_off(journal, KeyboardInterrupt, *records)
            assert answers(journal, seed) == answers(twin, seed)
