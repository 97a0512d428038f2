"""The detector's network as pure functions, `init` and `apply`.

It is fully convolutional: pictures (B, H, W, 3) uint8 RGB, H and W multiples of 16, give `Outputs`
for each cell of `STRIDE` pixels. It knows faces of one octave of sizes and some more (`SMALLEST` to
`LARGEST`); a pyramid of the picture (`dfc_jax.inference.pyramid`) brings others to that.

XLA's CPU backend is slow where convolutions are grouped or have few channels, and fast in matrix
products. So pictures are folded into channels before the first layer, 3x3 and 5x5 kernels belong to
single channels and are sums of shifted copies, and 1x1 kernels mix the channels.
"""

import dataclasses
import functools
import itertools
import math
import operator
from typing import ClassVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.nets.blocks import HE, space_to_depth
from dfc_jax.nets.registry import Spec, Variables, register, whole
from dfc_jax.systems.detector.scenes import MULTIPLE, PAD
from dfc_jax.types import Array, ByValue

# Pixels along an edge of a cell.
STRIDE = 8
# Longer edges of the landmark boxes, in pixels, that the network is trained to find.
SMALLEST, LARGEST = 14.0, 44.0
# One in a hundred cells lies in the middle of a face: the first logit.
START = -4.6


@struct.dataclass(eq=False)
class Outputs(ByValue):
    """What the network says about each cell, (B, H / 8, W / 8, ...).

    Attributes:
      logit: () of the probability that the cell lies in the middle of a face.
      values: (5,) of that face, see `cells.decode`.
    """

    logit: Array
    values: Array


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorSpec(Spec):
    """The sizes of the network.

    Attributes:
      stem: channels at 1/4 size.
      width: channels at 1/8 size.
      deep: channels at 1/16 size.
      blocks: there.
      last: blocks at 1/8 size that see both.
    """

    kind: ClassVar[str] = "detector/separable"

    stem: int = whole(24, 1, 1024)
    width: int = whole(64, 1, 1024)
    deep: int = whole(128, 1, 1024)
    blocks: int = whole(3, 1, 16)
    last: int = whole(2, 1, 16)

    def module(self) -> "DetectorNetwork":
        """The network."""
        return DetectorNetwork(self)

    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """A picture."""
        return (jax.ShapeDtypeStruct((1, 2 * MULTIPLE, 2 * MULTIPLE, 3), jnp.uint8),)


class DetectorNetwork(nn.Module):
    """Down to 1/16 of the size, blocks there, and up to 1/8 with what was seen there."""

    spec: DetectorSpec

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Outputs:
        spec = self.spec
        x = (space_to_depth(x, 4).astype(jnp.float32) - PAD) / PAD
        x = MixNorm(spec.stem)(x, train)
        x = MixNorm(spec.width)(space_to_depth(x), train)
        fine = Separable(3)(x, train)
        x = MixNorm(spec.deep)(space_to_depth(fine), train)
        for _ in range(spec.blocks):
            x = Separable(5)(x, train)
        x = MixNorm(spec.width, relu=False)(x, train)
        x = nn.relu(fine + repeated(x))
        for _ in range(spec.last):
            x = Separable(3)(x, train)
        x = nn.Dense(6, kernel_init=nn.initializers.zeros)(x)
        return Outputs(x[..., 0] + START, x[..., 1:])


class Separable(nn.Module):
    """A kernel for each channel, then all channels mixed, around the identity."""

    size: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = (self.size, self.size, x.shape[-1])
        # As He et al. have it, with one channel in; no ReLU follows.
        kernel = self.param("kernel", nn.initializers.normal(1.0 / self.size), shape)
        return nn.relu(x + MixNorm(x.shape[-1], relu=False)(depthwise(x, kernel), train))


class MixNorm(nn.Module):
    """Each pixel's channels mixed, then batch normalisation and ReLU (`relu=False`: without)."""

    features: int
    relu: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        # A matrix product: as a 1x1 convolution it takes a CPU twice as long.
        x = nn.Dense(self.features, use_bias=False, kernel_init=HE)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.98)(x)
        return nn.relu(x) if self.relu else x


@jax.custom_vjp
def depthwise(x: Array, kernel: Array) -> Array:
    """Each channel of (B, H, W, C) with its own kernel of (K, K, C), K odd; zeros outside."""
    shifted = itertools.chain.from_iterable(_shifted(x, len(kernel)))
    return functools.reduce(
        operator.add, map(operator.mul, shifted, kernel.reshape(-1, kernel.shape[-1]))
    )


def _shifted(x: Array, size: int) -> list[list[Array]]:
    """x as each tap of a kernel of this size sees it."""
    radius, (height, width) = size // 2, x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    return [[padded[:, i : i + height, j : j + width] for j in range(size)] for i in range(size)]


def _depthwise_kept(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(x, kernel), (x, kernel)


def _depthwise_gradient(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    # Kept apart from what made them: XLA would work that out again for each tap.
    x, gradient = jax.lax.optimization_barrier((x, gradient))
    # Sums over all pixels as matrix products, which a CPU adds up several times faster.
    ones = jnp.ones((1, gradient[..., 0].size), gradient.dtype)
    taps = [
        [(ones @ (tap * gradient).reshape(ones.size, -1))[0] for tap in row]
        for row in _shifted(x, len(kernel))
    ]
    return depthwise(gradient, kernel[::-1, ::-1]), jnp.array(taps)


depthwise.defvjp(_depthwise_kept, _depthwise_gradient)


def repeated(x: Array) -> Array:
    """(B, H, W, C) to (B, 2H, 2W, C), each pixel four times."""
    b, h, w, c = x.shape
    # Broadcast: the gradient of `jnp.repeat` is a scatter.
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def calibrated(variables: Variables, gain: float, shift: float, growth: float) -> Variables:
    """Variables with which each logit is ``gain * logit + shift``, and edges are `growth` times as
    long."""
    # In the last layer: column 0 is the logit less `START`, 3 the logarithm of the edge.
    last = variables["params"]["Dense_0"]
    kernel, bias = (np.array(last[name], np.float32) for name in ("kernel", "bias"))
    kernel[:, 0] *= gain
    bias[0] = gain * (bias[0] + START) + shift - START
    bias[3] += math.log(growth)
    params = {**variables["params"], "Dense_0": {"kernel": kernel, "bias": bias}}
    return {**variables, "params": params}


SPECS: dict[str, DetectorSpec] = {"small": DetectorSpec()}


@functools.partial(jax.jit, static_argnames="spec")
def init(key: Array, spec: DetectorSpec) -> Variables:
    """Fresh variables (float32); each layer says how its own values start."""
    return spec.init(key)


@functools.partial(jax.jit, static_argnames="spec")
def apply(variables: Variables, pictures: Array, spec: DetectorSpec) -> Outputs:
    """What is found in pictures (B, H, W, 3) uint8."""
    return cast(Outputs, spec.module().apply(variables, pictures))


@functools.partial(jax.jit, static_argnames="spec")
def apply_train(
    variables: Variables, pictures: Array, spec: DetectorSpec
) -> tuple[Outputs, Variables]:
    """`apply` with the batch's own statistics, and the updated state {"batch_stats": ...}."""
    outputs, state = spec.module().apply(variables, pictures, train=True, mutable=["batch_stats"])
    return outputs, dict(state)
