"""Random crops of squares, with more in front of the face than was there, and its mask.

``sample_examples(keys, bank, settings)`` is pure. What is added covers the mask, too: what
photographs have in front of faces is seldom masked, but that of this is exact.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

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
from dfc_jax.types import Array, ByValue

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


def sample_examples(keys: Array, bank: Bank[MaskSquares], settings: MaskSettings) -> Examples:
    """A crop of a square of the bank for each of B keys. In front of one may be a piece of the
    picture of the next."""
    each = jax.vmap(functools.partial(jax.random.split, num=4))(keys)

    def crop(key: Array) -> SquareCrop:
        square = bank.draw(*jax.random.uniform(jax.random.fold_in(key, 0), (2,)))
        return cut_out(jax.random.fold_in(key, 1), square, settings.augment)

    # As it is: XLA would cut crops out again for all that is made of them.
    crops = jax.lax.optimization_barrier(jax.vmap(crop)(each[:, 0]))
    strangers = jnp.roll(crops.image, -1, axis=0)
    return jax.vmap(functools.partial(cover, settings=settings))(each[:, 1:], crops, strangers)


@struct.dataclass(eq=False)
class SquareCrop(ByValue):
    """Image (s, s, 3), face (s, s), counted (s, s) and points (68, 2)."""

    image: Array
    face: Array
    counted: Array
    points: Array


def cover(keys: Array, crop: SquareCrop, stranger: Array, settings: MaskSettings) -> Examples:
    """A crop with more in front, a piece of the picture of a `stranger` (s, s, 3) as well, without
    a batch axis; takes three keys."""
    shares = jnp.array([settings.bare, settings.piece])
    is_bare, has_piece = jax.random.uniform(jax.random.fold_in(keys[0], 1), (2,)) < shares
    alpha = jnp.where(has_piece, _limb(keys[0], crop.points, settings.augment.size), 0.0)
    image = crop.image + alpha[..., None] * (stranger - crop.image)
    image, occluded = occlude(keys[1], image, crop.points, settings.augment.occluders)
    hidden = ~is_bare & (occluded | (alpha > 0.5))
    image = jnp.where(is_bare, crop.image, image)
    return Examples(
        degrade(keys[2], image, settings.augment.degradation),
        jnp.where(hidden, 0.0, crop.face),
        jnp.where(hidden, 1.0, crop.counted),
    )


def cut_out(key: Array, square: MaskSquares, settings: AugmentSettings) -> SquareCrop:
    """A random crop of a square, without a batch axis."""
    keys = jax.random.split(key)
    matrix = random_similarity(keys[0], settings, CROP_PX, STORED_PX)
    size, regions = settings.size, square.regions[..., None]
    planes = [square.images / 255.0, regions == FACE, regions == UNKNOWN]
    stacked = jnp.concatenate([plane.astype(jnp.float32) for plane in planes], axis=-1)
    xy = pixel_grid(size, size) @ matrix[:, :2].T + matrix[:, 2]
    sampled = bilinear_sample(stacked, xy, fill=0.0)
    points = crop_points(square.points, matrix)
    flip = jax.random.bernoulli(keys[1], settings.flip)
    sampled = jnp.where(flip, sampled[:, ::-1], sampled)
    points = jnp.where(flip, mirror_points(points, size), points)
    # Of a pixel that is in part unknown nobody knows.
    counted = (sampled[..., 4] < 0.25).astype(jnp.float32)
    face = (sampled[..., 3] > 0.5).astype(jnp.float32)
    return SquareCrop(sampled[..., :3], face, counted, points)


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
