"""The checks of `check_loop`, one subject per module."""
