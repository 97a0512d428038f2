"""From a flow to surface points and landmarks, and back from a fitted mesh to the flow."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project
from dfc_jax.landmarks68 import EYES, OUTWARDS
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster.flow import cross2d
from dfc_jax.systems.dfc.template import Template, on_template, template_landmarks
from dfc_jax.types import (
    AnyArray,
    Array,
    Correspondences,
    SurfacePoints,
)

# Pixels whose correspondences are taken from a flow, and all that a fit gets: `with_eyes`.
N_POINTS = 1024
N_CORRESPONDENCES = N_POINTS + EYES.stop - EYES.start
# What a landmark of the eyes counts at most, in pixels.
_EYE_WEIGHT = 4.0
# See `recover`: of 2, 3, 5, 8 and 12 pixels around the outline, those with which the mask is nearly
# that of rendered faces and little is lost; the flow hardly depends on how far it may differ.
_RIM_PX, _AGREES_PX = 3, 5.0
# What a pixel beyond the edge of its lid or lip counts: it decides only where nothing else is seen.
_OTHER_SIDE = 0.01


def surface_at(template: Template, q: Array) -> tuple[SurfacePoints, Array]:
    """The surface points (...) that the template shows at sub-pixel positions q (..., 2), and
    whether there are any.

    The nearest pixel tells the triangle; the barycentric coordinates are those of q itself in
    that triangle (slightly outside of it, at times, where q belongs to a neighbour).
    """
    pixel = jnp.clip(jnp.round(q), 0, template.size - 1).astype(jnp.int32)
    column, row = pixel[..., 0], pixel[..., 1]
    triangle = jnp.maximum(template.fragments.pix_to_face[row, column], 0)
    corners = template.vertices_mm[template.triangles[triangle]]
    xy = project(template.camera, corners)
    edge1, edge2, offset = (
        xy[..., 1, :] - xy[..., 0, :],
        xy[..., 2, :] - xy[..., 0, :],
        q - xy[..., 0, :],
    )
    area = cross2d(edge1, edge2)
    safe = jnp.where(jnp.abs(area) < 1e-6, 1.0, area)
    b1, b2 = cross2d(offset, edge2) / safe, cross2d(edge1, offset) / safe
    affine = jnp.stack([1.0 - b1 - b2, b1, b2], axis=-1)
    weighted = affine / corners[..., 2]
    exact = weighted / jnp.sum(weighted, axis=-1, keepdims=True)
    # In a triangle seen edge-on q may lie far outside; the point at the pixel's centre is better.
    usable = (jnp.abs(area) >= 1e-6) & (jnp.max(jnp.abs(exact), axis=-1) < 2.0)
    at_pixel = template.fragments.bary_coords[row, column]
    barycentric = jnp.where(usable[..., None], exact, at_pixel)
    points = SurfacePoints(triangle=triangle, barycentric=barycentric)
    return points, on_template(template, q)


@partial(jax.jit, static_argnames="n_points")
def lift(
    template: Template,
    flow: Array,
    matchability: Array,
    n_points: int = N_POINTS,
    threshold: float = 0.5,
) -> Correspondences:
    """Filter a flow (H, W, 2) by matchability (H, W) and lift it to 2D-3D correspondences.

    Pixels with matchability over `threshold` whose flow ends on the template are candidates;
    `n_points` of them are taken, spread over the crop in a fixed pseudo-random order. Weights
    are the matchabilities, 0 for padding when there are fewer candidates.
    """
    size = flow.shape[0]
    order = np.random.default_rng(0).permutation(size * size)
    p = pixel_grid(size, size).reshape(-1, 2)[order]
    q = p + flow.reshape(-1, 2)[order]
    probability = matchability.reshape(-1)[order]
    candidate = (probability > threshold) & on_template(template, q)
    chosen = jnp.nonzero(candidate, size=n_points, fill_value=size * size)[0]
    used = chosen < size * size
    chosen = jnp.minimum(chosen, size * size - 1)
    surface, seen = surface_at(template, q[chosen])
    return Correspondences(
        points_px=p[chosen],
        surface=surface,
        weight=jnp.where(used & seen, probability[chosen], 0.0),
    )


def flow_landmarks(
    flow: Array,
    matchability: Array,
    template_xy: Array,
    bandwidth_px: float = 2.5,
    stride: int = 2,
    outwards: AnyArray | None = None,
) -> tuple[Array, Array]:
    """Landmarks from a flow alone: the pixels from which it leads to the template's landmarks.

    Around each landmark a local affine map from template to crop, ``p = a + B (q - q_k)``, is
    fitted by least squares to the pixels, weighted by matchability and a Gaussian in q; its
    intercept is the landmark, to a fraction of a pixel.

    The lips touch in the template, and part in the crop: a map through both would put the landmarks
    of both into the gap. Landmarks on such an edge are read from their own side.

    Args:
      flow: (H, W, 2) pixels.
      matchability: (H, W) in [0, 1].
      template_xy: (M, 2) positions in the template.
      bandwidth_px: standard deviation of the Gaussian, template pixels.
      stride: one pixel in `stride` is used, in both directions.
      outwards: (M,) the sign of y on the side of the template that a landmark is read from, 0 for
        both, as in `landmarks68.OUTWARDS`; None for both everywhere.

    Returns:
      points (M, 2) in crop pixels and support (M,), the sum of the weights: below about 1 the
      landmark is not seen and the point means nothing.
    """
    grid = pixel_grid(*flow.shape[:2])[::stride, ::stride].reshape(-1, 2)
    middle = jnp.mean(template_xy, axis=0)
    x, y = ((grid + flow[::stride, ::stride].reshape(-1, 2) - middle) / bandwidth_px).T
    at = (template_xy - middle) / bandwidth_px
    across, down = x - at[:, :1], y - at[:, 1:]
    weight = matchability[::stride, ::stride].reshape(-1) * jnp.exp(-0.5 * (across**2 + down**2))
    if outwards is not None:
        weight = jnp.where(down * outwards[:, None] < 0.0, _OTHER_SIDE * weight, weight)
    # The sums of all landmarks as one matrix product, around the same origin, are several times as
    # fast as those of each around its own, to which they are moved then.
    design = jnp.stack([jnp.ones_like(x), x, y], axis=-1)
    products = design[:, :, None] * jnp.concatenate([design, grid], axis=-1)[:, None]
    sums = (weight @ products.reshape(len(grid), -1)).reshape(-1, 3, 5)
    moved = jnp.zeros((len(at), 3, 3)).at[:, 1:, 0].set(-at) + jnp.eye(3)
    gram = moved @ sums[..., :3] @ jnp.matrix_transpose(moved)
    # Only the slopes are regularized: with little support the estimate is the weighted mean.
    ridge = 1e-2 * jnp.diag(jnp.array([0.0, 1.0, 1.0])) + 1e-6 * jnp.eye(3)
    solved = jnp.linalg.solve(gram + ridge, moved @ sums[..., 3:])
    return solved[:, 0], jnp.sum(weight, axis=1)


def with_eyes(
    found: Correspondences, template: Template, flow: Array, matchability: Array
) -> Correspondences:
    """N correspondences of a flow (H, W, 2), and the 12 landmarks of the eyes as `flow_landmarks`
    reads them, those that it shows: N + 12.

    Eyes are so few pixels that a fit to points spread over the crop hardly notices their lids.
    """
    wanted = template_landmarks(template)[EYES]
    points, support = flow_landmarks(flow, matchability, wanted, outwards=OUTWARDS[EYES])
    eyes = jax.tree.map(lambda leaf: leaf[EYES], template.landmarks)
    seen = jnp.where(support > 1.0, jnp.minimum(support, _EYE_WEIGHT), 0.0)
    read = Correspondences(points_px=points, surface=eyes, weight=seen)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), found, read)


def recover(
    flow: Array, matchable: Array, fitted_flow: Array, fitted_mask: Array
) -> tuple[Array, Array]:
    """Complete what the network saw from the fitted mesh, pixel by pixel.

    Inside the fitted face everything is matchable: what covers it, and what the network missed, is
    filled in. The network's flow stays where it found the pixel matchable and ends within
    `_AGREES_PX` of the fit's, which leaves skin that moves as no model does to it; what is farther
    off is taken for a mistake.

    The outline is the network's: within `_RIM_PX` of that of the fitted face, inside or outside,
    a pixel is matchable where the network says so. Beards, hair over the face, and cheeks that are
    fuller than the model's are there.

    Args:
      flow, matchable: (H, W, 2) and bool (H, W) from the network.
      fitted_flow, fitted_mask: the same of the fitted mesh; see `labels.flow_to_template`.

    Returns:
      flow (H, W, 2) and mask (H, W).
    """
    rim = _near(fitted_mask) & _near(~fitted_mask)
    agrees = jnp.linalg.norm(flow - fitted_flow, axis=-1) <= _AGREES_PX
    keep = matchable & jnp.where(fitted_mask, agrees, rim)
    return jnp.where(keep[..., None], flow, fitted_flow), jnp.where(rim, matchable, fitted_mask)


def _near(mask: Array) -> Array:
    """Pixels (H, W) with one of the mask in the square of `_RIM_PX` around them."""
    window = 2 * _RIM_PX + 1
    return jax.lax.reduce_window(mask, False, jax.lax.bitwise_or, (window, window), (1, 1), "SAME")
