"""Exact flow between two renders of one topology, and what each of them sees."""

import jax.numpy as jnp

from dfc_jax.camera import project
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster import rasterize
from dfc_jax.types import (
    Array,
    Camera,
    Fragments,
)

# Less than the thickness of an eyelid, so that the eyeball behind it counts as hidden.
VISIBILITY_TOLERANCE_MM = 1.0


def fragments_of(vertices_mm: Array, triangles: Array, camera: Camera, size: int) -> Fragments:
    """Rasterize camera-space vertices (V, 3); back faces are culled (the mesh is open)."""
    return rasterize(
        project(camera, vertices_mm), vertices_mm[:, 2], triangles, size, cull_backfaces=True
    )


def ground_truth_flow(
    source: Fragments,
    target: Fragments,
    target_vertices_mm: Array,
    target_camera: Camera,
    triangles: Array,
) -> tuple[Array, Array]:
    """Exact flow (H, W, 2) and matchability (H, W) from one render to another, of the same mesh
    topology but any shapes, poses and cameras.

    Each source pixel knows its surface point; the flow leads to where that point projects in
    the target. It is matchable when the target sees the point too: inside the image, on a
    triangle that faces the camera, and not behind what the z-buffer holds there (within
    `VISIBILITY_TOLERANCE_MM`). Flow is zero on the background.
    """
    size = source.pix_to_face.shape[0]
    foreground = source.pix_to_face >= 0
    ids = triangles[jnp.maximum(source.pix_to_face, 0)]
    corners = [target_vertices_mm[ids[..., k]] for k in range(3)]
    parts = [corners[k] * source.bary_coords[..., k, None] for k in range(3)]
    position = parts[0] + parts[1] + parts[2]
    q = project(target_camera, position)
    a, b, c = (project(target_camera, corner) for corner in corners)
    # Counter-clockwise from outside means clockwise in y-down pixels: a negative cross product.
    visible = (cross2d(b - a, c - a) < 0) & is_visible(target.zbuf, q, position[..., 2])
    flow = jnp.where(foreground[..., None], q - pixel_grid(size, size), 0.0)
    return flow, foreground & visible


def is_visible(zbuf: Array, q: Array, depth_mm: Array) -> Array:
    """Whether points at pixels q (..., 2) lie inside the image and not behind its z-buffer."""
    size = zbuf.shape[0]
    inside = jnp.all((q >= -0.5) & (q <= size - 0.5), axis=-1)
    x, y = jnp.moveaxis(jnp.clip(jnp.floor(q), 0, size - 2).astype(jnp.int32), -1, 0)
    depth = jnp.where(jnp.isfinite(zbuf), zbuf, -jnp.inf)
    above = jnp.maximum(depth[y, x], depth[y, x + 1])
    below = jnp.maximum(depth[y + 1, x], depth[y + 1, x + 1])
    return inside & (depth_mm <= jnp.maximum(above, below) + VISIBILITY_TOLERANCE_MM)


def cross2d(a: Array, b: Array) -> Array:
    """z of the cross product of plane vectors (..., 2)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
