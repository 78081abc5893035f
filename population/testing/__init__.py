"""Tests what users write: a mutator against its promises, a training loop for mistakes.

`check_mutator` sends reports of every kind to a mutator, and names the promise that it
breaks. `simulate` trains a synthetic problem with a mutator, on a simulated clock.
`check_loop` runs your `init` and your training step, and finds what would fail in a
population. No test framework is needed; only `check_loop` needs JAX.
"""

from population.testing.broken import BrokenPromise as BrokenPromise
from population.testing.check import check_mutator as check_mutator
from population.testing.clock import Clock as Clock
from population.testing.loop.check import check_loop as check_loop
from population.testing.loop.finding import Finding as Finding
from population.testing.loop.finding import LoopReport as LoopReport
from population.testing.report import LikelyMistake as LikelyMistake
from population.testing.report import MutatorReport as MutatorReport
from population.testing.report import MutatorWarning as MutatorWarning
from population.testing.simulation import Problem as Problem
from population.testing.simulation import simulate as simulate

__all__ = [
    "BrokenPromise",
    "Clock",
    "Finding",
    "LikelyMistake",
    "LoopReport",
    "MutatorReport",
    "MutatorWarning",
    "Problem",
    "check_loop",
    "check_mutator",
    "simulate",
]
