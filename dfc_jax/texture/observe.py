"""A photograph sampled over the uv atlas of the face that is fitted to it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dfc_jax.camera import to_camera
from dfc_jax.fitting import project_landmarks
from dfc_jax.landmarks68 import INNER
from dfc_jax.morphable.linear import FaceModel, shape, vertex_normals
from dfc_jax.ops.fields import residual_field
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster import interpolate
from dfc_jax.raster.flow import fragments_of, ground_truth_flow
from dfc_jax.texture.atlas import Atlas, smooth
from dfc_jax.types import Array, Camera, FaceParams

# A texel is left out if the depth changes by more than `DEPTH_RANGE_MM` within `MARGIN_PX` of its
# pixel: it then lies so close to a silhouette that the fit may miss it.
MARGIN_PX, DEPTH_RANGE_MM = 3, 14.0
# The weight rises from 0 to 1 between these cosines of the angle between normal and line of sight.
FACING = (0.15, 0.5)
# Weights fade towards hidden texels over this share of the atlas's edge.
FEATHER = 0.012


class Observation(NamedTuple):
    """A photograph over the atlas.

    Attributes:
      color: (S, S, 3) RGB in [0, 1].
      weight: (S, S) in [0, 1], how well the photograph shows the texel; 0 where it does not.
      normals: (S, S, 3) unit normals in camera space.
    """

    color: Array
    weight: Array
    normals: Array


def observe(
    model: FaceModel, atlas: Atlas, params: FaceParams, image: Array, points: Array
) -> Observation:
    """Sample a square image at the texels of the face that is fitted to it.

    A smooth residual field moves the texels, so that inner landmarks lie on the annotated points.

    Args:
      model: the face model.
      atlas: of the model.
      params: the fit, in pixels of the image; the principal point is the image's centre.
      image: (H, H, 3) RGB in [0, 1].
      points: (68, 2) annotated points, pixels; NaN where one is hidden.
    """
    size = image.shape[0]
    camera = Camera(params.focal_px, jnp.full(2, (size - 1) / 2.0))
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    target = fragments_of(vertices, model.triangles, camera, size)
    flow, visible = ground_truth_flow(atlas.fragments, target, vertices, camera, model.triangles)
    xy = flow + pixel_grid(atlas.size, atlas.size)

    projected = project_landmarks(model, params, camera.principal_point)
    points = jnp.where(jnp.isfinite(points), points, projected)
    residual = (points - projected)[INNER]
    edge = jnp.max(points.max(axis=0) - points.min(axis=0))
    coarse = 4.0
    places = coarse * pixel_grid(int(size / coarse), int(size / coarse))
    field = residual_field(points[INNER], residual, places, 0.08 * edge, noise=0.3)
    moved = xy + bilinear_sample(field, xy / coarse)

    normals = vertex_normals(vertices, model.triangles)
    normals = interpolate(atlas.fragments, model.triangles, normals)
    normals /= jnp.maximum(jnp.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    position = interpolate(atlas.fragments, model.triangles, vertices)
    sight = position / jnp.maximum(jnp.linalg.norm(position, axis=-1, keepdims=True), 1e-6)
    facing = -jnp.sum(normals * sight, axis=-1)
    weight = jnp.clip((facing - FACING[0]) / (FACING[1] - FACING[0]), 0.0, 1.0)
    inside = jnp.all((moved >= 0.0) & (moved <= size - 1.0), axis=-1)
    clear = bilinear_sample(_clear(target.zbuf)[..., None], xy)[..., 0]
    weight = jnp.where(visible & inside, weight * clear, 0.0)
    return Observation(bilinear_sample(image, moved), _feathered(atlas, weight), normals)


def _feathered(atlas: Atlas, weight: Array) -> Array:
    """Weights (S, S) that fade towards texels of weight 0, but not towards the atlas's borders."""
    covered = (atlas.fragments.pix_to_face >= 0).astype(jnp.float32)
    share = smooth((weight > 0).astype(jnp.float32)[..., None], covered, FEATHER * atlas.size)
    return weight * jnp.clip(2.0 * share[..., 0] - 1.0, 0.0, 1.0)


def _clear(zbuf: Array) -> Array:
    """1 where the depth (H, W) changes little within `MARGIN_PX`, else 0."""
    edge = 2 * MARGIN_PX + 1
    window, strides = (edge, edge), (1, 1)
    far = jnp.where(jnp.isfinite(zbuf), zbuf, 1e6)
    high = jax.lax.reduce_window(far, -jnp.inf, jax.lax.max, window, strides, "SAME")
    low = jax.lax.reduce_window(far, jnp.inf, jax.lax.min, window, strides, "SAME")
    return (high - low < DEPTH_RANGE_MM).astype(jnp.float32)
