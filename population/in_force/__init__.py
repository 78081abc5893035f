"""What of meta_params is in force in a training state, and what is said if it is not.

`injected` finds the numbers, `restoring` carries them over, `findings` compares them
with what was assigned, `watch` does so for a worker, `dataflow` sees what depends on
them.
"""
