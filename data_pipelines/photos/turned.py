"""Face profiling: photographs turned to other poses and expressions, by the face model fitted.

This is how Zhu et al., "Face Alignment Across Large Poses: A 3D Solution" (2016), section 4, made
300W-LP. The head is the fitted mesh, textured with the photograph. The surroundings are a grid mesh
over the whole picture, the sheet: each vertex lies at the depth of the nearest part of the head or
behind it. Near the head the sheet turns as the head does; at the picture's border it stays. A patch
between the lips shows the inside of the mouth.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from data_pipelines.photos.changes import Changes, changed_expressions
from data_pipelines.photos.labels import PhotoSet, angles_of, fit_points, index_batches
from data_pipelines.photos.shards import ShardedPhotos, write_shards
from data_pipelines.photos.squares import STORED_SCALE
from dfc_jax.camera import project, to_camera
from dfc_jax.crops import CROP_LIFT, CROP_SCALE
from dfc_jax.fitting import LandmarkSettings, visible_landmarks
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d, shape, surface_positions
from dfc_jax.ops.rotations import (
    angles_to_matrix,
    angles_to_rotvec,
    head_rotation,
    matrix_to_angles,
)
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster import interpolate, rasterize
from dfc_jax.raster.flow import is_visible
from dfc_jax.raster.shade import sample_texture
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.systems.dfc.template import Template
from dfc_jax.texture.atlas import Atlas, fill, make_atlas, mirrored
from dfc_jax.texture.observe import Observation, observe
from dfc_jax.types import Array, ByValue, Camera, FaceParams, Fragments

# Cells along an edge of the sheet; it takes its depth from every `_EVERY`-th vertex of the head.
_CELLS, _EVERY = 40, 16
# Depth of the sheet behind the head: its slope beside the outline (millimetres per millimetre), and
# its least distance behind the skin. The rasterizer draws the mouth another `_BEHIND_MM` farther
# away and the sheet twice that, so that neither covers the head.
_SLOPE, _BELOW_MM, _BEHIND_MM = 1.0, 25.0, 2000.0
# A landmark counts as visible up to this far behind the drawn surface: many lie on the rims of lips
# and lids, which hide them by a little.
_LIP_MM = 4.0
# The model's neck is drawn down to this far below the chin.
_THROAT_MM = 15.0
# The sheet turns rigidly with the head within this share of the way from its middle to the border.
_RIGID = 0.55
# Photographs that are turned at once.
_BATCH_CPU, _BATCH_ACCELERATOR = 8, 64
# Texels along an edge of the atlas that carries a photograph's skin.
ATLAS_PX = 256


@struct.dataclass(eq=False)
class Turned(ByValue):
    """A turned photograph: a square around its new landmarks, as `photos.stored_square` cuts one.

    Attributes:
      image: (S, S, 3) RGB in [0, 1].
      template_xy: (S, S, 2) template pixel of each pixel's surface point.
      matchable: (S, S) bool.
      points: (68, 2) landmarks, pixels.
      visible: (68,) bool, whether the turned head shows the landmark's place on its surface.
      params: the turned face; its focal length and `principal_point` are those of the square.
      principal_point: (2,) pixels.
    """

    image: Array
    template_xy: Array
    matchable: Array
    points: Array
    visible: Array
    params: FaceParams
    principal_point: Array


@partial(jax.jit, static_argnames="scale")
def turn(
    model: FaceModel,
    atlas: Atlas,
    template: Template,
    image: Array,
    points: Array,
    params: FaceParams,
    yaw_deg: Array,
    scale: float = CROP_SCALE,
    pitch_deg: Array | None = None,
    expression: Array | None = None,
) -> Turned:
    """Turn the face of a photograph to a yaw and a pitch, its roll stays, and give it another
    expression: lids close over the eyes, lips over an open mouth. Batches through vmap.

    Args:
      model: the face model.
      atlas: of the model.
      template: of the model.
      image: (S, S, 3) RGB in [0, 1], a square with the face in its middle.
      points: (68, 2) annotated points, pixels, NaN where a point is hidden; the texture is sampled
        at them, not at the fit.
      params: fitted to them, the principal point at the middle of the square.
      yaw_deg: the new yaw, as in `dfc_jax.types`.
      scale: edge of the new square over the longer edge of the new landmark box.
      pitch_deg: the new pitch; None for the photograph's own.
      expression: (E,) the new weights of the expression; None for the photograph's own.
    """
    size = image.shape[0]
    camera = Camera(params.focal_px, jnp.full(2, (size - 1) / 2.0))
    angles = matrix_to_angles(head_rotation(params.rotation))
    new = angles.at[0].set(yaw_deg)
    new = new if pitch_deg is None else new.at[1].set(pitch_deg)
    expression = params.expression if expression is None else expression
    turned = dataclasses.replace(params, rotation=angles_to_rotvec(new), expression=expression)
    before, after = (
        to_camera(each, shape(model, each.identity, each.expression)) for each in (params, turned)
    )
    sheet, sheet_xy = _sheet(camera, before, params, angles, new, size)

    mouth, mouth_xy = _mouth(model, camera, before, after, points)

    places = surface_positions(after, model.triangles, visible_landmarks(model, turned))
    camera = _aimed(camera, places, size, scale)

    kept = jnp.where(_is_throat(model)[:, None], 0, model.triangles)
    patches = jnp.concatenate([_SHEET_TRIANGLES, len(sheet) + _MOUTH_TRIANGLES])
    triangles = jnp.concatenate([kept, len(after) + patches])
    corners = jnp.concatenate([after, sheet, mouth])
    layers = after[:, 2], sheet[:, 2] + 2.0 * _BEHIND_MM, mouth[:, 2] + _BEHIND_MM
    depth = jnp.concatenate(layers)
    seen = rasterize(project(camera, corners), depth, triangles, size, cull_backfaces=True)
    is_head = seen.pix_to_face < len(model.triangles)
    head = Fragments(
        pix_to_face=jnp.where(is_head, seen.pix_to_face, -1),
        zbuf=jnp.where(is_head, seen.zbuf, jnp.inf),
        bary_coords=seen.bary_coords,
    )
    texture = _texture(observe(model, atlas, params, image, points), atlas)
    picture_xy = jnp.concatenate([jnp.zeros((len(after), 2)), sheet_xy, mouth_xy])
    behind = interpolate(seen, triangles, picture_xy)
    skin = sample_texture(texture, interpolate(head, model.triangles, model.uv))

    flow, matchable = flow_to_template(head, template)
    points = project(camera, places)
    color = jnp.where(is_head[..., None], skin, bilinear_sample(image, behind))
    return Turned(
        image=jnp.clip(color, 0.0, 1.0),
        template_xy=flow + pixel_grid(size, size),
        matchable=matchable,
        points=points,
        visible=is_visible(head.zbuf, points, places[:, 2] - _LIP_MM),
        params=dataclasses.replace(turned, focal_px=camera.focal_px),
        principal_point=camera.principal_point,
    )


def _aimed(camera: Camera, places: Array, size: int, scale: float) -> Camera:
    """The camera shifted and zoomed until its size x size square is that of `crop_of_box` for the
    landmarks' places (68, 3), `scale` times the longer edge of their box."""
    found = project(camera, places)
    low, high = found.min(axis=0), found.max(axis=0)
    edge = jnp.max(high - low)
    centre = 0.5 * (low + high) - jnp.array([0.0, CROP_LIFT]) * edge
    zoom, middle = size / (scale * edge), (size - 1) / 2.0
    return Camera(zoom * camera.focal_px, zoom * (camera.principal_point - centre) + middle)


