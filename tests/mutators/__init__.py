"""Tests of the mutators, one file per policy, and of what all of them promise."""
