"""From fragments to per-pixel attributes, differentiable in vertices and attributes."""

import jax.numpy as jnp

from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.types import Array, Fragments


def barycentrics(
    fragments: Fragments,
    screen_xy: Array,
    depth_mm: Array,
    triangles: Array,
    perspective_correct: bool = True,
) -> Array:
    """Barycentric coordinates (H, W, 3) of each pixel centre in the triangle that it sees.

    Only `fragments.pix_to_face` is read; the result is differentiable in `screen_xy` (V, 2)
    pixels and `depth_mm` (V,). With screen-space coordinates b_i, the coordinates on the surface
    are b_i / z_i, normalised; `perspective_correct=False` (orthographic) keeps the b_i.
    The background is 0, in values and gradients.
    """
    seen = fragments.pix_to_face >= 0
    ids = jnp.asarray(triangles)[jnp.maximum(fragments.pix_to_face, 0)]
    corners = jnp.concatenate([screen_xy, depth_mm[:, None]], axis=-1)[ids]
    grid = pixel_grid(*fragments.pix_to_face.shape)
    # Each component is an array of its own: arithmetic along axes of length 3 is slow. Background
    # pixels get a constant, so that their gradients are 0 and not NaN.
    x, y = (
        [jnp.where(seen, corners[..., k, i] - grid[..., i], 0.0) for k in range(3)] for i in (0, 1)
    )
    # Twice the signed area that the pixel spans with the edge opposite each corner.
    weights = [x[k - 2] * y[k - 1] - y[k - 2] * x[k - 1] for k in range(3)]
    if perspective_correct:
        weights = [w / jnp.where(seen, corners[..., k, 2], 1.0) for k, w in enumerate(weights)]
    total = weights[0] + weights[1] + weights[2]
    total = jnp.where(total == 0, 1.0, total)
    return jnp.stack([w / total for w in weights], axis=-1)


def interpolate(fragments: Fragments, triangles: Array, attributes: Array) -> Array:
    """Blend vertex attributes (V, C) into an image (H, W, C); the background is 0.

    Differentiable in the attributes, and in the vertices when ``fragments.bary_coords`` come
    from `barycentrics` instead of the rasterizer, which stops gradients. Which triangle a pixel
    sees is fixed, so there is no gradient across silhouettes.
    """
    seen = fragments.pix_to_face[..., None] >= 0
    ids = jnp.asarray(triangles)[jnp.maximum(fragments.pix_to_face, 0)]
    attributes = jnp.asarray(attributes)
    # The corners are added one by one: a sum over an axis of length 3 takes several times as long.
    parts = [
        jnp.where(seen, attributes[ids[..., k]], 0.0) * fragments.bary_coords[..., k, None]
        for k in range(3)
    ]
    return parts[0] + parts[1] + parts[2]
