"""Projection of camera-space points."""

import jax.numpy as jnp

from dfc_jax.ops.rotations import head_rotation
from dfc_jax.types import Array, Camera, FaceParams

MIN_DEPTH_MM = 1.0


def project(camera: Camera, points_mm: Array) -> Array:
    """Camera-space points (..., 3) to pixels (..., 2).

    Perspective divides by the depth, which is held above `MIN_DEPTH_MM` so that points behind
    the camera stay finite; whoever draws them has to cull them (the rasterizer does).
    """
    xy = points_mm[..., :2]
    if camera.projection == "perspective":
        xy = xy / jnp.maximum(points_mm[..., 2:], MIN_DEPTH_MM)
    return camera.focal_px[..., None] * xy + camera.principal_point


def project_jacobian(camera: Camera, points_mm: Array) -> Array:
    """Derivative of `project` by the camera-space points (..., 3): (..., 2, 3), perspective only.

    Zero along the depth of points that `project` holds at `MIN_DEPTH_MM`.
    """
    depth = jnp.maximum(points_mm[..., 2:], MIN_DEPTH_MM)[..., None]
    ratio = points_mm[..., :2, None] / depth
    along = jnp.where(points_mm[..., 2:, None] > MIN_DEPTH_MM, ratio, 0.0)
    across = jnp.broadcast_to(jnp.eye(2), (*along.shape[:-1], 2))
    return camera.focal_px[..., None, None] / depth * jnp.concatenate([across, -along], axis=-1)


def to_camera(params: FaceParams, points_mm: Array) -> Array:
    """Model-space points (..., 3) to camera space: X_c = R X + t."""
    rotation = head_rotation(params.rotation)
    return points_mm @ jnp.swapaxes(rotation, -1, -2) + params.translation_mm


def crop_camera(params: FaceParams, size: int) -> Camera:
    """Perspective camera of a size x size crop, principal point at the crop's centre."""
    centre = (size - 1) / 2.0
    return Camera(
        focal_px=jnp.asarray(params.focal_px), principal_point=jnp.array([centre, centre])
    )
