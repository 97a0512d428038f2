"""The network of Yu et al. (2017)."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from dfc_jax.nets.blocks import Conv3x3, Deconv3x3
from dfc_jax.nets.registry import flag, register, wholes
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

# Threshold of the ReLU in the tail of the flow decoder. With 0, one of the two channels died: after
# a short training it was 0 in 99 % of the pixels, and hardly had a gradient.
KNEE_PX = -16.0


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperSpec(NetSpec):
    """The paper's network.

    Attributes:
      widths: channels of the encoders at full, 1/2, 1/4, 1/8 and 1/16 size.
      tail: channels of the last layers of the flow decoder; the last number is 2.
      strict: the plain ReLU also where the flow decoder's tail has two channels.
    """

    kind: ClassVar[str] = "dfc/paper"

    widths: tuple[int, ...] = wholes(1, MAX_CHANNELS, (5, 5), (16, 32, 64, 128, 256))
    tail: tuple[int, ...] = wholes(1, MAX_CHANNELS, (1, MAX_LAYERS), (2, 2, 2))
    strict: bool = flag(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tail[-1] != 2:
            raise ValueError("the last number of tail must be 2")
        # The decoder of matchability starts at half of it, and halves that three times.
        if self.widths[-1] < 16:
            raise ValueError("the last number of widths must be 16 or more")

    def encoder(self) -> "PaperEncoder":
        """One of the two encoders."""
        return PaperEncoder(self.widths)

    def module(self) -> "PaperNetwork":
        """The network."""
        return PaperNetwork(self)

    @classmethod
    def from_untagged(cls, fields: dict[str, Any]) -> dict[str, Any] | None:
        """See `Spec`."""
        return of_untagged(cls, "paper", fields)


class PaperNetwork(TwoBranch):
    """Two encoders without skips, a decoder of the flow and one of matchability."""

    spec: PaperSpec

    def setup(self) -> None:
        super().setup()
        width = self.spec.widths[-1]
        self.flow_decoder = PaperDecoder(width, self.spec.tail, self.spec.strict)
        self.matchability_decoder = PaperDecoder(width // 2, (2,))

    def decode(self, source: Array, target: Array, skips: Sequence[Array], train: bool) -> Outputs:
        """See `TwoBranch`."""
        both = beside(source, target)
        return Outputs(self.flow_decoder(both), self.matchability_decoder(both))


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


class PaperDecoder(nn.Module):
    """Four triplets (convolution, convolution, deconvolution of stride 2) and a tail.

    The first triplet has 2w, w, w channels with w = `width`; each next one half of that. ReLU
    follows the first and third layer of a triplet and all layers of the tail but the last. Where
    the tail has two channels it is max(x, `KNEE_PX`), which, but for zero padding at the border,
    equals max(x, 0) with other biases. With `strict` it is max(x, 0) there too, as in the paper.
    """

    width: int
    tail: tuple[int, ...]
    strict: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in (self.width, self.width // 2, self.width // 4, self.width // 8):
            x = nn.relu(Conv3x3(2 * width)(x))
            x = Conv3x3(width)(x)
            x = nn.relu(Deconv3x3(width)(x))
        # bfloat16 would round a flow to a quarter of a pixel.
        x = x.astype(jnp.float32)
        for features in self.tail[:-1]:
            knee = KNEE_PX if features == 2 and not self.strict else 0.0
            x = jnp.maximum(Conv3x3(features)(x), knee)
        return Conv3x3(self.tail[-1])(x)
