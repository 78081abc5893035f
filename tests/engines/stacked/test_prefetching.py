"""Batches on their way to the device."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from population.engines.stacked import prefetching
from population.engines.stacked.arguments import Source
from population.engines.stacked.prefetching import Prefetcher

SECONDS = 30  # Much longer than any of these waits.
Batches = Callable[[int, int, int], Any]


def batch(seed: int, worker_id: int, step: int) -> Any:
    """A batch that holds its worker id and step."""
    return {"place": np.array([seed, worker_id, step]), "half": np.float32(step / 2)}


class Made:
    """Makes feeds that look ahead, records when chunks are placed, closes the feeds."""

    def __init__(self) -> None:
        self.feeds: list[prefetching.Feed] = []
        self.placed: list[Any] = []
        self._news = threading.Condition()

    def each(
        self, batches: Batches, count: int, length: int, **options: Any
    ) -> Prefetcher:
        """A feed with batches of each member."""
        known: dict[str, Any] = {"ahead_s": 0.0} | options
        source = Source("batches", batches)
        found = Prefetcher(source, 5, range(count), length, self.put, **known)
        self.feeds.append(found)
        return found

    def shared(self, batches: Any, length: int) -> Prefetcher:
        """A feed with the same batches for all."""
        source = Source("shared_batches", batches)
        found = Prefetcher(source, 5, range(2), length, self.put, ahead_s=0.0)
        self.feeds.append(found)
        return found

    def put(self, tree: Any) -> Any:
        """Keep the tree, and return it."""
        with self._news:
            self.placed.append(tree)
            self._news.notify_all()
        return tree

    def wait(self, count: int) -> None:
        """Wait until this many chunks were placed."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.placed) >= count, SECONDS)


@pytest.fixture
def made() -> Iterator[Made]:
    """Close the feeds at the end, and check that no thread is left."""
    found = Made()
    yield found
    for one in found.feeds:
        one.close()
    assert not threads()


def threads() -> list[threading.Thread]:
    """The threads that prepare batches."""
    return [t for t in threading.enumerate() if t.name == "population-feed"]


def steps_of(chunk: Any, worker_id: int) -> list[int]:
    """The steps of a row of a chunk; also checks the row's worker."""
    assert chunk["place"][worker_id, :, 0].tolist() == [5] * chunk["place"].shape[1]
    assert set(chunk["place"][worker_id, :, 1].tolist()) == {worker_id}
    found: list[int] = chunk["place"][worker_id, :, 2].tolist()
    assert (2 * chunk["half"][worker_id]).tolist() == found
    return found


# What the caller gets.


def test_each_member_gets_the_batches_of_its_steps(made: Made) -> None:
    """Member axis first, then steps, from where each row stands."""
    found = made.each(batch, 3, 4)
    for start in (0, 4, 8):
        chunk = found.take([start, start + 100, start])
        assert chunk["place"].shape == (3, 4, 3)
        assert chunk["half"].shape == (3, 4)
        for worker_id, first in enumerate((start, start + 100, start)):
            assert steps_of(chunk, worker_id) == list(range(first, first + 4))


def test_padding_repeats_worker_0(made: Made) -> None:
    """Rows beyond the members have no worker; their steps are ignored."""
    asked = []

    def batches(seed: int, worker_id: int, step: int) -> Any:
        asked.append(worker_id)
        return batch(seed, worker_id, step)

    chunk = made.each(batches, 2, 3, rows=4).take([6, 7, 0, 0])
    assert chunk["place"].shape == (4, 3, 3)
    assert (chunk["place"][2:] == chunk["place"][0]).all()
    assert steps_of(chunk, 1) == [7, 8, 9]
    assert set(asked) == {0, 1}


def test_all_members_can_share_batches(made: Made) -> None:
    """There is one axis of steps; all rows must be at the same step."""
    found = made.shared(lambda seed, step: batch(seed, -1, step), 3)
    for start in (0, 3, 12):
        chunk = found.take([start, start])
        assert chunk["place"].tolist() == [[5, -1, start + k] for k in range(3)]
    with pytest.raises(ValueError, match=r"same step, got steps \[3, 6\]"):
        found.take([6, 3])


def test_constant_data_is_handed_on_as_it_is() -> None:
    """Steps do not matter, and nothing is copied."""
    data = {"x": np.ones(3)}
    found = prefetching.Constant(data)
    assert found.take([0]) is data
    found.close()
    assert found.take([7]) is data


def test_batches_may_be_any_pytree(made: Made) -> None:
    """Tuples, None, JAX's arrays, plain numbers, and nothing at all."""
    found = made.each(lambda *place: (jax.numpy.ones(2), None, [3, True]), 2, 1)
    x, nothing, (number, flag) = found.take([0, 0])
    assert (x.shape, nothing, number.shape, flag.dtype) == (
        (2, 1, 2),
        None,
        (2, 1),
        bool,
    )
    assert made.each(lambda *place: None, 2, 2).take([0, 0]) is None


