"""The toy problem of the PBT paper shows the effects that the paper describes."""

from __future__ import annotations

import pathlib
import statistics

import pytest

from benchmarks.quality import toy as benchmark
from examples.synthetic import figure2, population_size, toy

FROZEN, SEED = figure2.SETTINGS["frozen"], figure2.SETTINGS["seed"]


def test_with_a_frozen_setting_two_workers_get_near_the_optimum() -> None:
    """They reach at least 1.19 of 1.2, where the grid stays at 0.390."""
    assert min(figure2.scores("PBT", range(5), FROZEN)) >= 1.19
    assert figure2.scores("grid", range(1), FROZEN)[0] == pytest.approx(
        0.3897, abs=1e-4
    )


def test_pbt_is_the_best_of_the_four_ablations() -> None:
    """With h in its bounds, leaving out exploiting, exploring or both is worse."""
    means = {
        name: statistics.mean(figure2.scores(name, range(5), FROZEN))
        for name in figure2.ABLATIONS
    }
    assert max(means, key=means.__getitem__) == "PBT"
    assert min(means, key=means.__getitem__) == "grid"


def test_the_seed_settings_reach_what_the_re_implementation_reaches() -> None:
    """Its 1.164 is the mean of 20 seeds, whose standard error is 0.005."""
    found = figure2.scores("PBT", range(20), SEED)
    assert statistics.mean(found) == pytest.approx(1.164, abs=0.01)
    assert figure2.scores("grid", range(1), SEED)[0] == pytest.approx(0.3897, abs=1e-4)


def test_a_seed_gives_the_same_run_again() -> None:
    """Everything random comes from the seed."""
    assert figure2.scores("PBT", range(2), SEED) == figure2.scores(
        "PBT", range(2), SEED
    )


def test_larger_populations_are_better_and_pbt_beats_the_best_of_n() -> None:
    """All populations have equal first members and equal steps."""
    small, large = (population_size.scores(n, True, range(4)) for n in (2, 8))
    without = population_size.scores(8, False, range(4))
    assert statistics.mean(large) > statistics.mean(small)
    assert all(a > b for a, b in zip(large, without, strict=True))


def test_one_worker_is_left_as_it_is() -> None:
    """There is no other worker to copy: PBT with one worker only trains."""
    one = [population_size.scores(1, pbt, range(3)) for pbt in (True, False)]
    assert one[0] == one[1]


def test_the_programs_print_tables_and_draw_pictures(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line for each ablation and each size, and a PNG that is one."""
    monkeypatch.setattr(population_size, "SIZES", (1, 2))
    for program, lines in ((figure2, 4), (population_size, 2)):
        picture = tmp_path / f"{program.__name__}.png"
        program.main(["--seeds", "2", "--picture", str(picture)])
        shown = capsys.readouterr().out.splitlines()
        assert len(shown) == lines + 2
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_frozen_setting_is_among_the_candidates() -> None:
    """It was chosen from them, on seeds that the table does not use."""
    assert FROZEN in benchmark.candidates()
    assert not set(figure2.SEEDS_FOR_CHOICE) & set(benchmark.SEEDS)


def test_the_objective_is_at_most_its_optimum() -> None:
    """It is reached at theta = 0, by training along both h."""
    assert toy.objective([0.0, 0.0]) == toy.OPTIMUM
    theta = [0.9, 0.9]
    for _ in range(2000):
        theta = toy.train_one_step(theta, [1.0, 1.0])
    assert toy.objective(theta) == pytest.approx(toy.OPTIMUM)
