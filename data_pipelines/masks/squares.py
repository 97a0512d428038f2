"""Squares in which it is known, for some pixels, whether they show the face.

They come from renders, where all is known; from photographs with landmarks, to which the face model
is fitted; from photographs with masks; and from pictures without a face.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from data_pipelines.faces.shapes import (
    SKULL_AXES_MM,
    SKULL_MM,
    ellipsoid,
    find_head,
    inside_polygon,
    pixel_planes,
)
from data_pipelines.faces.synthetic import (
    Picture,
    SyntheticAssets,
    SyntheticSettings,
    sample_picture,
)
from data_pipelines.photos.labels import PhotoSet
from data_pipelines.photos.shards import ShardedPhotos
from data_pipelines.photos.squares import STORED_PX, STORED_SCALE, read_square
from dfc_jax.camera import crop_camera, project, to_camera
from dfc_jax.crops import CROP_SCALE
from dfc_jax.data.faces import AnnotatedFace, FaceSet, collect
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import BROWS, INNER_LIPS, N_LANDMARKS
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d
from dfc_jax.raster import interpolate
from dfc_jax.systems.dfc.template import Template, frontal_params, template_landmarks
from dfc_jax.types import AnyArray, Array, ByValue

# What a pixel shows: something else, the face, or what nobody knows.
OTHER, FACE, UNKNOWN = 0, 1, 2
# How far below its line the hair of the head may still be painted.
_STUBBLE_MM = 5.0
# Squares that are made at once.
CHUNK = 16


@struct.dataclass(eq=False)
class MaskSquares(ByValue):
    """N squares of S x S pixels, S = `STORED_PX`, each around a face as `photos.squares` cuts them.

    Attributes:
      images: (N, S, S, 3) uint8 RGB.
      regions: (N, S, S) uint8, `OTHER`, `FACE` or `UNKNOWN`.
      points: (N, 68, 2) float32 landmarks in their pixels, roughly; where there is no face, where
        one could be. What is put on faces is put there.
    """

    images: AnyArray
    regions: AnyArray
    points: AnyArray


def of_rendered(
    key: Array, count: int, assets: SyntheticAssets, settings: SyntheticSettings
) -> MaskSquares:
    """Rendered faces, with what covers some of them. Where hair grows it may be painted on the
    skin, so that is `UNKNOWN`."""
    settings = dataclasses.replace(settings, size=STORED_PX, shown=STORED_SCALE)

    @jax.jit
    def render(keys: Array, assets: SyntheticAssets) -> MaskSquares:
        made = jax.vmap(lambda one: sample_picture(one, assets, settings))(keys)
        regions = jax.vmap(partial(_rendered_region, assets))(made)
        levels = jnp.round(255.0 * made.image).astype(jnp.uint8)
        return MaskSquares(levels, regions, made.scene.landmarks_px)

    keys = jax.random.split(key, count)
    parts = [jax.device_get(render(keys[index], assets)) for index in _chunks(count)]
    return _joined(parts, count)


def _rendered_region(assets: SyntheticAssets, picture: Picture) -> Array:
    """The region (S, S) of a picture."""
    hairline = assets.maps.hairline_mm[:, None]
    hairy = interpolate(picture.fragments, assets.model.triangles, hairline)[..., 0] > -_STUBBLE_MM
    seen = jnp.where(hairy, UNKNOWN, FACE)
    region = jnp.where(picture.face(assets.model), seen, OTHER).astype(jnp.uint8)
    region = _with_mouth(region, picture.scene.landmarks_px)
    return jnp.where(picture.occluded > 0.0, jnp.uint8(OTHER), region)


def _chunks(count: int) -> Iterator[np.ndarray]:
    """0 to `count` in chunks of one size; the last one repeats the last."""
    for start in range(0, count, CHUNK):
        yield np.minimum(np.arange(start, start + CHUNK), count - 1)


def _joined(parts: Sequence[MaskSquares], count: int) -> MaskSquares:
    """The first `count` squares of all parts."""
    if not parts:
        square = (0, STORED_PX, STORED_PX)
        return MaskSquares(
            np.zeros((*square, 3), np.uint8),
            np.zeros(square, np.uint8),
            np.zeros((0, N_LANDMARKS, 2), np.float32),
        )
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)


# Of the longer edge of the landmark box: how far from a border of the fitted mesh nobody knows on
# which side of it a pixel lies; at most so many pixels.
_BORDER, _WIDEST = 0.025, 6
# How far above the brows hair may hang, in parts of the template's edge.
_FRINGE = 0.03
# Hair and ears are within this many times the skull.
_HEAD = 1.15


def of_photographs(
    photos: ShardedPhotos | PhotoSet, model: FaceModel, template: Template
) -> MaskSquares:
    """Stored photographs, with what the mesh that was fitted to their landmarks says.

    Between brows and chin, what it covers is the face: few photographs have something in front of
    it. Hair may hang over the forehead and the ears, so these are `UNKNOWN`, and so are the rest of
    the head and a narrow band along the border.
    """
    certain = certain_part(model, template)
    regions = jax.jit(jax.vmap(partial(fitted_region, certain)))
    parts = []
    for index in _chunks(len(photos)):
        some = photos.as_example(index)
        found = regions(some.template_xy, some.matchable, some.points)
        parts.append(MaskSquares(some.image, np.asarray(found), some.points))
    return _joined(parts, len(photos))


def certain_part(model: FaceModel, template: Template) -> Array:
    """Where the template (T, T) shows what neither hair nor anything worn often covers."""
    triangle = jnp.maximum(template.fragments.pix_to_face, 0)
    is_ear = model.triangle_part[triangle] == PARTS.index("ears")
    top = template_landmarks(template)[BROWS, 1].min() - _FRINGE * template.size
    return template.valid & ~is_ear & (jnp.arange(template.size)[:, None] >= top)


def fitted_region(certain: Array, template_xy: Array, matchable: Array, points: Array) -> Array:
    """The region (S, S) of a labelled photograph, see `of_photographs` and `LabelledPhoto`."""
    size = matchable.shape[0]
    edge = jnp.max(points.max(axis=0) - points.min(axis=0))
    place = jnp.clip(jnp.round(template_xy), 0, len(certain) - 1).astype(jnp.int32)
    face = matchable & certain[place[..., 1], place[..., 0]]
    reach = _BORDER * edge
    at_border = _within(matchable, reach) & _within(~matchable, reach)
    axes = _HEAD * jnp.array(SKULL_AXES_MM)
    head, _ = ellipsoid(find_head(points), pixel_planes(size), jnp.array(SKULL_MM), axes)
    unknown = at_border | (~face & (matchable | (head < 0.0)))
    region = jnp.where(unknown, UNKNOWN, jnp.where(face, FACE, OTHER)).astype(jnp.uint8)
    return _with_mouth(region, points)


def _with_mouth(region: Array, points: Array) -> Array:
    """A region (S, S) with what is between the lips of points (68, 2), which is the face's."""
    inside = inside_polygon(pixel_planes(len(region)), points[INNER_LIPS])
    return jnp.where(inside, jnp.uint8(FACE), region)


