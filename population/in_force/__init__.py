"""Which meta_params are in force in a training state, and warnings if some are not.

`injected` finds the numbers in a state, `restoring` copies them into a restored one,
`findings` compares them with the meta_params, `watch` does so for a worker, and
`dataflow` finds out what depends on an input of a function.
"""
