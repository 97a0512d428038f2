"""A network that is quick on a CPU: matching of all cells, then local refinement, then edges."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from dfc_jax.nets.blocks import HE, ConvNorm, Residual, depth_to_space, space_to_depth, upsample
from dfc_jax.nets.registry import register, whole, wholes
from dfc_jax.ops.sampling import sample_features
from dfc_jax.systems.dfc.two_branch import (
    MAX_CHANNELS,
    MAX_LAYERS,
    NetSpec,
    Outputs,
    TwoBranch,
    beside,
    of_untagged,
)
from dfc_jax.types import Array

# Target coordinates ("coords") are 0 at the centre of the crop, in units of this share of its side
# (40 pixels of 128), about the spread of a face's pixels around the centre.
UNIT = 0.3125
MAX_REFINEMENTS = 8
# A hundredth of He's standard deviation: large initial coords take long to train away.
SMALL = nn.initializers.variance_scaling(1e-4 * 2.0, "fan_in", "truncated_normal")


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class LiteSpec(NetSpec):
    """The network for a CPU.

    Attributes:
      widths: channels at 1/2, 1/4, 1/8 and 1/16 size.
      depths: residual blocks of the encoders at each of these sizes.
      decoder_depths: residual blocks of the decoder at each of these sizes.
      descriptors: channels by which source and target are correlated at 1/8 size; 0 for no
        matching.
      details: channels of the target by which the flow is refined at 1/4 size.
      refinements: how often it is refined.
      edges: channels of the last step, which adds at full size what lies between the pixels of 1/2
        size; 0 to interpolate there.
    """

    kind: ClassVar[str] = "dfc/lite"

    widths: tuple[int, ...] = wholes(1, MAX_CHANNELS, (4, 4))
    depths: tuple[int, ...] = wholes(0, MAX_LAYERS, (4, 4))
    decoder_depths: tuple[int, ...] = wholes(0, MAX_LAYERS, (4, 4))
    descriptors: int = whole(0, 0, MAX_CHANNELS)
    details: int = whole(0, 0, MAX_CHANNELS)
    refinements: int = whole(0, 0, MAX_REFINEMENTS)
    edges: int = whole(0, 0, MAX_CHANNELS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.branches == 1 and (self.descriptors or self.details):
            raise ValueError("a network of one branch has nothing to match")
        if bool(self.details) != bool(self.refinements):
            raise ValueError("details and refinements belong together; give both or neither")

    def encoder(self) -> "LiteEncoder":
        """One of the two encoders."""
        return LiteEncoder(self.widths, self.depths, self.descriptors, self.details)

    def module(self) -> "LiteNetwork":
        """The network."""
        return LiteNetwork(self)

    def extends(self) -> tuple[Self, ...]:
        """Without the last step, and without refinement as well."""
        refined = dataclasses.replace(self, edges=0)
        return refined, dataclasses.replace(refined, details=0, refinements=0)

    @classmethod
    def from_untagged(cls, fields: dict[str, Any]) -> dict[str, Any] | None:
        """See `Spec`."""
        return of_untagged(cls, "lite", fields)


class LiteNetwork(TwoBranch):
    """Two encoders and one decoder of flow and matchability."""

    spec: LiteSpec

    def setup(self) -> None:
        super().setup()
        self.decoder = LiteDecoder(self.spec)

    def decode(self, source: Array, target: Array, skips: Sequence[Array], train: bool) -> Outputs:
        """See `TwoBranch`."""
        return Outputs(*self.decoder(source, target, skips, train))


class LiteEncoder(nn.Module):
    """Convolutions and residual blocks; `widths` and `depths` at 1/2, 1/4, 1/8 and 1/16 size.

    The skips are the features at 1/2, 1/4 and 1/8 size. With `descriptors` and `details`, the code
    ends with that many channels at 1/8 size, for `match`, and at 1/4 size, for the decoder's
    refinement, as `space_to_depth` packs them.
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
            wide = nn.Conv(4 * self.descriptors, (1, 1), kernel_init=HE, dtype=x.dtype)(x)
            both = jnp.concatenate([depth_to_space(wide), features[-2]], axis=-1)
            descriptors = ConvNorm(self.descriptors, kernel=1, relu=False)(both, train)
            x = jnp.concatenate([x, space_to_depth(descriptors)], axis=-1)
        if self.details:
            details = ConvNorm(self.details, kernel=1, relu=False)(features[1], train)
            x = jnp.concatenate([x, space_to_depth(space_to_depth(details))], axis=-1)
        return x, tuple(features[:-1])


