"""What of meta_params is in force in a training state, and what is said if it is not.

`injected` finds the numbers, `restoring` carries them over, `watch` compares them with
what was assigned, `dataflow` sees what depends on them.
"""
