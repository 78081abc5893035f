"""Scripts that measure; `results/` holds what they found, `README.md` shows it."""
