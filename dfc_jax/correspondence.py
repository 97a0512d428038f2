"""Dense correspondence: the template, exact flow between renders, labels, and the 2D-3D lift."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.camera import box_of_points, crop_camera, crop_of_box, project, to_camera
from dfc_jax.morphable.core import PARTS, FaceModel, landmarks3d, surface_positions
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster import rasterize
from dfc_jax.raster.render import render
from dfc_jax.types import (
    Array,
    ByValue,
    Camera,
    Correspondences,
    FaceParams,
    Fragments,
    SurfacePoints,
)

TEMPLATE_DISTANCE_MM = 1000.0
# Under the thickness of a lid, so that an eyeball behind one counts as hidden.
VISIBILITY_TOLERANCE_MM = 1.0
UV_TOLERANCE = 0.015
# Correspondences that are taken from a flow.
N_POINTS = 1024
# The template's looks (linear RGB albedo per part, in the order of `PARTS`): enough contrast
# for an encoder to tell the parts apart.
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


@struct.dataclass(eq=False)
class Template(ByValue):
    """The frontal mean face, rendered once; what every photograph is matched to.

    Attributes:
      image: (H, W, 3) RGB in [0, 1].
      fragments: what each pixel sees.
      valid: (H, W) bool, pixels that take part in correspondence (the neck does not).
      uv: (H, W, 2) chart coordinates.
      vertices_mm: (V, 3) mean vertices in camera space.
      triangles: (T, 3) of the model.
      camera: the template's camera.
      params: pose and (zero) coefficients of the mean face.
    """

    image: Array
    fragments: Fragments
    valid: Array
    uv: Array
    vertices_mm: Array
    triangles: Array
    camera: Camera
    params: FaceParams

    @property
    def size(self) -> int:
        return self.image.shape[0]


def frontal_params(model: FaceModel, size: int = 128) -> FaceParams:
    """Pose of the mean face as `crop_of_box` would cut it, `TEMPLATE_DISTANCE_MM` away."""
    # Compiled as one: half a second less than its operations one by one, in a fresh process.
    landmarks = jax.jit(landmarks3d)(model, model.mean_mm)
    points = np.asarray(landmarks, np.float64) * [1.0, -1.0, -1.0]
    shift, focal = np.zeros(2), 1.0
    # Moving the face sideways changes its perspective a little; three rounds settle it.
    for _ in range(3):
        moved = points + [*shift, TEMPLATE_DISTANCE_MM]
        crop = crop_of_box(box_of_points(moved[:, :2] / moved[:, 2:]), size)
        shift = shift - crop.centre * TEMPLATE_DISTANCE_MM
        focal = crop.scale
    return FaceParams(
        focal_px=jnp.float32(focal),
        rotation=jax.device_put(np.zeros(3, np.float32)),
        translation_mm=jnp.array([*shift, TEMPLATE_DISTANCE_MM], jnp.float32),
        identity=jax.device_put(np.zeros(model.n_identity, np.float32)),
        expression=jax.device_put(np.zeros(model.n_expression, np.float32)),
    )


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


# Frontal soft light: constant and towards-the-camera terms of the spherical harmonics.
_TEMPLATE_LIGHT = np.zeros((9, 3), np.float32)
_TEMPLATE_LIGHT[0], _TEMPLATE_LIGHT[2] = 2.2, -1.0


def make_template(model: FaceModel, size: int = 128) -> Template:
    """Render the template of a face model at size x size pixels."""
    return _draw_template(model, frontal_params(model, size), size)


# It runs once in a process: without optimizations it compiles in a third of the time.
@partial(jax.jit, static_argnames="size", compiler_options={"xla_backend_optimization_level": 0})
def _draw_template(model: FaceModel, params: FaceParams, size: int) -> Template:
    camera = crop_camera(params, size)
    vertices = to_camera(params, model.mean_mm)
    image = render(
        vertices,
        model.triangles,
        camera,
        size,
        uv=model.uv,
        vertex_colors=part_vertex_colors(model),
        sh=jnp.asarray(_TEMPLATE_LIGHT),
    )
    part = model.triangle_part[jnp.maximum(image.fragments.pix_to_face, 0)]
    return Template(
        image=jnp.clip(image.rgb, 0.0, 1.0),
        fragments=image.fragments,
        valid=image.mask & (part != PARTS.index("neck")),
        uv=image.uv,
        vertices_mm=vertices,
        triangles=model.triangles,
        camera=camera,
        params=params,
    )


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
    visible = (_cross(b - a, c - a) < 0) & unhidden(target.zbuf, q, position[..., 2])
    flow = jnp.where(foreground[..., None], q - pixel_grid(size, size), 0.0)
    return flow, foreground & visible


def unhidden(zbuf: Array, q: Array, depth_mm: Array) -> Array:
    """Whether points at pixels q (..., 2) lie inside the image and not behind its z-buffer."""
    size = zbuf.shape[0]
    inside = jnp.all((q >= -0.5) & (q <= size - 0.5), axis=-1)
    x, y = jnp.moveaxis(jnp.clip(jnp.floor(q), 0, size - 2).astype(jnp.int32), -1, 0)
    depth = jnp.where(jnp.isfinite(zbuf), zbuf, -jnp.inf)
    above = jnp.maximum(depth[y, x], depth[y, x + 1])
    below = jnp.maximum(depth[y + 1, x], depth[y + 1, x + 1])
    return inside & (depth_mm <= jnp.maximum(above, below) + VISIBILITY_TOLERANCE_MM)


def flow_to_template(source: Fragments, template: Template) -> tuple[Array, Array]:
    """Exact flow (H, W, 2) in pixels and matchability (H, W) from a render to the template.

    The source may be of another size than the template; the flow then is still
    ``q - p`` with q in template pixels.
    """
    flow, matchable = ground_truth_flow(
        source,
        template.fragments,
        template.vertices_mm,
        template.camera,
        template.triangles,
    )
    q = flow + pixel_grid(*source.pix_to_face.shape)
    return flow, matchable & _at_nearest(template.valid, q)


def _at_nearest(image: Array, xy: Array) -> Array:
    index = jnp.clip(jnp.round(xy), 0, image.shape[0] - 1).astype(jnp.int32)
    return image[index[..., 1], index[..., 0]]


def nearest_uv_labels(
    uv: Array, foreground: Array, template: Template, max_distance: float = UV_TOLERANCE
) -> tuple[Array, Array]:
    """The paper's labels for a photograph with a fitted mesh: flow (H, W, 2) and matchability.

    Each foreground pixel with chart coordinates uv (H, W, 2) goes to the template pixel with
    the nearest chart coordinates, matchable if closer than `max_distance`. Whole template
    pixels only; `flow_to_template` is its exact counterpart.
    """
    size = uv.shape[0]
    template_uv = jnp.where(template.valid[..., None], template.uv, jnp.inf).reshape(-1, 2)

    def nearest(row: Array) -> tuple[Array, Array]:
        squared = jnp.sum((row[:, None] - template_uv) ** 2, axis=-1)
        return jnp.argmin(squared, axis=-1), jnp.sqrt(jnp.min(squared, axis=-1))

    index, distance = jax.lax.map(nearest, uv)
    q = jnp.stack([index % template.size, index // template.size], axis=-1).astype(jnp.float32)
    matchable = foreground & (distance < max_distance)
    return jnp.where(foreground[..., None], q - pixel_grid(size, size), 0.0), matchable


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
    area = _cross(edge1, edge2)
    safe = jnp.where(jnp.abs(area) < 1e-6, 1.0, area)
    b1, b2 = _cross(offset, edge2) / safe, _cross(edge1, offset) / safe
    affine = jnp.stack([1.0 - b1 - b2, b1, b2], axis=-1)
    weighted = affine / corners[..., 2]
    exact = weighted / jnp.sum(weighted, axis=-1, keepdims=True)
    # A sliver seen edge-on would send q far outside; there the pixel's own point is better.
    usable = (jnp.abs(area) >= 1e-6) & (jnp.max(jnp.abs(exact), axis=-1) < 2.0)
    at_pixel = template.fragments.bary_coords[row, column]
    barycentric = jnp.where(usable[..., None], exact, at_pixel)
    points = SurfacePoints(triangle=triangle, barycentric=barycentric)
    return points, _on_template(template, q)


def _on_template(template: Template, q: Array) -> Array:
    inside = jnp.all((q >= -0.5) & (q <= template.size - 0.5), axis=-1)
    return inside & _at_nearest(template.valid, q)


def _cross(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


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
    candidate = (probability > threshold) & _on_template(template, q)
    chosen = jnp.nonzero(candidate, size=n_points, fill_value=size * size)[0]
    used = chosen < size * size
    chosen = jnp.minimum(chosen, size * size - 1)
    surface, seen = surface_at(template, q[chosen])
    return Correspondences(
        points_px=p[chosen],
        surface=surface,
        weight=jnp.where(used & seen, probability[chosen], 0.0),
    )


def template_landmarks(model: FaceModel, template: Template) -> Array:
    """Where the 68 landmarks of the mean face lie in the template: (68, 2) pixels."""
    return project(
        template.camera,
        surface_positions(template.vertices_mm, model.triangles, model.landmarks),
    )


def flow_landmarks(
    flow: Array,
    matchability: Array,
    template_xy: Array,
    bandwidth_px: float = 2.5,
    stride: int = 2,
) -> tuple[Array, Array]:
    """Landmarks read from a flow alone: where does it land on each landmark's template position?

    Around each landmark a local affine map from template to crop, ``p = a + B (q - q_k)``, is
    fitted by least squares to the pixels, weighted by matchability and a Gaussian in q; its
    intercept is the landmark, to a fraction of a pixel.

    Args:
      flow: (H, W, 2) pixels.
      matchability: (H, W) in [0, 1].
      template_xy: (M, 2) positions in the template.
      bandwidth_px: standard deviation of the Gaussian, template pixels.
      stride: one pixel in `stride` is used, in both directions.

    Returns:
      points (M, 2) in crop pixels and support (M,), the sum of the weights: below about 1 the
      landmark is not seen and the point means nothing.
    """
    grid = pixel_grid(*flow.shape[:2])[::stride, ::stride].reshape(-1, 2)
    q = grid + flow[::stride, ::stride].reshape(-1, 2)
    offset = (q[None] - template_xy[:, None]) / bandwidth_px
    weight = matchability[::stride, ::stride].reshape(-1) * jnp.exp(
        -0.5 * jnp.sum(offset**2, axis=-1)
    )
    design = jnp.concatenate([jnp.ones_like(offset[..., :1]), offset], axis=-1)
    weighted = design * weight[..., None]
    gram = jnp.einsum("mni,mnj->mij", weighted, design)
    # A ridge on the slopes only: with little support the estimate is the weighted mean.
    ridge = 1e-2 * jnp.diag(jnp.array([0.0, 1.0, 1.0])) + 1e-6 * jnp.eye(3)
    solved = jnp.linalg.solve(gram + ridge, jnp.einsum("mni,nj->mij", weighted, grid))
    return solved[:, 0], jnp.sum(weight, axis=1)


def recover(
    flow: Array, matchable: Array, fitted: Fragments, template: Template
) -> tuple[Array, Array]:
    """Fill what the network missed from the fitted mesh.

    Args:
      flow, matchable: (H, W, 2) and bool (H, W) from the network.
      fitted: what each pixel of the crop sees of the fitted mesh.
      template: the template.

    Returns:
      flow and mask, the network's where it is matchable and on the fitted mesh, else the fit's.
    """
    fitted_flow, fitted_mask = flow_to_template(fitted, template)
    keep = matchable & fitted_mask
    return jnp.where(keep[..., None], flow, fitted_flow), fitted_mask