def turned_photos(
    model: FaceModel,
    template: Template,
    photos: PhotoSet,
    changes: Changes,
    batch: int | None = None,
) -> PhotoSet:
    """Every photograph of a set changed as the N `changes` say, with its labels.

    Raises:
      DatasetError: the model is not left-right symmetric.
    """
    if batch is None:
        batch = _BATCH_CPU if jax.default_backend() == "cpu" else _BATCH_ACCELERATOR
    atlas = make_atlas(model, ATLAS_PX)
    fits = fit_points(model, photos.points, LandmarkSettings(), photos.contour).params
    pose = np.column_stack([changes.yaw_deg, changes.pitch_deg, angles_of(fits)[:, 2]])
    expression = changed_expressions(model, np.asarray(fits.expression), changes)

    parts = []
    for index in index_batches(len(photos), batch):
        params = jax.tree.map(lambda leaf, index=index: leaf[index], fits)
        new = jnp.asarray(pose[index]), jnp.asarray(expression[index])
        given = photos.images[index], photos.points[index], params, *new
        parts.append(jax.device_get(_turn_batch(model, atlas, template, *given)))
    images, points, template_xy, matchable = (
        np.concatenate(arrays)[: len(photos)] for arrays in zip(*parts, strict=True)
    )
    template_xy = np.where(matchable[..., None], template_xy, 0.0).astype(np.float16)
    labels = points, photos.annotated, template_xy, matchable, photos.error
    # The new jaw follows the contour; which half of the face is seen, the yaw says.
    kind = np.ones(len(photos), bool), photos.profile
    return PhotoSet(photos.names, images, *labels, *kind, pose)


