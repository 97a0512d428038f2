"""Layers shared by the networks, among them a deconvolution that trains well on a CPU.

XLA's CPU backend is slow on the gradients of transposed convolutions (four to eight times slower
than here), so they are written as stride-1 convolutions and a re-ordering of pixels. Parameters
and function are those of the textbook layer; a test compares them.

Kernels start as He et al. (2015) have it, for layers that a ReLU follows: truncated normal of
variance 2 / fan-in. Biases start at 0, and normalisation is the identity.

Layers compute in the type of their input: float32, or bfloat16 to train faster on an accelerator.
Parameters and the statistics of batch normalisation are float32 either way.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from dfc_jax.types import Array

HE = nn.initializers.he_normal()
# A quarter of the taps of a transposed convolution of stride 2 meets each output.
HE_DECONV = nn.initializers.variance_scaling(4 * 2.0, "fan_in", "truncated_normal")
ZEROS = nn.initializers.zeros
NHWC = ("NHWC", "HWIO", "NHWC")


def space_to_depth(x: Array, block: int = 2) -> Array:
    """(B, nH, nW, C) to (B, H, W, n²C): the pixels of each n x n block, row by row, become
    channels; n = `block`."""
    b, h, w, c = x.shape
    # Pixels of a row lie beside each other as they are, so only rows change places.
    x = x.reshape(b, h // block, block, w // block, block * c)
    return x.transpose(0, 1, 3, 2, 4).reshape(b, h // block, w // block, block * block * c)


def depth_to_space(x: Array) -> Array:
    """(B, H, W, 4C) to (B, 2H, 2W, C), the inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 4)


# Under `jit` it keeps its name in a trace, by which `nets.to_onnx` knows it.
@partial(jax.jit, static_argnames="times")
def upsample(x: Array, times: int = 2) -> Array:
    """(B, H, W, C) to (B, nH, nW, C), n = `times`, bilinear between pixel centres."""
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, times * h, times * w, c), "bilinear")


def transposed_conv(x: Array, kernel: Array) -> Array:
    """3x3 transposed convolution of stride 2: x (B, H, W, C) to (B, 2H, 2W, D).

    The kernel is (3, 3, C, D). Equal to ``lax.conv_transpose(x, kernel, (2, 2), "SAME")``: in
    one dimension the even outputs are x[j-1] k[0] + x[j] k[2] and the odd ones x[j] k[1], so it
    is a 2-tap convolution with two phases.
    """
    _, _, c, d = kernel.shape
    # (tap, phase) -> index into the kernel padded with a zero at 3.
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    index = jnp.array([[0, 3], [2, 1]])
    phases = padded[index[:, None, :, None], index[None, :, None, :]]  # taps, phases, C, D
    blocks = phases.transpose(0, 1, 4, 2, 3, 5).reshape(2, 2, c, 4 * d)
    y = lax.conv_general_dilated(x, blocks, (1, 1), ((1, 0), (1, 0)), dimension_numbers=NHWC)
    return depth_to_space(y)


class Conv3x3(nn.Module):
    """3x3 convolution with bias, of stride 1 or 2."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", HE, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", ZEROS, (self.features,))
        kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
        strides = (self.stride, self.stride)
        return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=NHWC) + bias


class Deconv3x3(nn.Module):
    """3x3 transposed convolution of stride 2 with bias."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", HE_DECONV, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", ZEROS, (self.features,))
        return transposed_conv(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation and ReLU (`relu=False`: without)."""

    features: int
    kernel: int = 3
    stride: int = 1
    relu: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        size, strides = (self.kernel, self.kernel), (self.stride, self.stride)
        conv = nn.Conv(self.features, size, strides, use_bias=False, kernel_init=HE, dtype=x.dtype)
        x = conv(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.98, dtype=x.dtype)(x)
        return nn.relu(x) if self.relu else x


class Residual(nn.Module):
    """Two 3x3 convolutions around the identity: y = relu(x + f(x)), channels unchanged."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = ConvNorm(x.shape[-1])(x, train)
        y = ConvNorm(x.shape[-1], relu=False)(y, train)
        return nn.relu(x + y)
