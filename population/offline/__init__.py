"""Recorded runs: `fork` continues one elsewhere, `replay` repeats its decisions."""
