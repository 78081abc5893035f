"""Tests of the mutators, one file per policy, and of their common promises."""
