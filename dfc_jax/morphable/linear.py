"""The linear face model, as pure functions: S = S_mean + A_id alpha_id + A_exp alpha_exp."""

import jax
import jax.numpy as jnp
from flax import struct

from dfc_jax.types import Array, ByValue, SurfacePoints

PARTS = ("skin", "brows", "eyes", "lips", "nose", "ears", "neck")


@struct.dataclass(eq=False)
class FaceModel(ByValue):
    """A linear face model in millimetres; see `dfc_jax.types` for the frame and shape names.

    Attributes:
      mean_mm: (V, 3) mean shape, neutral expression.
      identity_mm: (V, 3, K) identity directions, one standard deviation each.
      expression_mm: (V, 3, E) displacement of each expression shape at weight 1.
      triangles: (T, 3) int32, counter-clockwise seen from outside.
      uv: (V, 2) atlas coordinates in [0, 1]^2, v up, without overlaps.
      triangle_part: (T,) int32 index into `PARTS`.
      landmarks: the 68 landmarks (iBUG order) as surface points, triangle (68,).
      contours: for each of the 17 jaw landmarks the line of surface points along which it may
        slide, from the front of the face backwards: triangle (17, L).
      expression_names: the E ARKit names (static).
      version: name of the model that produced a result (static).
    """

    mean_mm: Array
    identity_mm: Array
    expression_mm: Array
    triangles: Array
    uv: Array
    triangle_part: Array
    landmarks: SurfacePoints
    contours: SurfacePoints
    expression_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    version: str = struct.field(pytree_node=False, default="unnamed")

    @property
    def n_identity(self) -> int:
        """Number of identity directions."""
        return self.identity_mm.shape[-1]

    @property
    def n_expression(self) -> int:
        """Number of expression directions."""
        return self.expression_mm.shape[-1]


def shape(model: FaceModel, identity: Array, expression: Array) -> Array:
    """Vertices (V, 3) in millimetres of coefficients (k,) and (e,).

    Fewer coefficients than directions mean zeros for the rest.
    """
    k, e = identity.shape[-1], expression.shape[-1]
    return (
        model.mean_mm
        + model.identity_mm[..., :k] @ identity
        + model.expression_mm[..., :e] @ expression
    )


def surface_positions(vertices: Array, triangles: Array, points: SurfacePoints) -> Array:
    """Positions (..., 3) of surface points: vertices (V, C) blended by barycentric coordinates."""
    corners = vertices[triangles[points.triangle]]
    return jnp.sum(corners * points.barycentric[..., None], axis=-2)


def surface_basis(model: FaceModel, points: SurfacePoints, n_identity: int) -> tuple[Array, Array]:
    """The model restricted to surface points: a mean (..., 3) and a basis (..., 3, k + E).

    ``mean + basis @ concatenate([identity, expression])`` are the points' positions in model
    space; the basis holds the first k = `n_identity` identity directions, then all expressions.
    """

    corners = model.triangles[points.triangle]

    def blend(table: Array) -> Array:
        # Whole rows of a flat table: indexing (V, 3, K) directly would copy all of it.
        flat = table.reshape(table.shape[0], -1)
        rows = sum(flat[corners[..., k]] * points.barycentric[..., k, None] for k in range(3))
        return jnp.asarray(rows).reshape(corners.shape[:-1] + table.shape[1:])

    basis = [blend(model.identity_mm)[..., :n_identity], blend(model.expression_mm)]
    return blend(model.mean_mm), jnp.concatenate(basis, axis=-1)


def landmarks3d(model: FaceModel, vertices: Array) -> Array:
    """The 68 landmarks (68, 3) of vertices (V, 3), the jaw at its embedded (frontal) points."""
    return surface_positions(vertices, model.triangles, model.landmarks)


def vertex_normals(vertices: Array, triangles: Array) -> Array:
    """Unit vertex normals (V, 3), the area-weighted mean of the adjacent triangles' normals."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    face = jnp.cross(b - a, c - a)
    summed = jnp.zeros_like(vertices).at[triangles.reshape(-1)].add(jnp.repeat(face, 3, axis=0))
    squared = jnp.sum(summed**2, axis=-1, keepdims=True)
    return summed * jax.lax.rsqrt(jnp.maximum(squared, 1e-20))
