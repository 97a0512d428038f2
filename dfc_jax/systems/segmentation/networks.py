"""The two-stream network as pure functions, `init` and `apply`.

One encoder, and two decoders of what it sees (the paper's merger of DeconvNet and FCN-8s): a stream
of transposed convolutions, which draws edges, and a stream of coarse scores of several sizes, made
larger bilinearly and added up, which knows the surroundings. A convolution over both makes one
logit a pixel. Crops are (B, S, S, 3) RGB in [0, 1], S a multiple of `MULTIPLE` (128 in practice).
"""

import dataclasses
import functools
from typing import ClassVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from dfc_jax.nets.blocks import (
    HE,
    ConvNorm,
    depth_to_space,
    space_to_depth,
    upsample,
)
from dfc_jax.nets.registry import Spec, Variables, register, whole, wholes
from dfc_jax.types import Array

MAX_CHANNELS, MAX_LAYERS = 4096, 8
# Edges of crops are multiples of this: the deepest size is 1/32.
MULTIPLE = 32


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoStreamSpec(Spec):
    """The sizes of the network; one of the streams may be left out.

    Attributes:
      widths: channels of the encoder at 1/2, 1/4, 1/8, 1/16 and 1/32 size, as many as there are.
      depths: convolutions there.
      deconvolved: channels of the deconvolution stream at 1/2, 1/4 and so on, one size less than
        the encoder has; empty without this stream.
      context: channels of each score of the bilinear stream; 0 without this stream.
      merged: channels where the streams are one.
    """

    kind: ClassVar[str] = "segmentation/two_stream"

    widths: tuple[int, ...] = wholes(1, MAX_CHANNELS, (2, 5))
    depths: tuple[int, ...] = wholes(1, MAX_LAYERS, (2, 5))
    deconvolved: tuple[int, ...] = wholes(1, MAX_CHANNELS, (0, 4), ())
    context: int = whole(0, 0, MAX_CHANNELS)
    merged: int = whole(16, 1, MAX_CHANNELS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.depths) != len(self.widths):
            raise ValueError("widths and depths are of the same sizes; give as many of both")
        if self.deconvolved and len(self.deconvolved) != len(self.widths) - 1:
            raise ValueError("deconvolved needs one size less than widths, or none")
        if not (self.deconvolved or self.context):
            raise ValueError("a network needs a stream; give deconvolved, or context")

    def module(self) -> "TwoStream":
        """The network."""
        return TwoStream(self)

    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """A crop."""
        return (jax.ShapeDtypeStruct((1, MULTIPLE, MULTIPLE, 3), jnp.float32),)


class TwoStream(nn.Module):
    """Encoder, streams, and one logit (B, S, S) a pixel."""

    spec: TwoStreamSpec

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        spec = self.spec
        features = Encoder(spec.widths, spec.depths, name="encoder")(x, train)
        streams = []
        if spec.deconvolved:
            streams.append(Deconvolution(spec.deconvolved, name="deconvolution")(features, train))
        if spec.context:
            streams.append(Context(spec.context, name="context")(features, train))
        x = ConvNorm(spec.merged)(jnp.concatenate(streams, axis=-1), train)
        # bfloat16 would round probabilities near 0 and 1.
        logits = nn.Conv(4, (3, 3), kernel_init=HE, name="logits")(x.astype(jnp.float32))
        return depth_to_space(logits)[..., 0]


class Encoder(nn.Module):
    """Features at 1/2, 1/4 and so on; `widths` and `depths` at each of these sizes."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> list[Array]:
        x, features = space_to_depth(x), []
        for level, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for layer in range(depth):
                x = ConvNorm(width, stride=2 if level and not layer else 1)(x, train)
            features.append(x)
        return features


class Deconvolution(nn.Module):
    """From the deepest features up to 1/2 size, with `widths` channels there and so on."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, features: list[Array], train: bool) -> Array:
        x = features[-1]
        for width in reversed(self.widths):
            # A transposed convolution of 2 x 2 pixels, which do not overlap.
            x = depth_to_space(nn.Conv(4 * width, (1, 1), kernel_init=HE, dtype=x.dtype)(x))
            x = ConvNorm(width)(x, train)
        return x


class Context(nn.Module):
    """The sum of scores of all sizes but 1/2, made larger from size to size, at 1/2 size."""

    width: int

    @nn.compact
    def __call__(self, features: list[Array], train: bool) -> Array:
        score = None
        for x in reversed(features[1:]):
            own = ConvNorm(self.width, kernel=1, relu=False)(x, train)
            score = own if score is None else upsample(score) + own
        return upsample(score)


_LITE = TwoStreamSpec(
    widths=(12, 24, 48, 64, 96),
    depths=(1, 1, 2, 2, 2),
    deconvolved=(12, 24, 32, 48),
    context=12,
    merged=12,
)
# As wide and as deep as VGG-16, from 1/2 size on.
_FULL = TwoStreamSpec(
    widths=(64, 128, 256, 512, 512),
    depths=(2, 2, 3, 3, 3),
    deconvolved=(64, 128, 256, 512),
    context=64,
    merged=64,
)


def _alone(name: str, spec: TwoStreamSpec) -> dict[str, TwoStreamSpec]:
    """The network, and each of its streams alone."""
    return {
        name: spec,
        f"{name}-deconvolution": dataclasses.replace(spec, context=0),
        f"{name}-context": dataclasses.replace(spec, deconvolved=()),
    }


SPECS: dict[str, TwoStreamSpec] = {**_alone("lite", _LITE), **_alone("full", _FULL)}


@functools.partial(jax.jit, static_argnames="spec")
def init(key: Array, spec: TwoStreamSpec) -> Variables:
    """Fresh variables (float32); each layer says how its own values start."""
    return spec.init(key)


@functools.partial(jax.jit, static_argnames="spec")
def apply(variables: Variables, crops: Array, spec: TwoStreamSpec) -> Array:
    """Logits (B, S, S) of pixels of crops (B, S, S, 3): that what is seen there is the face."""
    return cast(Array, spec.module().apply(variables, crops))


@functools.partial(jax.jit, static_argnames="spec")
def apply_train(variables: Variables, crops: Array, spec: TwoStreamSpec) -> tuple[Array, Variables]:
    """`apply` with the batch's own statistics, and the updated state {"batch_stats": ...}."""
    logits, state = spec.module().apply(variables, crops, train=True, mutable=["batch_stats"])
    return logits, dict(state)
