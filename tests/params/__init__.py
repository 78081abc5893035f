"""Tests of the params stores: what all promise, and what each does alone."""
