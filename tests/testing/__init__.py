"""Tests of the kit for those who write mutators."""
