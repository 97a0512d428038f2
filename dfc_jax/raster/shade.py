"""Lambertian shading by second-order spherical harmonics, and texture lookup."""

import math

import jax.numpy as jnp

from dfc_jax.ops.sampling import bilinear_sample
from dfc_jax.types import Array

N_SH = 9


def sh_basis(normals: Array) -> Array:
    """Real spherical harmonics of bands 0 to 2 at unit normals (..., 3): (..., 9).

    Orthonormal over the unit sphere (their squares integrate to 1), in the order
    1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2, without the Condon-Shortley phase. The axes are
    those of the normals: camera space in `render` (x right, y down, z away from the camera), so
    light that comes from the camera has a negative third coefficient.
    """
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    c1 = math.sqrt(3.0 / (4.0 * math.pi))
    c2 = math.sqrt(15.0 / (4.0 * math.pi))
    terms = [
        jnp.full_like(x, math.sqrt(1.0 / (4.0 * math.pi))),
        c1 * y,
        c1 * z,
        c1 * x,
        c2 * x * y,
        c2 * y * z,
        math.sqrt(5.0 / (16.0 * math.pi)) * (3.0 * z**2 - 1.0),
        c2 * x * z,
        0.5 * c2 * (x**2 - y**2),
    ]
    return jnp.stack(terms, axis=-1)


def sh_irradiance(coeffs: Array, normals: Array) -> Array:
    """Light (..., 3) that arrives at unit normals (..., 3); the cut-off series can be negative.

    `coeffs` (9, 3), RGB, expand the irradiance, not the radiance: they include the clamped cosine
    of Lambert's law (Ramamoorthi and Hanrahan 2001, factors pi, 2 pi/3, pi/4 per band) and the
    1/pi of the albedo. A constant light of 1 is ``coeffs[0] = sqrt(4 pi)``.
    """
    return sh_basis(normals) @ coeffs


def shade(albedo: Array, normals: Array, sh: Array) -> Array:
    """Colours (..., 3) = albedo (..., 3) times the irradiance, negative light clipped to 0."""
    return albedo * jnp.maximum(sh_irradiance(sh, normals), 0.0)


def sample_texture(texture: Array, uv: Array) -> Array:
    """Bilinear lookup (..., C) in a texture (H, W, C) at uv (..., 2) in [0, 1], v up.

    (0, 0) is the lower left *corner* of the picture, (1, 1) the upper right one; beyond the
    outermost pixel centres the border's colour continues.
    """
    height, width = texture.shape[:2]
    x = uv[..., 0] * width - 0.5
    y = (1.0 - uv[..., 1]) * height - 0.5
    return bilinear_sample(texture, jnp.stack([x, y], axis=-1))