def test_wide_numbers_become_those_of_jax(made: Made) -> None:
    """Otherwise a step that gets a float64 once would be traced again."""
    traces = []

    @jax.jit
    def program(chunk: Any) -> Any:
        traces.append(chunk)
        return chunk["x"].sum()

    kinds = (np.float64, np.float32)
    found = made.each(lambda seed, w, step: {"x": np.ones(2, kinds[step % 2])}, 1, 1)
    for step in range(4):
        chunk = found.take([step])
        assert chunk["x"].dtype == np.float32
        assert program(jax.device_put(chunk)) == 2.0
    assert len(traces) == 1


# Looking ahead.


def test_the_next_chunk_is_made_while_the_caller_is_busy(made: Made) -> None:
    """Another thread makes all of it; taking it calls no function."""
    main, made_by = threading.current_thread(), {}

    def batches(seed: int, worker_id: int, step: int) -> Any:
        made_by[step] = threading.current_thread()
        return batch(seed, worker_id, step)

    found = made.each(batches, 1, 2)
    found.take([0])
    made.wait(2)  # The caller trains; it has not taken the next chunk yet.
    assert [made_by[step] is main for step in range(4)] == [True, True, False, False]
    assert found.take([2]) is made.placed[1]


def test_taking_waits_for_what_is_being_made(made: Made) -> None:
    """A slow function causes a delay, and is not called a second time."""
    begun, go, calls = threading.Event(), threading.Event(), []

    def batches(seed: int, worker_id: int, step: int) -> Any:
        calls.append(step)
        if step == 2:
            begun.set()
            assert go.wait(SECONDS)
        return batch(seed, worker_id, step)

    found = made.each(batches, 1, 2)
    found.take([0])
    assert begun.wait(SECONDS)
    threading.Timer(0.0, go.set).start()
    assert steps_of(found.take([2]), 0) == [2, 3]
    made.wait(3)
    assert calls == list(range(6))


def test_only_rows_that_were_set_back_are_made_anew(made: Made) -> None:
    """A wrong guess costs only the wrong rows, and the batches are right."""
    calls: list[tuple[int, int]] = []

    def batches(seed: int, worker_id: int, step: int) -> Any:
        calls.append((worker_id, step))
        return batch(seed, worker_id, step)

    found = made.each(batches, 3, 2)
    found.take([10, 10, 10])
    made.wait(2)
    calls.clear()
    chunk = found.take([12, 4, 12])
    assert calls[:2] == [(1, 4), (1, 5)]
    assert [steps_of(chunk, w) for w in range(3)] == [[12, 13], [4, 5], [12, 13]]
    made.wait(4)  # The next guess begins from there.
    assert calls[2:] == [(0, 14), (0, 15), (1, 6), (1, 7), (2, 14), (2, 15)]


def test_a_wrong_guess_is_given_up_half_way(made: Made) -> None:
    """Rows that were not made yet are made at their real steps, each once."""
    begun, go = threading.Event(), threading.Event()
    calls: list[tuple[int, int]] = []

    def batches(seed: int, worker_id: int, step: int) -> Any:
        calls.append((worker_id, step))
        if (worker_id, step) == (1, 1):
            begun.set()
            assert go.wait(SECONDS)
        return batch(seed, worker_id, step)

    found = made.each(batches, 3, 1)
    found.take([0, 0, 0])
    assert begun.wait(SECONDS)
    calls.clear()
    threading.Timer(0.0, go.set).start()
    chunk = found.take([1, 7, 8])
    assert [steps_of(chunk, w) for w in range(3)] == [[1], [7], [8]]
    assert {(1, 7), (2, 8)} <= set(calls)
    assert (0, 1) not in calls  # This guess was right.


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=6))
def test_any_way_of_the_rows_gives_their_batches(ways: list[tuple[int, ...]]) -> None:
    """The guess and the progress of the thread do not matter."""
    made = Made()
    found = made.each(batch, 3, 2)
    for steps in ways:
        chunk = found.take(list(steps))
        assert [steps_of(chunk, w) for w in range(3)] == [[s, s + 1] for s in steps]
    found.close()


def test_never_more_than_two_chunks_are_on_their_way(made: Made) -> None:
    """The chunk that was taken, and the next one."""
    alive: list[weakref.ref[Any]] = []
    most = 0

    def put(tree: Any) -> Any:
        nonlocal most
        alive.append(weakref.ref(tree["place"]))
        most = max(most, sum(ref() is not None for ref in alive))
        return tree

    found = Prefetcher(Source("batches", batch), 5, range(2), 2, put, ahead_s=0.0)
    made.feeds.append(found)
    for start in range(0, 20, 2):
        assert steps_of(found.take([start, start]), 0) == [start, start + 1]
    assert len(alive) >= 10
    assert most <= 2


def test_what_is_made_at_once_is_not_made_ahead(made: Made) -> None:
    """Handing it to a thread would take longer than making it."""
    found = made.each(batch, 1, 2, ahead_s=math.inf)
    for start in (0, 2, 4):
        assert steps_of(found.take([start]), 0) == [start, start + 1]
    assert not threads()


