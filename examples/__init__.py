"""Runnable experiments; each folder answers one question."""
