"""Training functions that write down the JAX settings under which they run.

They load JAX when they are called, like programs that start quickly.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np

from population import Worker

HAD_JAX = "jax" in sys.modules


def write_down(folder: str, brought: Any, worker: Worker) -> None:
    """Write the settings in force to a file."""
    import jax
    import jax.numpy as jnp

    del worker
    names = "enable_x64", "default_matmul_precision", "numpy_dtype_promotion"
    found: dict[str, Any] = {
        name: str(jax.config.values[f"jax_{name}"]) for name in (*names, "debug_infs")
    }
    found["had jax"] = HAD_JAX
    found["made"] = str(jnp.asarray(np.ones(1)).dtype)
    found["brought"] = str(getattr(brought, "dtype", None))
    (pathlib.Path(folder) / f"{os.getpid()}.json").write_text(json.dumps(found))


def train(folder: pathlib.Path, brought: Any = None) -> functools.partial[None]:
    """A training function that writes its settings to a folder."""
    return functools.partial(write_down, str(folder), brought)
