"""The template: the frontal mean face, rendered once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.camera import crop_camera, project, to_camera
from dfc_jax.crops import box_of_points, crop_of_box
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d, surface_positions
from dfc_jax.raster.render import render
from dfc_jax.texture.appearance import part_vertex_colors
from dfc_jax.types import (
    Array,
    ByValue,
    Camera,
    FaceParams,
    Fragments,
    SurfacePoints,
)

TEMPLATE_DISTANCE_MM = 1000.0


@struct.dataclass(eq=False)
class Template(ByValue):
    """The frontal mean face, rendered once; what every photograph is matched to.

    Attributes:
      image: (H, W, 3) RGB in [0, 1].
      fragments: what each pixel sees.
      valid: (H, W) bool, pixels that take part in correspondence (the neck does not).
      uv: (H, W, 2) atlas coordinates.
      vertices_mm: (V, 3) mean vertices in camera space.
      triangles: (T, 3) of the model.
      landmarks: (68,) surface points.
      camera: the template's camera.
      params: pose and (zero) coefficients of the mean face.
    """

    image: Array
    fragments: Fragments
    valid: Array
    uv: Array
    vertices_mm: Array
    triangles: Array
    landmarks: SurfacePoints
    camera: Camera
    params: FaceParams

    @property
    def size(self) -> int:
        """Edge in pixels."""
        return self.image.shape[0]


def frontal_params(model: FaceModel, size: int = 128) -> FaceParams:
    """Pose of the mean face as `crop_of_box` would cut it, `TEMPLATE_DISTANCE_MM` away."""
    # Compiled as one: half a second less than its operations one by one, in a fresh process.
    landmarks = jax.jit(landmarks3d)(model, model.mean_mm)
    points = np.asarray(landmarks, np.float64) * [1.0, -1.0, -1.0]
    shift, focal = np.zeros(2), 1.0
    # Moving the face sideways changes its perspective a little; three rounds converge.
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
        landmarks=model.landmarks,
        camera=camera,
        params=params,
    )


def _at_nearest(image: Array, xy: Array) -> Array:
    index = jnp.clip(jnp.round(xy), 0, image.shape[0] - 1).astype(jnp.int32)
    return image[index[..., 1], index[..., 0]]


def on_template(template: Template, q: Array) -> Array:
    """Whether points (..., 2) of the template's image lie on its face."""
    inside = jnp.all((q >= -0.5) & (q <= template.size - 0.5), axis=-1)
    return inside & _at_nearest(template.valid, q)


def template_landmarks(template: Template) -> Array:
    """Where the 68 landmarks of the mean face lie in the template: (68, 2) pixels."""
    places = surface_positions(template.vertices_mm, template.triangles, template.landmarks)
    return project(template.camera, places)