class LiteDecoder(nn.Module):
    """One trunk with skips from the source's encoder, and two heads at 1/2 size.

    With descriptors, `match` computes coords at 1/8 size, and the flow head predicts what to add to
    them. With details, `UpdateBlock` adds to the coords at 1/4 size, `refinements` times. With
    edges, `EdgeBlock` adds to coords and logits at full size.
    """

    spec: LiteSpec

    @nn.compact
    def __call__(
        self, source: Array, target: Array, skips: Sequence[Array], train: bool
    ) -> tuple[Array, Array]:
        spec = self.spec
        matched_coords, skips = None, list(skips)
        source, source_descriptors, source_details = self._unpack(source)
        target, target_descriptors, target_details = self._unpack(target)
        if spec.descriptors:
            matched_coords, matched = match(source_descriptors, target_descriptors)
            found = source_descriptors, matched, matched_coords.astype(matched.dtype)
            skips[-1] = jnp.concatenate([skips[-1], *found], axis=-1)
        x = ConvNorm(spec.widths[-1], kernel=1)(beside(source, target), train)
        for _ in range(spec.decoder_depths[-1]):
            x = Residual()(x, train)
        trunk = []
        for width, depth, skip in zip(
            spec.widths[-2::-1], spec.decoder_depths[-2::-1], skips[::-1], strict=True
        ):
            x = depth_to_space(nn.Conv(4 * width, (1, 1), kernel_init=HE, dtype=x.dtype)(x))
            x = ConvNorm(width)(jnp.concatenate([x, skip], axis=-1), train)
            for _ in range(depth):
                x = Residual()(x, train)
            trunk.append(x)
        # bfloat16 would round a flow to a quarter of a pixel.
        heads = nn.Conv(4, (3, 3), kernel_init=SMALL, name="heads")(x.astype(jnp.float32))
        coords, logits = jnp.split(heads, 2, axis=-1)
        if matched_coords is not None:
            coords += upsample(matched_coords, coords.shape[1] // matched_coords.shape[1])
        hidden = trunk[1]
        for n in range(spec.refinements):
            # Weight files know the block by this name.
            update = UpdateBlock(name=f"Correction_{n}")
            features = jnp.concatenate([source_details, trunk[1]], axis=-1)
            delta_coords, hidden = update(coords, features, target_details, train)
            coords += upsample(delta_coords)
        full = upsample(jnp.concatenate([coords, logits], axis=-1))
        if spec.edges:
            edges = EdgeBlock(spec.edges, name="edge_block")
            features = jnp.concatenate([trunk[-1], skips[0]], axis=-1)
            full += edges(coords, logits, features, hidden, train)
        coords, logits = jnp.split(full, 2, axis=-1)
        return coords_to_flow(coords), logits

    def _unpack(self, code: Array) -> tuple[Array, Array, Array]:
        """The code proper, the descriptors at twice and the details at four times its size."""
        wide, deep = 4 * self.spec.descriptors, 16 * self.spec.details
        n = code.shape[-1] - wide - deep
        own, descriptors, details = jnp.split(code, [n, n + wide], axis=-1)
        return own, depth_to_space(descriptors), depth_to_space(depth_to_space(details))


class UpdateBlock(nn.Module):
    """One step of iterative refinement: what to add to coords, given the target's features there.

    As the update of RAFT (Teed & Deng, 2020, section 3.3), but with the target's features
    themselves in place of correlations, and with layers of its own in each step.
    """

    @nn.compact
    def __call__(
        self, coords: Array, features: Array, details: Array, train: bool
    ) -> tuple[Array, Array]:
        """
        Args:
          coords: (B, 2H, 2W, 2) as in `coords_to_flow`.
          features: (B, H, W, C) of the source.
          details: (B or 1, H, W, D) features of the target.

        Returns:
          delta_coords (B, H, W, 2), in the units of `coords`; zero at the start of a training; and
          the features (B, H, W, 2D) that they come from.
        """
        batch, height, width, _ = features.shape
        coarse = coords.reshape(batch, height, 2, width, 2, 2).mean(axis=(2, 4))
        # As in RAFT, no gradient flows back through the coords of the steps before.
        coarse = lax.stop_gradient(coarse)
        pixels = jnp.array([width, height]) * (UNIT * coarse + 0.5) - 0.5
        # All sources read from one target where they share it.
        shared = len(details)
        sampled = jax.vmap(sample_features)(details, pixels.reshape(shared, -1, 2))
        sampled = sampled.reshape(batch, height, width, -1)
        inputs = [a.astype(features.dtype) for a in (features, sampled, coarse)]
        x = ConvNorm(2 * details.shape[-1])(jnp.concatenate(inputs, axis=-1), train)
        for _ in range(2):
            x = Residual()(x, train)
        delta = nn.Conv(2, (3, 3), kernel_init=nn.initializers.zeros, name="correction")
        return delta(x.astype(jnp.float32)), x


class EdgeBlock(nn.Module):
    """What to add to coords and logits between the pixels of 1/2 size.

    The lids of an eye that closes meet in one line, across which the coords jump by the height of
    the open eye: interpolated from 1/2 size it stays half open.
    """

    channels: int

    @nn.compact
    def __call__(
        self, coords: Array, logits: Array, features: Array, hidden: Array, train: bool
    ) -> Array:
        """
        Args:
          coords, logits: (B, 2H, 2W, 2) each.
          features: (B, 2H, 2W, C) of the source.
          hidden: (B, H, W, D) of the step before.

        Returns:
          delta_coords and delta_logits (B, 4H, 4W, 4); zero at the start of a training.
        """
        found = lax.stop_gradient(jnp.concatenate([coords, logits], axis=-1))
        wide = nn.Conv(4 * self.channels, (1, 1), kernel_init=HE, dtype=hidden.dtype)(hidden)
        inputs = [features, depth_to_space(wide), found.astype(features.dtype)]
        x = jnp.concatenate(inputs, axis=-1)
        x = Residual()(ConvNorm(self.channels)(x, train), train)
        delta = nn.Conv(16, (3, 3), kernel_init=nn.initializers.zeros, name="correction")
        return depth_to_space(delta(x.astype(jnp.float32)))


def match(source: Array, target: Array) -> tuple[Array, Array]:
    """Global matching: for each cell of the source, the expected coords of its match.

    The expectation is over all cells of the target, by the softmax of the correlation of
    descriptors, scaled (Xu et al., GMFlow, 2022, eqs. 1 to 3).

    Args:
      source: (B, H, W, C) descriptors.
      target: (B or 1, H, W, C).

    Returns:
      coords (B, H, W, 2), float32, as in `coords_to_flow`, and the expected descriptors of the
      target (B, H, W, C).
    """
    batch, height, width, channels = source.shape
    own = source.reshape(batch, -1, channels)
    other = jnp.broadcast_to(target, source.shape).reshape(batch, -1, channels)
    correlation = jnp.einsum("bnc,bmc->bnm", own, other, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(correlation / math.sqrt(channels), axis=-1)
    x, y = ((jnp.arange(n) + 0.5) / n - 0.5 for n in (width, height))
    grid = jnp.stack(jnp.meshgrid(x, y, indexing="xy"), axis=-1).reshape(-1, 2) / UNIT
    coords = (weights @ grid).reshape(batch, height, width, 2)
    return coords, (weights.astype(other.dtype) @ other).reshape(source.shape)


def coords_to_flow(coords: Array) -> Array:
    """Coords (B, S, S, 2), 0 at the centre of the target, in units of `UNIT` S pixels, to flow."""
    size = coords.shape[1]
    axis = jnp.arange(size, dtype=coords.dtype)
    pixels = jnp.stack(jnp.meshgrid(axis, axis, indexing="xy"), axis=-1)
    return (size - 1) / 2.0 + UNIT * size * coords - pixels
