"""Hyperparameters as text: short, and in any form that a run may have."""

from __future__ import annotations

import numpy as np

from population.report import hyperparameters


def test_hyperparameters_are_read_in_any_form() -> None:
    """Nested ones have a path, plain ones a name of their own, words are no numbers."""
    meta = {"a": {"b": 1.5}, "c": [2, True], "d": "adam"}
    assert hyperparameters.numbers(meta) == {"a/b": 1.5, "c/0": 2.0, "c/1": 1.0}
    assert hyperparameters.numbers(0.1) == {"meta_params": 0.1}
    assert hyperparameters.one_line(meta) == "a/b 1.5  c/0 2  c/1 True  d adam"


def test_floats_have_three_significant_digits() -> None:
    """One that would read 1, as a momentum may, has three of its distance to 1."""
    assert [hyperparameters.short(x) for x in (0.123456, 1234.5, 1.0, 2e-7)] == [
        "0.123",
        "1.23e+03",
        "1",
        "2e-07",
    ]
    assert [hyperparameters.short(x) for x in (0.9994, 0.99954, 0.9998768)] == [
        "0.999",
        "0.99954",
        "0.999877",
    ]
    assert hyperparameters.short(np.float32(0.98765)) == "0.988"
    assert [hyperparameters.short(x) for x in (12345, True, "a\nb", None)] == [
        "12345",
        "True",
        "a b",
        "None",
    ]
    assert hyperparameters.short(float("nan")) == "nan"
    assert hyperparameters.short("weights-\udcff").encode().startswith(b"weights-")
