"""Bilinear sampling and affine warps of images; integer coordinates are pixel centres."""

import jax
import jax.numpy as jnp

from dfc_jax.types import Array


def bilinear_sample(image: Array, xy: Array, fill: float | None = None) -> Array:
    """Values (..., C) of an image (H, W, C) at pixel coordinates (..., 2), differentiable in both.

    Coordinates beyond the outermost pixel centres take the border's value (OpenCV's
    ``BORDER_REPLICATE``); with `fill` the image is surrounded by that constant instead
    (``BORDER_CONSTANT``). NaN coordinates count as outside, to the left and above.
    """
    height, width = image.shape[:2]
    margin = 0 if fill is None else 1
    upper = jnp.array([width - 1 + margin, height - 1 + margin], xy.dtype)
    xy = jnp.clip(jnp.where(jnp.isnan(xy), -1.0, xy), -margin, upper)
    corner = jnp.floor(xy)
    fraction = xy - corner
    x0, y0 = jnp.moveaxis(corner.astype(jnp.int32), -1, 0)

    def tap(x: Array, y: Array) -> Array:
        value = image[jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)]
        if fill is None:
            return value
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return jnp.where(inside[..., None], value, fill)

    fx, fy = fraction[..., :1], fraction[..., 1:]
    top = (1 - fx) * tap(x0, y0) + fx * tap(x0 + 1, y0)
    bottom = (1 - fx) * tap(x0, y0 + 1) + fx * tap(x0 + 1, y0 + 1)
    return (1 - fy) * top + fy * bottom


@jax.jit
def sample_features(features: Array, xy: Array) -> Array:
    """`bilinear_sample` of learned features (H, W, C) at fixed coordinates (N, 2): (N, C).

    Differentiable in the features alone. The gradient is a matrix product. That of an indexed read
    is a scatter, whose atomic additions hold an accelerator up the longer the more the places
    differ.
    """
    return _sample_features(features, xy)


@jax.custom_vjp
def _sample_features(features: Array, xy: Array) -> Array:
    return bilinear_sample(features, xy)


def _sampled(features: Array, xy: Array) -> tuple[Array, tuple[Array, Array]]:
    return bilinear_sample(features, xy), (features, xy)


def _features_gradient(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    features, xy = saved
    height, width, channels = features.shape
    across, down = (
        jnp.maximum(1.0 - jnp.abs(jnp.clip(at, 0.0, n - 1.0)[:, None] - jnp.arange(n)), 0.0)
        for at, n in ((xy[:, 0], width), (xy[:, 1], height))
    )
    across, down = across.astype(gradient.dtype), down.astype(gradient.dtype)
    rows = (across[:, :, None] * gradient[:, None, :]).reshape(len(xy), -1)
    found = jnp.matmul(down.T, rows, preferred_element_type=jnp.float32)
    return found.reshape(height, width, channels).astype(features.dtype), jnp.zeros_like(xy)


_sample_features.defvjp(_sampled, _features_gradient)


def pixel_grid(height: int, width: int) -> Array:
    """Pixel centres (H, W, 2) as (x, y), float32."""
    y, x = jnp.mgrid[:height, :width]
    return jnp.stack([x, y], axis=-1).astype(jnp.float32)


def warp_affine(image: Array, matrix: Array, size: int, fill: float | None = None) -> Array:
    """Resample an image (H, W, C) to (size, size, C), differentiable in image and matrix.

    `matrix` (2, 3) maps OUTPUT pixel centres to INPUT pixel centres, as OpenCV's
    ``WARP_INVERSE_MAP`` and `dfc_jax.camera.Crop.to_photo`. There is no low-pass filter: blur or
    shrink the image first when the output is much coarser. `fill` as in `bilinear_sample`.
    """
    xy = pixel_grid(size, size) @ matrix[:, :2].T + matrix[:, 2]
    return bilinear_sample(image, xy, fill)
