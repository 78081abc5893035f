"""Checks of randomness: is it new at each step, and different in a copy?"""

from __future__ import annotations

from population.testing.loop.dependence import KEY, Flow
from population.testing.loop.finding import CONSTANT_KEY, Finding
from population.testing.loop.trial import Loop, Run


def constant(loop: Loop, flow: Flow, run: Run) -> list[Finding]:
    """Findings for random numbers that depend on nothing that a step changes."""
    still = run.still()
    moving = run.states[0].keys() - still | {KEY}
    found = []
    for draw in flow.draws:
        if draw.uses & moving:
            continue
        kept = sorted(f"state{place}" for place in draw.uses & still)
        source = f"{kept[0]}, which no step changes" if kept else "a fixed key"
        message = (
            f"It draws the same random numbers at each step, from {source}. "
            f"{_advice(loop)}"
        )
        found.append(Finding(CONSTANT_KEY, draw.where or "step", message))
    return found


def copied(flow: Flow, run: Run) -> list[str]:
    """Notes on random numbers that depend on the state alone.

    A branch copies the state, so that donor and copy draw the same numbers.
    """
    moving = run.states[0].keys() - run.still()
    found = []
    for draw in flow.draws:
        places = sorted(f"state{place}" for place in draw.uses & moving)
        if places and KEY not in draw.uses:
            where = f"The noise of {draw.where}" if draw.where else "Its noise"
            found.append(
                f"{where} depends on {' and '.join(places[:2])}, which a branch "
                "copies: donor and copy then see the same noise. Draw from worker.key, "
                "or fold the slot in after each worker.restore: "
                "jax.random.fold_in(key, worker.worker_id)."
            )
    return found


def _advice(loop: Loop) -> str:
    if KEY in loop.takes:
        return "Draw them from the key that step is given."
    return (
        "Let step take a key, step(state, meta_params, key), and pass worker.key; or "
        "split the key in the state at each step and return the new one."
    )
