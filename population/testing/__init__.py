"""For those who write a mutator: check its promises, and see it at work in no time.

`check_mutator` plays reports of every kind to a mutator and names the promise that it
breaks. `simulate` trains a synthetic problem with it, on a clock that waits for nobody.
Neither needs a test framework.
"""

from population.testing.broken import BrokenPromise as BrokenPromise
from population.testing.check import check_mutator as check_mutator
from population.testing.clock import Clock as Clock
from population.testing.simulation import Problem as Problem
from population.testing.simulation import simulate as simulate
