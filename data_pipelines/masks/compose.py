"""Random crops of squares, with more in front of the face than was there, and its mask.

``sample_example(key, bank, settings)`` is pure, for one crop. What is added covers the mask, too:
what photographs have in front of faces is seldom masked, but that of this is exact.
"""

import dataclasses

import jax
import jax.numpy as jnp

from data_pipelines.bank import Bank
from data_pipelines.faces.degradation import degrade
from data_pipelines.faces.occluders import occlude
from data_pipelines.faces.shapes import RandomStream, capsule, moved, pixel_planes, soft
from data_pipelines.masks.squares import FACE, UNKNOWN, MaskSquares
from data_pipelines.photos.augment import (
    AugmentSettings,
    crop_points,
    mirror_points,
    random_similarity,
)
from data_pipelines.photos.squares import CROP_PX, STORED_PX
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.systems.segmentation.examples import Examples
from dfc_jax.types import Array

# A limb: half of its width and of its length, in parts of the crop.
_WIDTH, _LENGTH = (0.03, 0.2), (0.1, 0.5)


@dataclasses.dataclass(frozen=True)
class MaskSettings:
    """How crops are made of squares.

    Attributes:
      augment: where they are cut, and what is put in front and done by the camera.
      piece: share of crops with a piece of another square's picture in front, skin and hair of
        someone else as a rule.
      bare: share of crops to which nothing is added.
    """

    augment: AugmentSettings = AugmentSettings()
    piece: float = 0.25
    bare: float = 0.25


def sample_example(key: Array, bank: Bank[MaskSquares], settings: MaskSettings) -> Examples:
    """One crop of a square of the bank, without a batch axis."""
    keys = jax.random.split(key, 6)
    own, other = jax.random.split(keys[0])
    image, face, counted, points = _crop(own, bank, settings.augment)
    is_bare, has_piece = jax.random.uniform(keys[1], (2,)) < jnp.array(
        [settings.bare, settings.piece]
    )
    stranger, *_ = _crop(other, bank, settings.augment)
    alpha = jnp.where(has_piece, _limb(keys[2], points, settings.augment.size), 0.0)
    covered = image + alpha[..., None] * (stranger - image)
    covered, occluded = occlude(keys[3], covered, points, settings.augment.occluders)
    hidden = ~is_bare & (occluded | (alpha > 0.5))
    image = degrade(keys[4], jnp.where(is_bare, image, covered), settings.augment.degradation)
    return Examples(image, jnp.where(hidden, 0.0, face), jnp.where(hidden, 1.0, counted))


def _crop(
    key: Array, bank: Bank[MaskSquares], settings: AugmentSettings
) -> tuple[Array, Array, Array, Array]:
    """Image (s, s, 3), face (s, s), counted (s, s) and points (68, 2) of a random crop of a random
    square."""
    keys = jax.random.split(key, 3)
    square = bank.draw(*jax.random.uniform(keys[0], (2,)))
    matrix = random_similarity(keys[1], settings, CROP_PX, STORED_PX)
    size, regions = settings.size, square.regions[..., None]
    planes = [square.images / 255.0, regions == FACE, regions == UNKNOWN]
    stacked = jnp.concatenate([plane.astype(jnp.float32) for plane in planes], axis=-1)
    xy = pixel_grid(size, size) @ matrix[:, :2].T + matrix[:, 2]
    sampled = bilinear_sample(stacked, xy, fill=0.0)
    points = crop_points(square.points, matrix)
    flip = jax.random.bernoulli(keys[2], settings.flip)
    sampled = jnp.where(flip, sampled[:, ::-1], sampled)
    points = jnp.where(flip, mirror_points(points, size), points)
    # Of a pixel that is in part unknown nobody knows.
    counted = (sampled[..., 4] < 0.25).astype(jnp.float32)
    return sampled[..., :3], (sampled[..., 3] > 0.5).astype(jnp.float32), counted, points


def _limb(key: Array, points: Array, size: int) -> Array:
    """Opacity (s, s) of a rounded bar near one of the landmarks (68, 2)."""
    rng = RandomStream(jax.random.uniform(key, (16,)))
    near = points[rng.choice(len(points))] + 0.1 * size * rng.normal((2,))
    along = moved(pixel_planes(size), near, rng.uniform(0.0, 2.0 * jnp.pi))
    low, high = jnp.log(jnp.array([_WIDTH, _LENGTH])).T
    half_width, half_length = size * jnp.exp(low + (high - low) * rng.uniform(shape=(2,)))
    end = jnp.stack([half_length, 0.0])
    bent = along[0], along[1] + rng.uniform(-0.004, 0.004) * along[0] ** 2
    return soft(capsule(bent, -end, end, half_width))
