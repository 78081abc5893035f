"""Scripts that measure; `results/` holds the results, `README.md` shows them."""
