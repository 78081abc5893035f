"""A 3x3 convolution as one matrix product: it keeps its speed when members are stacked.

On a CPU, XLA's own convolution is more than ten times slower inside a loop of the
program, or with a kernel for each member. Shifted slices beside each other, times the
kernel as a matrix, are not. The parameters are those of `flax.linen.Conv`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_SIDE = 3


class PatchConv(nn.Module):
    """A 3x3 convolution with padding "SAME" and a bias.

    Attributes:
        features: Channels that come out.
        strides: In both directions.
    """

    features: int
    strides: int = 1

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `[B, H, W, C]` to `[B, ceil(H / strides), ..., features]`."""
        channels = images.shape[-1]
        shape = (_SIDE, _SIDE, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        patches = _patches(images, self.strides)
        *places, size = patches.shape
        product = patches.reshape(-1, size) @ kernel.reshape(size, self.features)
        return product.reshape(*places, self.features) + bias


def _patches(images: jax.Array, stride: int) -> jax.Array:
    """The nine pixels around each place, beside each other: `[B, h, w, 9 * C]`."""
    height, width = images.shape[1:3]
    sides, strides = (_SIDE, _SIDE), (stride, stride)
    pads = lax.padtype_to_pads((height, width), sides, strides, "SAME")
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    down, right = -(-height // stride), -(-width // stride)
    shifted = [
        padded[:, y : y + stride * down : stride, x : x + stride * right : stride]
        for y in range(_SIDE)
        for x in range(_SIDE)
    ]
    cut = [part[:, :down, :right] for part in shifted]
    return jnp.concatenate(cut, axis=-1)
