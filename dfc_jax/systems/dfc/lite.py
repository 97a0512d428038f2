"""A network for a CPU."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from dfc_jax.nets.blocks import (
    ZEROS,
    ConvNorm,
    Residual,
    depth_to_space,
    space_to_depth,
    upsample,
)
from dfc_jax.ops.sampling import bilinear_sample
from dfc_jax.types import Array

# The lite network predicts target coordinates in units of this share of the crop's side
# (40 pixels of 128), about the spread of a face's pixels around the centre.
UNIT = 0.3125


def beside(source: Array, target: Array) -> Array:
    """The channels of two codes (B, H, W, C) and (B or 1, H, W, D), one after the other."""
    target = jnp.broadcast_to(target, (*source.shape[:3], target.shape[-1]))
    return jnp.concatenate([source, target], axis=-1)


class LiteDecoder(nn.Module):
    """One trunk with skips from the source's encoder and two heads at half size.

    `widths` and `descriptors` as in the encoder; `depths`: residual blocks at 1/2, 1/4, 1/8 and
    1/16 size. With descriptors, `match` says at 1/8 size where each pixel lands and what is there,
    and the trunk learns what to add to that. With details, at 1/4 size, those of the source are
    held against those of the target where they are said to land, and the landing is corrected,
    `refinements` times.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    descriptors: int = 0
    details: int = 0
    refinements: int = 0

    @nn.compact
    def __call__(
        self, source: Array, target: Array, skips: Sequence[Array], train: bool
    ) -> tuple[Array, Array]:
        landing, skips = None, list(skips)
        (source, own, detail), (target, other, wanted) = map(self._unpack, (source, target))
        if self.descriptors:
            landing, found = match(own, other)
            skips[-1] = jnp.concatenate([skips[-1], own, found, landing.astype(own.dtype)], -1)
        x = ConvNorm(self.widths[-1], kernel=1)(beside(source, target), train)
        for _ in range(self.depths[-1]):
            x = Residual()(x, train)
        trunk = []
        for width, depth, skip in zip(
            self.widths[-2::-1], self.depths[-2::-1], skips[::-1], strict=True
        ):
            x = depth_to_space(nn.Conv(4 * width, (1, 1), kernel_init=ZEROS, dtype=x.dtype)(x))
            x = ConvNorm(width)(jnp.concatenate([x, skip], axis=-1), train)
            for _ in range(depth):
                x = Residual()(x, train)
            trunk.append(x)
        # bfloat16 would round a flow to a quarter of a pixel.
        heads = nn.Conv(4, (3, 3), kernel_init=ZEROS, name="heads")(x.astype(jnp.float32))
        where, logits = jnp.split(heads, 2, axis=-1)
        if landing is not None:
            where += jax.image.resize(landing, where.shape, "bilinear")
        for _ in range(self.refinements):
            features = jnp.concatenate([detail, trunk[1]], axis=-1)
            where += upsample(Correction()(where, features, wanted, train))
        return target_to_flow(upsample(where)), upsample(logits)

    def _unpack(self, code: Array) -> tuple[Array, Array, Array]:
        """The code proper, the descriptors at twice and the details at four times its size."""
        n = code.shape[-1] - 4 * self.descriptors - 16 * self.details
        own, described, detailed = jnp.split(code, [n, n + 4 * self.descriptors], axis=-1)
        return own, depth_to_space(described), depth_to_space(depth_to_space(detailed))


class Correction(nn.Module):
    """What to add to a landing, seeing what the target shows there.

    One round of iterative refinement (Teed & Deng, RAFT, 2020, section 3.3), with the target's
    features themselves in place of correlations, and layers of its own.
    """

    @nn.compact
    def __call__(self, where: Array, features: Array, detail: Array, train: bool) -> Array:
        """
        Args:
          where: (B, 2H, 2W, 2) target coordinates as in `target_to_flow`.
          features: (B, H, W, C) of the source.
          detail: (B or 1, H, W, D) features of the target.

        Returns:
          (B, H, W, 2), in the units of `where`; zero at the start of a training.
        """
        batch, height, width, _ = features.shape
        coarse = where.reshape(batch, height, 2, width, 2, 2).mean(axis=(2, 4))
        coarse = lax.stop_gradient(coarse)
        pixels = jnp.array([width, height]) * (UNIT * coarse + 0.5) - 0.5
        detail = jnp.broadcast_to(detail, (batch, *detail.shape[1:]))
        expected = jax.vmap(bilinear_sample)(detail, pixels)
        both = [a.astype(features.dtype) for a in (features, expected, coarse)]
        x = ConvNorm(2 * detail.shape[-1])(jnp.concatenate(both, axis=-1), train)
        for _ in range(2):
            x = Residual()(x, train)
        x = x.astype(jnp.float32)
        return nn.Conv(2, (3, 3), kernel_init=ZEROS, name="correction")(x)


def match(source: Array, target: Array) -> tuple[Array, Array]:
    """Where each cell of the source lands in the target, by the likeness of their descriptors.

    Every cell of the target counts with the softmax of its scaled dot product with that of the
    source (Xu et al., GMFlow, 2022, eqs. 1 to 3).

    Args:
      source: (B, H, W, C) descriptors.
      target: (B or 1, H, W, C).

    Returns:
      Target coordinates (B, H, W, 2), float32, in the units of `target_to_flow`, and the
      descriptors (B, H, W, C) found there.
    """
    batch, height, width, channels = source.shape
    own = source.reshape(batch, -1, channels)
    other = jnp.broadcast_to(target, source.shape).reshape(batch, -1, channels)
    likeness = jnp.einsum("bnc,bmc->bnm", own, other, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(likeness / math.sqrt(channels), axis=-1)
    x, y = ((jnp.arange(n) + 0.5) / n - 0.5 for n in (width, height))
    cells = jnp.stack(jnp.meshgrid(x, y, indexing="xy"), axis=-1).reshape(-1, 2) / UNIT
    landing = (weights @ cells).reshape(batch, height, width, 2)
    return landing, (weights.astype(other.dtype) @ other).reshape(source.shape)


def target_to_flow(where: Array) -> Array:
    """Target coordinates (B, S, S, 2), 0 at the centre, in units of `UNIT` S pixels, to flow."""
    size = where.shape[1]
    axis = jnp.arange(size, dtype=where.dtype)
    pixels = jnp.stack(jnp.meshgrid(axis, axis, indexing="xy"), axis=-1)
    return (size - 1) / 2.0 + UNIT * size * where - pixels


class LiteEncoder(nn.Module):
    """Convolutions and residual blocks; `widths` and `depths` at 1/2, 1/4, 1/8 and 1/16 size.

    The skips are the features at 1/2, 1/4 and 1/8 size. With `descriptors` and `details`, the code
    ends with that many channels at 1/8 size, for `match`, and at 1/4 size, for the
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
