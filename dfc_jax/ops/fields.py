"""Smooth fields through scattered values."""

import jax.numpy as jnp

from dfc_jax.types import AnyArray, Array


def residual_field(
    points: Array, residual: Array, at: Array, length: Array | float, noise: AnyArray | float
) -> Array:
    """Smooth displacement (..., 2) at places (..., 2) that carries projected onto annotated points.

    Gaussian-process regression of the residuals (N, 2) at points (N, 2): squared-exponential
    covariance of `length` pixels, or the mean of those of several lengths (K,); `noise` is the
    variance of the noise of each point (N,), or of all, relative to the signal's.
    """
    lengths = jnp.atleast_1d(length)

    def covariance(a: Array, b: Array) -> Array:
        squared = jnp.sum((a[..., :, None, :] - b[..., None, :, :]) ** 2, axis=-1)
        # One after the other: an array of all would hold K N numbers for every place.
        parts = [jnp.exp(-squared / (2.0 * lengths[k] ** 2)) for k in range(len(lengths))]
        return sum(parts[1:], start=parts[0]) / len(parts)

    gram = covariance(points, points) + jnp.diag(jnp.broadcast_to(noise, len(points)))
    weights = jnp.linalg.solve(gram, residual)
    return covariance(at, points) @ weights