@jax.jit
@partial(jax.vmap, in_axes=(None, None, None, 0, 0, 0, 0, 0))
def _turn_batch(
    model: FaceModel,
    atlas: Atlas,
    template: Template,
    image: Array,
    points: Array,
    params: FaceParams,
    pose: Array,
    expression: Array,
) -> tuple[Array, Array, Array, Array]:
    image = image.astype(jnp.float32) / 255.0
    given = image, points, params, pose[0], STORED_SCALE, pose[1], expression
    turned = turn(model, atlas, template, *given)
    colors = jnp.round(255.0 * turned.image).astype(jnp.uint8)
    return colors, turned.points, turned.template_xy, turned.matchable


def write_turned(
    folder: Path,
    model: FaceModel,
    template: Template,
    photos: ShardedPhotos,
    changes: Changes,
    more: int = 0,
) -> ShardedPhotos:
    """`turned_photos` of a whole set, written to a folder of shards; see `write_shards`."""

    def make(start: int, stop: int) -> tuple[PhotoSet, list[str]]:
        some = photos.load(np.arange(start, stop))
        own = jax.tree.map(lambda column: column[start:stop], changes)
        return turned_photos(model, template, some, own), []

    return write_shards(folder, len(photos), make, more)


def _is_throat(model: FaceModel) -> Array:
    """(T,) bool, triangles of the neck below the chin. The model's neck rarely lies on that of the
    photograph, so the sheet shows it instead."""
    height = model.mean_mm[model.triangles, 1].mean(axis=1)
    chin = landmarks3d(model, model.mean_mm)[8, 1]
    return (model.triangle_part == PARTS.index("neck")) & (height < chin - _THROAT_MM)


def _texture(seen: Observation, atlas: Atlas) -> Array:
    """Texture (S, S, 3): the skin that the photograph shows; where it shows none, the other side of
    the face; elsewhere a smooth continuation of both."""
    other, borrowed = mirrored(atlas, seen.color), mirrored(atlas, seen.weight[..., None])
    own = seen.weight[..., None]
    borrowed = (1.0 - own) * borrowed
    weight = own + borrowed
    color = (own * seen.color + borrowed * other) / jnp.maximum(weight, 1e-6)
    mean = jnp.sum(weight * color, axis=(0, 1)) / jnp.maximum(jnp.sum(weight), 1e-6)
    smooth = mean + fill(color - mean, jnp.where(weight > 0.5, weight, 0.0)[..., 0])
    share = jnp.clip(2.0 * weight, 0.0, 1.0)
    return share * color + (1.0 - share) * smooth