# Errors.


def broken_at(worker_id: int, step: int, error: BaseException) -> Batches:
    """A function that fails at one place, once."""
    left = [error]

    def batches(seed: int, w: int, s: int) -> Any:
        if (w, s) == (worker_id, step) and left:
            raise left.pop()
        return batch(seed, w, s)

    return batches


@pytest.mark.parametrize("step", [1, 3])
def test_an_error_reaches_whoever_takes_the_chunk(made: Made, step: int) -> None:
    """The exception is unchanged, from either thread, with the path in a note."""
    error = KeyError("label")
    found = made.each(broken_at(1, step, error), 2, 2)
    if step == 3:
        found.take([0, 0])
    with pytest.raises(KeyError) as caught:
        found.take([step - 1] * 2)
    assert caught.value is error
    place = f"batches for worker 1, step {step}"
    assert error.__notes__ == [f"This was raised by {place}."]


def test_an_error_of_a_wrong_guess_is_nobodys(made: Made) -> None:
    """Batches that no member needs may fail, such as those after the last example."""
    found = made.each(broken_at(1, 3, IndexError()), 2, 2)
    found.take([0, 0])
    chunk = found.take([2, 0])
    assert [steps_of(chunk, w) for w in range(2)] == [[2, 3], [0, 1]]


def test_a_shared_error_names_the_step(made: Made) -> None:
    """There is no worker to name."""

    def batches(seed: int, step: int) -> Any:
        raise OSError

    with pytest.raises(OSError) as caught:  # noqa: PT011
        made.shared(batches, 2).take([4])
    place = "shared_batches for step 4"
    assert caught.value.__notes__ == [f"This was raised by {place}."]


@pytest.mark.parametrize(
    ("odd", "error"),
    [
        ({"x": np.ones(3)}, r"float32\[2\].*worker 1, step 3 returned .*float32\[3\]"),
        ({"x": np.ones(2, int)}, r"float32\[2\].*worker 1, step 3.*int32\[2\]"),
        ({"y": np.ones(2)}, r"'x'.*worker 1, step 3 returned .*'y'"),
        (None, r"'x'.*worker 1, step 3 returned None"),
    ],
)
def test_batches_that_differ_are_refused(made: Made, odd: Any, error: str) -> None:
    """The error names the path and both structures, shapes or dtypes."""

    def batches(seed: int, worker_id: int, step: int) -> Any:
        return odd if (worker_id, step) == (1, 3) else {"x": np.ones(2)}

    found = made.each(batches, 2, 2)
    found.take([0, 0])
    with pytest.raises(ValueError, match=error):
        found.take([2, 2])


def test_what_is_no_number_is_refused(made: Made) -> None:
    """A device has no strings."""
    found = made.each(lambda *place: {"x": np.array(["cat"])}, 1, 1)
    with pytest.raises(ValueError, match=r"worker 0, step 0 must return .*'<U3'"):
        found.take([0])


# Closing.


def test_closing_ends_the_thread() -> None:
    """A thread that is at work ends, too: it makes no further batch."""
    begun, go, calls = threading.Event(), threading.Event(), []

    def batches(seed: int, worker_id: int, step: int) -> Any:
        calls.append(step)
        if step == 3:
            begun.set()
            assert go.wait(SECONDS)
        return batch(seed, worker_id, step)

    source = Source("batches", batches)
    found = Prefetcher(source, 5, range(1), 3, lambda tree: tree, ahead_s=0.0)
    found.take([0])
    assert begun.wait(SECONDS)
    assert threads()
    threading.Timer(0.0, go.set).start()
    found.close()
    found.close()
    assert not threads()
    assert steps_of(found.take([0]), 0) == [0, 1, 2]
    assert not threads()


def test_a_feed_that_was_never_used_can_be_closed() -> None:
    """It has started no thread."""
    source = Source("shared_batches", lambda seed, step: None)
    found = Prefetcher(source, 5, range(1), 1, lambda tree: tree)
    assert not threads()
    found.close()


def test_a_forgotten_feed_takes_its_thread_along() -> None:
    """A feed that was never closed leaves nothing behind."""
    source = Source("batches", batch)
    found = Prefetcher(source, 5, range(1), 1, lambda tree: tree, ahead_s=0.0)
    found.take([0])
    (thread,) = threads()
    del found
    gc.collect()
    thread.join(SECONDS)
    assert not threads()


# Chunks.


@pytest.mark.parametrize(
    ("steps", "size", "limit", "length"),
    [
        (100, 10, 1000, 100),
        (100, 10, 999, 50),
        (100, 10, 99, 5),
        (100, 10, 5, 1),
        (97, 10, 900, 1),
        (100, 0, 10, 100),
        (1, 10, 10**9, 1),
    ],
)
def test_a_chunk_fits_the_limit(steps: int, size: int, limit: int, length: int) -> None:
    """The longest part of a round that fits, or a single step."""
    assert prefetching.chunk_length(steps, size, limit) == length
