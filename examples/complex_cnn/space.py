"""The search space of the ten hyperparameters, and a curriculum through it."""

from __future__ import annotations

from typing import Any

from population.space import Integer, LogUniform, OneMinusLogUniform, Uniform

NEUTRAL = {
    "hue": 0.0,
    "contrast_low": 1.0,
    "contrast_high": 1.0,
    "saturation_low": 1.0,
    "saturation_high": 1.0,
}
FULL = {
    "hue": 0.3,
    "contrast_low": 0.5,
    "contrast_high": 1.5,
    "saturation_low": 0.5,
    "saturation_high": 1.5,
}
PHASES = 6


def space(max_batch: int) -> dict[str, Any]:
    """The search space; low is at most 1 and high at least 1, so that low <= high.

    Args:
        max_batch: The largest batch size, at least 2; the smallest is an eighth of it.
    """
    return {
        "learning_rate": LogUniform(1e-5, 1e-1, start=(1e-4, 1e-2)),
        "beta1": OneMinusLogUniform(0.5, 0.99),
        "beta2": OneMinusLogUniform(0.9, 0.9999),
        "hue": Uniform(0.0, 0.5),
        "contrast_low": Uniform(0.2, 1.0),
        "contrast_high": Uniform(1.0, 2.0),
        "saturation_low": Uniform(0.0, 1.0),
        "saturation_high": Uniform(1.0, 2.0),
        "label_smoothing": Uniform(0.0, 0.3),
        "batch_size": Integer(max(1, max_batch // 8), max_batch, logarithmic=True),
    }


def curriculum(steps: int, max_batch: int) -> dict[int, dict[str, Any]]:
    """The meta_params by step: augmentation rises from nothing to full strength.

    Args:
        steps: The step at which the augmentation reaches full strength.
        max_batch: The largest batch size; half of it is used.
    """
    constant = {
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "label_smoothing": 0.05,
        "batch_size": max(1, max_batch // 2),
    }
    shares = {
        phase * steps // (PHASES - 1): phase / (PHASES - 1) for phase in range(PHASES)
    }
    return {
        step: constant
        | {name: none + share * (FULL[name] - none) for name, none in NEUTRAL.items()}
        for step, share in shares.items()
    }
