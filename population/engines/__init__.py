"""Where the members train: one engine a file."""
