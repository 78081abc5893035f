"""Where a run is recorded: one store a file."""
