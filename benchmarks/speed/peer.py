"""The package whose interface the library keeps, if it is installed."""

from __future__ import annotations

import copy
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

PEER = "learned_optimization"


def missing(*, ask: bool) -> str | None:
    """Why the peer cannot be compared, in pip's words; None if it can be.

    Args:
        ask: Whether to ask pip, which may need the network.
    """
    try:
        maker()
    except ImportError as error:
        found = f"it cannot be imported ({error})"
    else:
        return None
    if not ask:
        return found
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", PEER]
    try:
        done = subprocess.run(pip, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return f"{found}; `pip install {PEER}` gave no answer in two minutes"
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    if not errors:
        return f"{found}; `pip install {PEER}` would install it"
    reason = re.sub(r"(?<!\w)/\S+", "...", errors[-1].removeprefix("ERROR:").strip())
    return f"{found}; `pip install {PEER}` fails: {reason}"


def maker() -> Callable[[list[Any], str | None], Any]:
    """A factory of its controllers, which take the same two calls as ours.

    Raises:
        ImportError: The package is not installed.
    """
    peer = importlib.import_module(f"{PEER}.population.population")
    winner = importlib.import_module(
        f"{PEER}.population.mutators.winner_take_all_genetic"
    )

    def make(initial: list[Any], log_dir: str | None) -> Any:
        mutator = winner.WinnerTakeAllGenetic(copy.deepcopy, steps_per_exploit=10**9)
        return peer.PopulationController(initial, mutator, log_dir)

    return make
