"""Tests of the pictures: by what is drawn, not by pixels."""
