"""Encoders: a crop (B, S, S, 3) to a code (B, S/16, S/16, C) and the features passed to skips."""

import flax.linen as nn
import jax.numpy as jnp

from dfc_jax.nets.blocks import (
    ZEROS,
    Conv3x3,
    ConvNorm,
    Residual,
    depth_to_space,
    space_to_depth,
)
from dfc_jax.types import Array


class PaperEncoder(nn.Module):
    """Eight 3x3 convolutions with ReLU, every second one of stride 2 (the table in the paper).

    `widths` are the channels at full, 1/2, 1/4, 1/8 and 1/16 size; the last layer of each size is
    the one that halves it, so the code has the last width. There are no skips.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, tuple[Array, ...]]:
        for features, smaller in zip(self.widths[:-1], self.widths[1:], strict=True):
            x = nn.relu(Conv3x3(features)(x))
            x = nn.relu(Conv3x3(smaller, stride=2)(x))
        return x, ()


class LiteEncoder(nn.Module):
    """Convolutions and residual blocks; `widths` and `depths` at 1/2, 1/4, 1/8 and 1/16 size.

    The skips are the features at 1/2, 1/4 and 1/8 size. With `descriptors` and `details`, the code
    ends with that many channels at 1/8 size, for `decoder.match`, and at 1/4 size, for the
    decoder's refinement, as `space_to_depth` packs them.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    descriptors: int = 0
    details: int = 0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, tuple[Array, ...]]:
        x = space_to_depth(x)
        features = []
        for level, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            x = ConvNorm(width, stride=1 if level == 0 else 2)(x, train)
            for _ in range(depth):
                x = Residual()(x, train)
            features.append(x)
        if self.descriptors:
            wide = nn.Conv(4 * self.descriptors, (1, 1), kernel_init=ZEROS, dtype=x.dtype)(x)
            both = jnp.concatenate([depth_to_space(wide), features[-2]], axis=-1)
            described = ConvNorm(self.descriptors, kernel=1, relu=False)(both, train)
            x = jnp.concatenate([x, space_to_depth(described)], axis=-1)
        if self.details:
            detailed = ConvNorm(self.details, kernel=1, relu=False)(features[1], train)
            x = jnp.concatenate([x, space_to_depth(space_to_depth(detailed))], axis=-1)
        return x, tuple(features[:-1])
