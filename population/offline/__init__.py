"""Recorded runs: gone on from in another folder, or decided anew."""
