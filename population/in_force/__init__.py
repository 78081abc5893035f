"""Checks which meta_params are in force in a training state, and warns of others.

`injected` finds the numbers in a state, `restoring` copies them into a restored one,
`findings` compares them with the meta_params, `watch` does so for a worker, and
`dataflow` finds which results of a function depend on an input.
"""
