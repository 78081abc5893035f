"""Tests of the params stores: the common promises, and those of each store."""
