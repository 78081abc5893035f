"""Members that are sharded over eight devices train as on one."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from tests.engines.stacked import devices_child, problems, test_member_states

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of the child: one process for all tests, since JAX starts slowly."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # This policy compiles faster.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", devices_child.__name__]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["count"] == 8
    return found


@pytest.mark.parametrize("name", devices_child.CASES)
def test_eight_devices_are_equal_to_one(name: str, answers: dict[str, Any]) -> None:
    """The same decisions, and the same values within float tolerance."""
    case, found = devices_child.CASES[name], answers[name]
    assert found["difference"] is None
    assert found["branched"] > 0
    assert found["devices"] == [min(case.size, case.devices)]


@pytest.mark.parametrize("name", devices_child.CASES)
def test_no_round_but_the_first_compiles_on_any_device(
    name: str, answers: dict[str, Any]
) -> None:
    """The placement of states is the same after copies, snapshots and saves."""
    assert answers[name]["compiled"] == 0


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", test_member_states.MOVES)
def test_rows_are_copied_across_devices(
    name: str, batching: str, answers: dict[str, Any]
) -> None:
    """Chains and cycles work, too; and states move to the device that needs them."""
    sources = test_member_states.MOVES[name]
    expected = [sources.get(row, row) for row in range(test_member_states.SIZE)]
    expected[2] = expected[4]
    assert answers[f"moved {batching}"][name] == expected


@pytest.mark.parametrize("batching", problems.BATCHINGS)
def test_a_stack_on_two_devices_is_compacted_exactly(
    batching: str, answers: dict[str, Any]
) -> None:
    """Each device has the same number of rows, down to one."""
    found = answers[f"compacted {batching}"]
    assert found["sizes"] == [8, 4, 2]
    assert found["difference"] is None
    assert found["same"] or batching == "vmap"  # JAX does not promise it for "vmap".


def test_a_run_goes_on_with_another_number_of_devices(
    answers: dict[str, Any],
) -> None:
    """Saves do not depend on devices."""
    assert answers["resumed"]["difference"] is None
