"""Decoders: the two codes, side by side, to flow in pixels and matchability logits."""

import flax.linen as nn
import jax.numpy as jnp

from dfc_jax.nets.blocks import (
    ZEROS,
    Conv3x3,
    ConvNorm,
    Deconv3x3,
    Residual,
    depth_to_space,
    upsample,
)
from dfc_jax.types import Array

# The lite network predicts template coordinates in units of this share of the crop's side
# (40 pixels of 128), about the spread of a face's pixels around the centre.
UNIT = 0.3125


class PaperDecoder(nn.Module):
    """Four triplets (convolution, convolution, deconvolution of stride 2) and a tail.

    The first triplet has 2w, w, w channels with w = `width`; each next one half of that. ReLU
    follows the first and third layer of a triplet and all layers of the tail but the last.
    """

    width: int
    tail: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in (self.width, self.width // 2, self.width // 4, self.width // 8):
            x = nn.relu(Conv3x3(2 * width)(x))
            x = Conv3x3(width)(x)
            x = nn.relu(Deconv3x3(width)(x))
        # bfloat16 would round a flow to a quarter of a pixel.
        x = x.astype(jnp.float32)
        for features in self.tail[:-1]:
            x = nn.relu(Conv3x3(features)(x))
        return Conv3x3(self.tail[-1])(x)


class LiteDecoder(nn.Module):
    """One trunk with skips from the source's encoder and two heads at half size.

    `widths` as in the encoder; `depths`: residual blocks at 1/2, 1/4, 1/8 and 1/16 size.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]

    @nn.compact
    def __call__(self, code: Array, skips: tuple[Array, ...], train: bool) -> tuple[Array, Array]:
        x = ConvNorm(self.widths[-1], kernel=1)(code, train)
        for _ in range(self.depths[-1]):
            x = Residual()(x, train)
        for width, depth, skip in zip(
            self.widths[-2::-1], self.depths[-2::-1], skips[::-1], strict=True
        ):
            x = depth_to_space(nn.Conv(4 * width, (1, 1), kernel_init=ZEROS, dtype=x.dtype)(x))
            x = ConvNorm(width)(jnp.concatenate([x, skip], axis=-1), train)
            for _ in range(depth):
                x = Residual()(x, train)
        # bfloat16 would round a flow to a quarter of a pixel.
        heads = nn.Conv(4, (3, 3), kernel_init=ZEROS, name="heads")(x.astype(jnp.float32))
        template, logits = jnp.split(upsample(heads), 2, axis=-1)
        return template_to_flow(template), logits


def template_to_flow(template: Array) -> Array:
    """Template coordinates (B, S, S, 2), 0 at the centre, in units of `UNIT` S pixels, to flow."""
    size = template.shape[1]
    axis = jnp.arange(size, dtype=template.dtype)
    pixels = jnp.stack(jnp.meshgrid(axis, axis, indexing="xy"), axis=-1)
    return (size - 1) / 2.0 + UNIT * size * template - pixels
