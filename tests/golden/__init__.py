"""Journals of random scripts as one version of the library has written them."""
