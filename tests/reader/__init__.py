"""Tests of the reader of recorded runs."""
