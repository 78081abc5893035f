"""Reads a recorded run: as columns, by lineage, and its params."""
