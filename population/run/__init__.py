"""A run that is open in this process: its lock, its transactions, their effects."""
