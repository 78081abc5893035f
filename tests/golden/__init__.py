"""Journals of random scripts, as recorded by one version of the library."""
