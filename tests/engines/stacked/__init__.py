"""Tests of the parts of the stacked engine."""
