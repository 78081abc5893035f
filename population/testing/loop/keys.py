"""A question about randomness: are the random numbers of each step new ones?"""

from __future__ import annotations

from population.testing.loop.dependence import KEY, Flow
from population.testing.loop.finding import CONSTANT_KEY, Finding
from population.testing.loop.trial import Loop, Run


def constant(loop: Loop, flow: Flow, run: Run) -> list[Finding]:
    """Random numbers that depend on nothing that a step could change."""
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


def _advice(loop: Loop) -> str:
    if KEY in loop.takes:
        return "Draw them from the key that step is given."
    return (
        "Let step take a key, step(state, meta_params, key), and pass worker.key; or "
        "split the key in the state at each step and return the new one."
    )
