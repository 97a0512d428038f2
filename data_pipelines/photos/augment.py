"""Augmentation of labelled face photographs, on the device: pure, one example per call.

An example is a square of a photograph wider than a crop, with its labels as maps of the same
size: where each pixel lies in the template, and whether it is matchable. One random similarity
cuts a crop from it; the labels follow exactly. ``vmap`` over examples and keys.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from data_pipelines.faces.degradation import DegradationSettings, degrade
from data_pipelines.faces.occluders import OccluderSettings, occlude
from dfc_jax.landmarks68 import MIRROR
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.types import AnyArray, Array, ByValue


@dataclasses.dataclass(frozen=True)
class AugmentSettings:
    """Ranges of the random changes; lengths are in parts of the crop's side.

    Attributes:
      size: pixels along an edge of the crop.
      rotation_deg: standard deviation of the in-plane rotation.
      wide_rotation: share of crops turned by up to 60 degrees either way instead.
      scale: the crop's side is multiplied by a log-uniform factor in [1/scale, scale].
      translation: the crop's centre moves by up to this, each way.
      flip: share of mirrored crops.
      occluders: what hides the face; labels stay as they are.
      degradation: what the camera does.
    """

    size: int = 128
    rotation_deg: float = 15.0
    wide_rotation: float = 0.1
    scale: float = 1.25
    translation: float = 0.13
    flip: float = 0.5
    # Photographs bring hair, glasses and hats of their own, and wear of theirs; half stay whole.
    occluders: OccluderSettings = OccluderSettings(
        box=0.15, hair=0.05, glasses=0.1, hat=0.03, hood=0.02, objects=0.06, hand=0.08
    )
    degradation: DegradationSettings = DegradationSettings(degraded=0.45)


@struct.dataclass(eq=False)
class LabelledPhoto(ByValue):
    """A square of S x S pixels; a crop without augmentation is its middle `crop_px` pixels.

    Attributes:
      image: (S, S, 3) uint8 RGB.
      template_xy: (S, S, 2) template pixel of each pixel's surface point.
      matchable: (S, S) bool.
      points: (68, 2) landmarks, pixels.
      annotated: (68,) bool, which of them are annotated; the others are guesses.
    """

    image: AnyArray
    template_xy: AnyArray
    matchable: AnyArray
    points: AnyArray
    annotated: AnyArray


@struct.dataclass(eq=False)
class Labelled(ByValue):
    """A training crop: image (s, s, 3) in [0, 1], flow (s, s, 2) px, matchable (s, s) in {0, 1}."""

    image: Array
    flow: Array
    matchable: Array


def random_similarity(
    key: Array, settings: AugmentSettings, crop_px: float, source_px: int
) -> Array:
    """(2, 3) map from crop pixels to pixels of the square that it is cut from."""
    keys = jax.random.split(key, 5)
    narrow = settings.rotation_deg * jnp.clip(jax.random.normal(keys[0]), -2.5, 2.5)
    wide = jax.random.uniform(keys[1], minval=-60.0, maxval=60.0)
    is_wide = jax.random.bernoulli(keys[2], settings.wide_rotation)
    angle = jnp.deg2rad(jnp.where(is_wide, wide, narrow))
    log_scale = jnp.log(settings.scale) * jax.random.uniform(keys[3], minval=-1.0)
    side = crop_px * jnp.exp(log_scale)
    shift = settings.translation * crop_px * jax.random.uniform(keys[4], (2,), minval=-1.0)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    linear = side / settings.size * jnp.array([[cosine, -sine], [sine, cosine]])
    middle = (settings.size - 1) / 2.0
    offset = (source_px - 1) / 2.0 + shift - linear @ jnp.full(2, middle)
    return jnp.concatenate([linear, offset[:, None]], axis=1)


def cut(photo: LabelledPhoto, matrix: Array, size: int) -> Labelled:
    """The size x size crop whose pixels `matrix` (2, 3) maps to the photo's, with its labels."""
    xy = pixel_grid(size, size) @ matrix[:, :2].T + matrix[:, 2]
    image = photo.image.astype(jnp.float32) / 255.0
    mask = photo.matchable[..., None]
    # Positions are blended among matchable pixels only, hence the zeros.
    known = jnp.where(mask, photo.template_xy.astype(jnp.float32), 0.0)
    stacked = jnp.concatenate([image, known, mask.astype(jnp.float32)], axis=-1)
    sampled = bilinear_sample(stacked, xy, fill=0.0)
    share = sampled[..., 5]
    q = sampled[..., 3:5] / jnp.maximum(share, 1e-3)[..., None]
    matchable = share > 0.5
    flow = jnp.where(matchable[..., None], q - pixel_grid(size, size), 0.0)
    return Labelled(image=sampled[..., :3], flow=flow, matchable=matchable.astype(jnp.float32))


def mirror(crop: Labelled) -> Labelled:
    """The crop seen in a mirror. The template is symmetric: p and q both go to s - 1 - x, so the
    flow's x changes sign."""
    flipped = jax.tree.map(lambda a: a[:, ::-1], crop)
    return dataclasses.replace(flipped, flow=flipped.flow * jnp.array([-1.0, 1.0]))


def crop_points(points: AnyArray, matrix: Array) -> Array:
    """Where points (68, 2) of a photo lie in the crop that `cut` makes with `matrix`, pixels."""
    return jnp.linalg.solve(matrix[:, :2], (points - matrix[:, 2]).T).T


def mirror_points(points: Array, size: int) -> Array:
    """The 68 landmarks (68, 2) of a face seen in a mirror, left and right names swapped."""
    return jnp.array([size - 1.0, 0.0]) + points[MIRROR] * jnp.array([-1.0, 1.0])


def augment(
    key: Array, photo: LabelledPhoto, crop_px: float, settings: AugmentSettings
) -> Labelled:
    """One random training crop of a labelled photograph."""
    keys = jax.random.split(key, 4)
    matrix = random_similarity(keys[0], settings, crop_px, photo.image.shape[0])
    crop = cut(photo, matrix, settings.size)
    points = crop_points(photo.points, matrix)
    flipped = mirror(crop), mirror_points(points, settings.size)
    is_flipped = jax.random.bernoulli(keys[1], settings.flip)
    crop, points = jax.tree.map(lambda a, b: jnp.where(is_flipped, a, b), flipped, (crop, points))
    image, _ = occlude(keys[3], crop.image, points, settings.occluders)
    image = degrade(keys[2], image, settings.degradation)
    return dataclasses.replace(crop, image=image)
