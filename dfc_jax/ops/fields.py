"""Smooth fields through scattered values."""

import jax.numpy as jnp

from dfc_jax.types import Array


def residual_field(
    points: Array, residual: Array, at: Array, length: Array | float, noise: float
) -> Array:
    """Smooth displacement (..., 2) at places (..., 2) that carries projected onto annotated points.

    Gaussian-process regression of the residuals (N, 2) at points (N, 2): squared-exponential
    covariance of `length` pixels, noise variance `noise` relative to the signal's.
    """

    def covariance(a: Array, b: Array) -> Array:
        squared = jnp.sum((a[..., :, None, :] - b[..., None, :, :]) ** 2, axis=-1)
        return jnp.exp(-squared / (2.0 * length**2))

    gram = covariance(points, points) + noise * jnp.eye(len(points))
    weights = jnp.linalg.solve(gram, residual)
    return covariance(at, points) @ weights
