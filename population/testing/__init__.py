"""Checks of what you write: a mutator and its promises, a training loop and its traps.

`check_mutator` plays reports of every kind to a mutator and names the promise that it
breaks. `simulate` trains a synthetic problem with it, on a clock that waits for nobody.
`check_loop` runs your `init` and your training step, and says what would go wrong in a
population. None needs a test framework; only `check_loop` needs JAX.
"""

from population.testing.broken import BrokenPromise as BrokenPromise
from population.testing.check import check_mutator as check_mutator
from population.testing.clock import Clock as Clock
from population.testing.doctor import check_loop as check_loop
from population.testing.loop.finding import Finding as Finding
from population.testing.loop.finding import LoopReport as LoopReport
from population.testing.simulation import Problem as Problem
from population.testing.simulation import simulate as simulate