def _within(mask: Array, reach: Array) -> Array:
    """Pixels (S, S) no farther than `reach` () from the mask (S, S), along x and along y."""
    grown, found = mask, mask
    for step in range(1, _WIDEST + 1):
        grown = jax.lax.reduce_window(grown, False, jnp.logical_or, (3, 3), (1, 1), "SAME")
        found = jnp.where(step <= reach, grown, found)
    return found


def of_masks(faces: FaceSet, model: FaceModel) -> tuple[MaskSquares, list[str]]:
    """Photographs with masks, and one sentence for each that cannot be read; what of a mask counts
    its reader says. Points are those of the mean face, in the box of each."""
    squares, problems = collect(faces, _masked)
    if not squares:
        return _joined([], 0), problems
    images, regions = (np.stack(leaves) for leaves in zip(*squares, strict=True))
    return MaskSquares(images, regions, _mean_points(model, len(images))), problems


def _masked(face: AnnotatedFace) -> tuple[np.ndarray, np.ndarray]:
    """Image and region of a face with a mask."""
    if face.mask is None:
        raise DatasetError(f"{face.photo}: has no mask; give a set with masks")
    square = read_square(face)
    shown, counted = face.mask()
    # Beyond the photograph's borders all is black, and no face.
    planes = [mask.astype(np.float32) for mask in (shown & counted, ~counted)]
    is_face, unknown = (
        cv2.warpAffine(plane, square.to_square, (STORED_PX, STORED_PX)) > 0.5 for plane in planes
    )
    region = np.where(unknown, UNKNOWN, np.where(is_face, FACE, OTHER))
    return square.image, region.astype(np.uint8)


def of_nothing(pictures: AnyArray, model: FaceModel) -> MaskSquares:
    """Pictures (M, P, P, 3) uint8 that show no face."""
    resized = [cv2.resize(picture, (STORED_PX, STORED_PX)) for picture in np.asarray(pictures)]
    if not resized:
        return _joined([], 0)
    regions = np.full((len(resized), STORED_PX, STORED_PX), OTHER, np.uint8)
    return MaskSquares(np.stack(resized), regions, _mean_points(model, len(resized)))


def _mean_points(model: FaceModel, count: int) -> np.ndarray:
    """Where the landmarks of the mean face lie in a square: (count, 68, 2)."""
    params = frontal_params(model, STORED_PX)
    camera = crop_camera(params, STORED_PX)
    points = project(camera, to_camera(params, landmarks3d(model, model.mean_mm)))
    middle = (STORED_PX - 1) / 2.0
    square = middle + CROP_SCALE / STORED_SCALE * (np.asarray(points, np.float32) - middle)
    return np.repeat(square[None], count, axis=0)
