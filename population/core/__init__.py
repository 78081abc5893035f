"""The rules of a run: its state, and the records with which each call changes it."""
