"""A neutral appearance of a face model: one colour for each part."""

import jax.numpy as jnp

from dfc_jax.morphable.linear import PARTS, FaceModel
from dfc_jax.types import Array

# Linear RGB albedo of each part, in the order of `PARTS`: enough contrast for an encoder to tell
# the parts of the template apart.
_PART_COLORS = (
    (0.72, 0.55, 0.45),
    (0.25, 0.17, 0.12),
    (0.85, 0.85, 0.85),
    (0.62, 0.28, 0.27),
    (0.76, 0.58, 0.47),
    (0.70, 0.50, 0.42),
    (0.60, 0.46, 0.38),
)
_IRIS_COLOR = (0.12, 0.10, 0.08)
_IRIS_RADIUS_MM = 6.0


def part_vertex_colors(model: FaceModel) -> Array:
    """(V, 3) colour of each vertex by its part, with dark irises: a neutral appearance."""
    colors = jnp.asarray(_PART_COLORS)[model.triangle_part]
    summed = jnp.zeros_like(model.mean_mm).at[model.triangles].add(colors[:, None])
    count = jnp.zeros(len(model.mean_mm)).at[model.triangles].add(1.0)
    colors = summed / jnp.maximum(count, 1.0)[:, None]
    is_eye = jnp.zeros(len(model.mean_mm), bool)
    is_eye = is_eye.at[model.triangles].max((model.triangle_part == PARTS.index("eyes"))[:, None])
    for side in (-1.0, 1.0):
        eye = is_eye & (side * model.mean_mm[:, 0] > 0)
        depth = jnp.where(eye, model.mean_mm[:, 2], -jnp.inf)
        pupil = model.mean_mm[jnp.argmax(depth)]
        iris = eye & (jnp.linalg.norm(model.mean_mm - pupil, axis=-1) < _IRIS_RADIUS_MM)
        colors = jnp.where(iris[:, None], jnp.asarray(_IRIS_COLOR), colors)
    return colors
