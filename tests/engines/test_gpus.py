"""GPUs are counted without JAX and divided among processes."""

from __future__ import annotations

import pathlib

import pytest

from population.engines.processes import gpus


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A machine whose GPUs are the files in this folder; the user has set nothing."""
    for name in (*gpus._BY_HAND, gpus._VISIBLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "_DRIVER", tmp_path)
    return tmp_path


def given(
    count: int, gpus_per_worker: float | None = None, memory: float | None = None
) -> list[tuple[str | None, str | None]]:
    """The GPUs and the share of memory of each process."""
    found = gpus.environments(count, gpus_per_worker, memory)
    return [(e.get(gpus._VISIBLE), e.get(gpus._MEMORY)) for e in found]


def test_gpus_are_counted_by_the_drivers_files(no_gpu: pathlib.Path) -> None:
    """CUDA numbers what there is from 0, whatever the files are called."""
    for name in ("nvidia2", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (no_gpu / name).touch()
    assert gpus.visible() == ["0", "1"]


@pytest.mark.parametrize(
    ("named", "seen"),
    [
        ("3, 1", ["3", "1"]),
        ("GPU-8932f937,MIG-1", ["GPU-8932f937", "MIG-1"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
    ],
)
def test_a_list_of_visible_gpus_is_kept_to(
    named: str, seen: list[str], no_gpu: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs that the user hid stay hidden."""
    (no_gpu / "nvidia0").touch()
    monkeypatch.setenv(gpus._VISIBLE, named)
    assert gpus.visible() == seen


@pytest.mark.parametrize(
    ("count", "share", "places"),
    [
        (2, 1, ["a", "b"]),
        (2, 2, ["a,b", "c,d"]),
        (4, 0.5, ["a", "a", "b", "b"]),
        (3, 1 / 3, ["a", "a", "a"]),
        (2, 0.7, ["a", "b"]),
        (1, 3.0, ["a,b,c"]),
        (2, None, ["a,b", "c,d"]),
        (3, None, ["a", "b", "c"]),
        (6, None, ["a", "b", "c", "d", "a", "b"]),
    ],
)
def test_each_process_sees_its_share(
    count: int,
    share: float | None,
    places: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole GPUs, or a part of one; by default they are divided evenly."""
    monkeypatch.setenv(gpus._VISIBLE, "a,b,c,d")
    assert [place for place, _ in given(count, share)] == places


def test_forty_nine_processes_fit_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that floats cannot represent counts as the fraction that was meant."""
    monkeypatch.setenv(gpus._VISIBLE, "a")
    assert len(given(49, 1 / 49)) == 49


def test_processes_on_one_gpu_divide_what_jax_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the second process would find the memory taken."""
    monkeypatch.setenv(gpus._VISIBLE, "a,b")
    assert given(2) == [("a", None), ("b", None)]
    assert given(2, 0.5) == [("a", "0.375")] * 2
    assert given(3) == [("a", "0.375"), ("b", "0.375"), ("a", "0.375")]
    assert given(2, 0.5, 0.2) == [("a", "0.2")] * 2


@pytest.mark.parametrize("name", gpus._BY_HAND)
def test_what_the_user_said_of_memory_holds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share is divided only if the user has not set the memory."""
    monkeypatch.setenv(gpus._VISIBLE, "a")
    monkeypatch.setenv(name, "0.1")
    assert gpus.environments(2) == [{gpus._VISIBLE: "a"}] * 2


def test_jax_is_not_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the new name set, JAX refuses the old one, so only the new one is set."""
    monkeypatch.setenv(gpus._NEW_MEMORY, "0.9")
    assert gpus.environments(1, None, 0.5) == [{gpus._NEW_MEMORY: "0.5"}]


def test_without_gpus_nothing_is_set() -> None:
    """A machine without GPUs, or one where they are hidden, trains on its CPU."""
    assert given(3) == [(None, None)] * 3


def test_too_few_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has both numbers, and what to do."""
    monkeypatch.setenv(gpus._VISIBLE, "0,1")
    with pytest.raises(ValueError, match=r"need 3 GPUs, found 2\. Start fewer"):
        gpus.environments(3, 1)
    with pytest.raises(ValueError, match=r"need 3 GPUs, found 2\."):
        gpus.environments(5, 0.5)


@pytest.mark.parametrize("share", [0, -1, 1.5, True, "1", float("nan"), float("inf")])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    """A process gets whole GPUs or a part of one."""
    with pytest.raises(ValueError, match=f"gpus_per_worker must be .*{share!r}"):
        gpus.environments(1, share)


@pytest.mark.parametrize("fraction", [0, 1.1, -0.5, True, "half", float("nan")])
def test_a_share_of_memory_that_cannot_be_is_refused(fraction: float) -> None:
    """It must be above 0 and at most 1."""
    with pytest.raises(ValueError, match=f"memory_fraction must be .*{fraction!r}"):
        gpus.environments(1, None, fraction)
