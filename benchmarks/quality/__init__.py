"""How good the results are: many seeds, with intervals."""