def _sheet_triangles() -> np.ndarray:
    """Two triangles a cell, counter-clockwise as the camera sees them with y up."""
    corner = np.arange((_CELLS + 1) ** 2).reshape(_CELLS + 1, _CELLS + 1)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    return np.concatenate(
        [np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    ).astype(np.int32)


_SHEET_TRIANGLES = _sheet_triangles()
# Landmarks of the upper and lower outline of the lips, from corner to corner.
_UPPER, _LOWER = (48, 49, 50, 51, 52, 53, 54), (48, 59, 58, 57, 56, 55, 54)


def _mouth_triangles() -> np.ndarray:
    """A band between both outlines, in the order of `_sheet_triangles`."""
    a, b, c, d = _UPPER[:-1], _UPPER[1:], _LOWER[:-1], _LOWER[1:]
    both = [*zip(a, c, b, strict=True), *zip(b, c, d, strict=True)]
    return np.array([corners for corners in both if len(set(corners)) == 3], np.int32)


_MOUTH_TRIANGLES = _mouth_triangles()


def _mouth(
    model: FaceModel, camera: Camera, before: Array, after: Array, points: Array
) -> tuple[Array, Array]:
    """What an open mouth shows, as flat as a picture: the landmarks (68, 3) of the turned head, of
    which `_MOUTH_TRIANGLES` takes the lips, and the pixels (68, 2) that they show."""
    own, turned = (surface_positions(v, model.triangles, model.landmarks) for v in (before, after))
    return turned, jnp.where(jnp.isfinite(points), points, project(camera, own))


def _sheet(
    camera: Camera,
    head_mm: Array,
    params: FaceParams,
    angles: Array,
    new: Array,
    size: int,
) -> tuple[Array, Array]:
    """The sheet of a head that turns from `angles` to `new`, both (3,): its turned vertices (N, 3)
    in camera space, and the pixels (N, 2) of the picture that they show. The outermost vertices lie
    far outside, which continues the picture's border."""
    step = jnp.arange(_CELLS + 1.0) / _CELLS
    x, y = jnp.meshgrid(step * (size - 1), step * (size - 1), indexing="xy")
    xy = jnp.stack([x, y], axis=-1).reshape(-1, 2)
    some = head_mm[::_EVERY]
    some_xy = project(camera, some)
    squared = jnp.sum((xy[:, None] - some_xy) ** 2, axis=-1)
    # Inverse distances to the fourth power: the depth of what is nearest.
    weight = 1.0 / (squared + (0.02 * size) ** 2) ** 2
    depth = weight @ some[:, 2] / jnp.sum(weight, axis=-1)
    spacing = jnp.sqrt(jnp.min(squared, axis=-1)) * depth / camera.focal_px
    depth = depth + _BELOW_MM + _SLOPE * jnp.maximum(spacing - _BELOW_MM, 0.0)
    ray = (xy - camera.principal_point) / camera.focal_px
    position = jnp.concatenate([ray, jnp.ones_like(ray[:, :1])], axis=-1) * depth[:, None]

    # Where the sheet follows the head: 1 around its middle, 0 at the border.
    middle = 0.5 * (some_xy.min(axis=0) + some_xy.max(axis=0))
    reach = jnp.where(xy < middle, middle, size - 1.0 - middle)
    away = jnp.linalg.norm((xy - middle) / jnp.maximum(reach, 1.0), axis=-1)
    share = jnp.clip((1.0 - away) / (1.0 - _RIGID), 0.0, 1.0)
    share = share * share * (3.0 - 2.0 * share)

    def moved(place: Array, share: Array) -> Array:
        part = angles_to_matrix(angles + share * (new - angles))
        model_mm = (place - params.translation_mm) @ head_rotation(params.rotation)
        return part @ model_mm + params.translation_mm

    position = jax.vmap(moved)(position, share)
    at_border = jnp.any((xy <= 0.0) | (xy >= size - 1.0), axis=-1)[:, None]
    far = jnp.concatenate([3.0 * size * (xy - middle), jnp.zeros_like(xy[:, :1])], axis=-1)
    return position + jnp.where(at_border, far, 0.0), xy
