"""What a journal promises about the records that are written to it."""

from __future__ import annotations

import math
from typing import Any, get_type_hints

import pytest

from population import JournalError
from population.journal import records
from population.journal.base import Find, Journal
from population.journal.records import (
    Best,
    CheckpointRecord,
    Fact,
    Generation,
    Late,
    Lease,
    Loss,
    MutatorRecord,
    Opening,
    Record,
    Removal,
    Save,
    Status,
    Tail,
)
from tests.journals import opening
from tests.journals.runs import (
    KINDS,
    break_off,
    checkpoint,
    generation,
    late,
    mutator_record,
    record,
    status,
)

TEXTS = ("", " ", 'it\'s "quoted"; --', "%s ? :a $1", "ä\u2028\U0001f600", "x" * 50_000)


class Recording(opening.Opening):
    """Promises of `write`, `all`, `log` and `tail`."""

    def test_a_new_journal_is_empty(self, journal: Journal) -> None:
        """Each method has a result for an empty journal."""
        assert journal.tail() == Tail(0, 0.0, 0, None, 0)
        assert all(journal.all(kind) == [] for kind in KINDS)
        assert list(journal.log()) == []
        assert journal.generations() == []
        assert journal.checkpoints(Find()) == []

    def test_the_first_fact_of_a_key_stays(self, journal: Journal) -> None:
        """Later ones are ignored, in the same batch, a later one or a transaction."""
        record(journal, Fact("b", "1"), Fact("a", "1"), Fact("a", "2"))
        record(journal, Fact("b", "2"))
        assert journal.all(Fact) == [Fact("a", "1"), Fact("b", "1")]

    def test_the_first_of_equal_removals_stays(self, journal: Journal) -> None:
        """Equal means the same row and params; others are added."""
        first, again = Removal(1, '"p"', "first"), Removal(1, '"p"', "again")
        record(journal, first, again, Removal(2, '"p"', "later"))
        record(journal, again, Removal(1, '"q"', "another"))
        assert journal.all(Removal) == [
            first,
            Removal(1, '"q"', "another"),
            Removal(2, '"p"', "later"),
        ]

    def test_a_lease_replaces_the_one_of_its_slot(self, journal: Journal) -> None:
        """Leases come in the order of their changes."""
        record(journal, Lease(0, "a", 1.0, 0.0, None, 1), Lease(1, "b", 1.0, 0.0, 7, 2))
        record(journal, Lease(0, None, 2.0, 0.5, None, 3))
        found = [Lease(1, "b", 1.0, 0.0, 7, 2), Lease(0, None, 2.0, 0.5, None, 3)]
        assert journal.all(Lease) == found
        assert journal.all(Lease, 2) == found[1:]
        assert journal.all(Lease, 3) == []

    def test_a_save_replaces_the_one_of_its_params(self, journal: Journal) -> None:
        """Saves come by row, oldest first."""
        record(journal, Save('"b"', 1, "run-0-0", 1, 10), Save('"a"', 2, "", 0, 0))
        record(journal, Save('"b"', 3, "run-0-0", 2, 20))
        assert journal.all(Save) == [
            Save('"a"', 2, "", 0, 0),
            Save('"b"', 3, "run-0-0", 2, 20),
        ]

    def test_the_mutator_has_one_record(self, journal: Journal) -> None:
        """It is the last one that was written."""
        record(journal, mutator_record("a", 1), mutator_record("b", 2))
        record(journal, mutator_record("c", 3))
        assert journal.all(MutatorRecord) == [mutator_record("c", 3)]

    @pytest.mark.parametrize("params", ['"p"', '{"!held":["token",1]}'])
    def test_a_removal_removes_the_save(self, journal: Journal, params: str) -> None:
        """It removes the save of these params only, held ones too, no later save."""
        kept = Save('"other"', 1, "run-0-0", 1, 10)
        saved = Save(params, 1, "run-0-0", 1, 10)
        record(journal, saved, kept)
        record(journal, Removal(1, params, "r"))
        assert journal.all(Save) == [kept]
        record(journal, saved, Removal(2, params, "r"), Removal(2, '"none"', "r"))
        assert journal.all(Save) == [kept]
        record(journal, saved, Removal(3, params, "r"), saved._replace(row=3))
        assert journal.all(Save) == [kept, saved._replace(row=3)]

    def test_a_removal_that_is_rolled_back_leaves_the_save(
        self, journal: Journal
    ) -> None:
        """Records that it replaced are there again."""
        saves = [Save('"p"', 1, "run-0-0", 1, 10), Save('"q"', 2, "run-0-0", 1, 10)]
        record(journal, *saves)
        changed = saves[1]._replace(bytes=1)
        with pytest.raises(KeyError):
            break_off(journal, KeyError, Removal(1, '"p"', "r"), changed)
        assert journal.all(Save) == saves
        assert journal.all(Removal) == []

    def test_removals_after_a_row(self, journal: Journal) -> None:
        """Only those with a greater row are found."""
        removals = [Removal(row, '"p"', "r") for row in range(4)]
        record(journal, *removals)
        assert journal.all(Removal, 1) == removals[2:]
        assert journal.all(Removal) == removals

    def test_openings_and_losses_keep_their_order(self, journal: Journal) -> None:
        """This holds even if they name the same row, or are equal."""
        openings = [Opening(0, 2.0, "a"), Opening(0, 1.0, None), Opening(0, 2.0, "a")]
        losses = [
            Loss(0, "[1]", 1, 2.0, None, None),
            Loss(0, "[]", None, 1.0, 0, 1),
            Loss(0, "[1]", 1, 2, None, None),
        ]
        record(journal, *openings, *losses)
        assert journal.all(Opening) == openings
        assert journal.all(Loss) == losses

    def test_a_batch_may_mix_all_kinds(self, journal: Journal) -> None:
        """One call may have one record of each kind, or more."""
        batch: list[Record] = [
            Fact("a", "1"),
            Opening(0, 1.0, "me"),
            generation(1),
            checkpoint(2, params='"p"', value=1.0),
            Save('"p"', 2, "run-0-0", 2, 10),
            Best(2, 2, 1),
            generation(3, 1),
            checkpoint(4, 3, parent=2),
            late(5, 4, value=2.0),
            Loss(5, "[]", None, 1.0, 0, 6),
            status(1, 5),
            Lease(0, "me", 1.0, 0.0, 2, 1),
            mutator_record("a", 1),
            Removal(5, '"p"', "r"),
        ]
        record(journal, *batch)
        rows = [r for r in batch if hasattr(r, "row")]
        left = [r for r in rows if not isinstance(r, (Opening, Save))]
        assert sorted(map(repr, journal.log())) == sorted(map(repr, left))
        assert journal.all(Save) == []
        assert len(journal.checkpoints(Find())) == 2

    def test_a_thousand_records_at_once(self, journal: Journal) -> None:
        """All come back in order, although they are more than a page."""
        batch: list[Record] = [generation(1)]
        batch += [checkpoint(row) for row in range(2, 1002)]
        record(journal, *batch)
        assert list(journal.log()) == batch
        assert len(journal.checkpoints(Find())) == 1000

    @pytest.mark.parametrize("text", TEXTS)
    def test_texts_come_back_as_they_were(self, journal: Journal, text: str) -> None:
        """Nothing in a text is executed, translated or cut."""
        opened = generation(1)._replace(reason=text)
        kept: list[Record] = [
            Fact(text, text),
            Opening(0, 1.0, text),
            Loss(0, text, None, 1.0, 0, 1),
            status(1, 0)._replace(reason=text),
        ]
        kept += [Removal(0, text, text), Lease(0, text, 1.0, 1.0, None, 1)]
        first = checkpoint(2, params=text, metrics=text)
        record(journal, *kept, opened, first)
        assert [journal.all(type(r)) for r in kept] == [[r] for r in kept]
        assert journal.generations() == [opened]
        (found,) = journal.checkpoints(Find())
        assert (found.params, found.metrics, found.reason) == (text, text, text)

    @pytest.mark.parametrize(
        "value", [0.0, 1.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf]
    )
    def test_values_come_back_to_the_last_bit(
        self, journal: Journal, value: float
    ) -> None:
        """Infinities do too; only the sign of a zero may be lost."""
        record(journal, generation(1), checkpoint(2, value=value))
        (found,) = journal.checkpoints(Find())
        assert repr(found.value) == repr(value)

    def test_nan_comes_back_as_none_beside_has_value(self, journal: Journal) -> None:
        """Then records are equal to themselves; without a value there is no NaN."""
        record(journal, generation(1), checkpoint(2, value=math.nan), checkpoint(3))
        record(journal, late(4, 3, value=math.nan))
        found = journal.checkpoints(Find())
        assert [(row.has_value, row.value) for row in found] == [(1, None)] * 2
        logged = [r for r in journal.log() if isinstance(r, (CheckpointRecord, Late))]
        assert [(r.has_value, r.value) for r in logged] == [
            (1, None),
            (0, None),
            (1, None),
        ]

    def test_what_comes_back_has_the_types_of_its_record(
        self, journal: Journal
    ) -> None:
        """An int comes back as a bool if it is one; None only where it is valid."""
        largest = 2**62
        record(
            journal,
            generation(1),
            checkpoint(2, params='"p"', value=2.0)._replace(
                has_value=True, batch=largest
            ),
            checkpoint(3)._replace(has_value=False, step=2**63 - 1),
            late(4, 3, value=1.0)._replace(has_value=True),
            Best(4, 2, 1),
            Removal(4, '"p"', "r"),
            Loss(4, "[]", 3, 1.0, None, None),
            Loss(4, "[]", 3, 1.0, 1, largest),
            status(1, 4, "retired")._replace(step=2**63 - 1, batch=1),
            Lease(0, None, 1.0, 0.0, None, largest),
        )
        found = [*journal.log(), *journal.all(Lease), *journal.checkpoints(Find())]
        for answer in (*found, journal.tail()):
            hints = get_type_hints(type(answer), vars(records))
            for name, value in answer._asdict().items():
                kinds: Any = getattr(hints[name], "__args__", (hints[name],))
                assert type(value) in kinds, (answer, name)

    def test_the_log_tells_all_in_order(self, journal: Journal) -> None:
        """Records that name a row come after it; replaced ones do not come."""
        told: list[Record] = [
            Removal(0, '"p"', "r"),
            generation(1),
            checkpoint(2, value=1.0),
            Best(2, 2, 1),
            Removal(2, '"a"', "r"),
            Removal(2, '"b"', "r"),
            Loss(2, "[0]", None, 1.0, 0, 3),
            Loss(2, "[]", 1, 0.0, 0, 3),
            checkpoint(3, value=0.5),
            Best(3, 3, 2),
            generation(4, 1),
        ]
        record(journal, *(r for r in told if isinstance(r, (Best, Loss, Removal))))
        record(journal, *(r for r in told if isinstance(r, Generation)))
        record(journal, *(r for r in told if isinstance(r, CheckpointRecord)))
        record(journal, Fact("a", "1"), Opening(4, 1.0, None), mutator_record("a", 1))
        assert list(journal.log()) == told

    def test_statuses_keep_their_order_by_their_numbers(self, journal: Journal) -> None:
        """This holds even if they name the same row; each has its own number."""
        found = [status(1, 0), status(2, 0, "recovered"), status(3, 0, "retired")]
        record(journal, found[2], found[0])
        record(journal, found[1])
        assert journal.all(Status) == found

    def test_the_log_tells_statuses_and_losses_as_they_were_written(
        self, journal: Journal
    ) -> None:
        """Those of the transaction of the row come before removals, others after."""
        told: list[Record] = [
            generation(1),
            checkpoint(2, value=1.0),
            Best(2, 2, 1),
            status(1, 2, "recovered", batch=1),
            Loss(2, "[]", 0, 1.0, 1, 1),
            status(2, 2, "retired", batch=2),
            Removal(2, '"a"', "r"),
            Loss(2, "[0]", None, 1.0, 2, 3),
            status(3, 2, "revived"),
            Loss(2, "[]", 0, 0.0, 3, 3),
            Loss(2, "[0]", 0, 0.0, 3, 3),
            status(4, 2),
            generation(3, 1),
            status(5, 3, batch=3),
        ]
        record(journal, *told)
        assert list(journal.log()) == told
        assert list(journal.log(2)) == told[2:]
        assert list(journal.log(upto=2)) == told[:-2]

    def test_losses_of_older_formats_come_before_statuses(
        self, journal: Journal
    ) -> None:
        """They have no number of statuses, as there were none."""
        loss = Loss(1, "[0]", None, 1.0, None, None)
        record(journal, generation(1), loss, status(1, 1))
        assert list(journal.log()) == [generation(1), loss, status(1, 1)]

    def test_the_log_after_a_row(self, journal: Journal) -> None:
        """The record of this row is left out, the records that name it are not."""
        steps: list[Record] = [generation(1), checkpoint(2), Best(2, 2, 1)]
        steps += [checkpoint(3)]
        record(journal, *steps, Best(3, 3, 1))
        assert list(journal.log(1)) == [*steps[1:], Best(3, 3, 1)]
        assert list(journal.log(2)) == [Best(2, 2, 1), checkpoint(3), Best(3, 3, 1)]
        assert list(journal.log(3)) == [Best(3, 3, 1)]

    def test_the_log_up_to_a_row(self, journal: Journal) -> None:
        """The records that name this row are included."""
        steps: list[Record] = [generation(1), checkpoint(2), Best(2, 2, 1)]
        record(journal, *steps, checkpoint(3), Best(3, 3, 1))
        assert list(journal.log(upto=1)) == steps[:1]
        assert list(journal.log(upto=2)) == steps
        assert list(journal.log(2, 2)) == steps[2:]
        assert list(journal.log(upto=0)) == []

    @pytest.mark.parametrize("after", [0, 1, 999, 1000, 1001, 2499, 2500])
    def test_a_long_log_has_no_seams(self, journal: Journal, after: int) -> None:
        """The records that name a row come once, and at the right place."""
        rows: list[Record] = [generation(1)]
        rows += [checkpoint(row) for row in range(2, 2501)]
        beside = [Removal(row, f'"{row}"', "r") for row in range(2501)]
        record(journal, *rows, *beside)
        found = list(journal.log(after))
        expected: list[Record] = [beside[after]]
        for one, after_it in zip(rows[after:], beside[after + 1 :], strict=True):
            expected += [one, after_it]
        assert found == expected

    @pytest.mark.parametrize("missing", [1, 2, 500, 1000, 1001, 1499])
    def test_a_gap_in_the_log_is_an_error(self, journal: Journal, missing: int) -> None:
        """Rows increase one by one through all tables."""
        first = 2 if missing == 1 else 1
        rows = [row for row in range(first + 1, 1501) if row != missing]
        record(journal, generation(first), *(checkpoint(r, first) for r in rows))
        with pytest.raises(JournalError, match=f"row {missing} is missing|is missing"):
            list(journal.log())
        assert len(list(journal.log(missing))) == 1500 - missing

    def test_a_log_that_ends_too_early_is_an_error(self, journal: Journal) -> None:
        """If a row is missing, the reader gets an error instead of fewer records."""
        record(journal, generation(1), checkpoint(2))
        with pytest.raises(JournalError, match="is missing"):
            list(journal.log(upto=3))
        with pytest.raises(JournalError, match="is missing"):
            list(journal.log(3))

    def test_the_tail_knows_what_came_last(self, journal: Journal) -> None:
        """Late records count like others, and the best is that of the newest `Best`."""
        record(journal, generation(1))
        assert journal.tail() == Tail(1, 0.0, 0, None, 0)
        record(journal, checkpoint(2, value=3.0, reports=1), Best(2, 2, 1))
        assert journal.tail() == Tail(2, 2.0, 1, 2, 1)
        record(journal, checkpoint(3, reports=1), generation(4, 1))
        assert journal.tail() == Tail(4, 3.0, 1, 2, 1)
        record(journal, late(5, 3, value=1.0, reports=2), Best(5, 3, 2))
        assert journal.tail() == Tail(5, 5.0, 2, 3, 2)
        record(journal, Removal(5, '"p"', "r"), Fact("a", "1"))
        assert journal.tail() == Tail(5, 5.0, 2, 3, 2)
