"""Parts of JAX that have different names in different releases."""

from __future__ import annotations

from typing import Any

import jax
import jax.experimental

_newer: Any = jax
_older: Any = jax.experimental
x64 = (_newer if hasattr(jax, "enable_x64") else _older).enable_x64
