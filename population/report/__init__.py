"""Shows a run to people: progress bars, a table, pictures."""
