"""Runs of every released format, and what they hold."""
