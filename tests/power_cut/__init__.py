"""Power cuts: what a program writes is recorded, and cut off at any moment.

`recorder.c` records the writes, `record` compiles it and reads its records, `disk` is
the model of a disk that may forget what was not synced. `child` is the run whose writes
are recorded, and `judging` looks at what a cut has left of it.
"""
