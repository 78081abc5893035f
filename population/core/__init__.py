"""The rules of a run: what is known of it, and what a call changes."""
