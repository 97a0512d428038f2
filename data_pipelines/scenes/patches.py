"""Small squares around faces, and around things that are none, to be pasted into scenes."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from data_pipelines.faces.occluders import OccluderSettings, occlude
from data_pipelines.faces.synthetic import SyntheticAssets, SyntheticSettings, sample_picture
from data_pipelines.photos.shards import ShardedPhotos
from dfc_jax.crops import tilt_deg
from dfc_jax.ops.rotations import angles_to_matrix, head_rotation
from dfc_jax.ops.sampling import warp_affine
from dfc_jax.systems.detector.scenes import Boxes, boxes_of_points
from dfc_jax.types import AnyArray, Array, ByValue

# Pixels along an edge, and along the box of a thing that is no face.
PATCH_PX, THING_PX = 64, 32.0
# Levels of black in a JPEG.
_BLACK = 8
# Squares that are worked on at once.
CHUNK = 64
# A close-up shows this part of a stored square, of which a face takes half: a piece of it.
_CLOSE_UP = (0.12, 0.3)
# What is painted over faces, most of the time.
_COVERING = OccluderSettings(
    box=0.25, hair=0.2, glasses=0.5, mask=0.2, hat=0.3, hood=0.1, objects=0.15, hand=0.2
)


@struct.dataclass(eq=False)
class Patches(ByValue):
    """N squares of P x P pixels.

    Attributes:
      images: (N, P, P, 4) uint8 RGB, and 255 where there is a picture, 0 beyond its borders.
      boxes: (N,) of the faces, in their pixels; a thing that is no face has one, too.
      face: (N,) bool.
    """

    images: AnyArray
    boxes: Boxes
    face: AnyArray


def of_photographs(photos: ShardedPhotos, key: Array | None = None) -> Patches:
    """The faces of stored squares; with a `key` something is painted over most of them."""
    shrink = jax.jit(jax.vmap(_small))
    cover, shown = jax.jit(jax.vmap(_covered)), jax.jit(jax.vmap(_shown))
    images, points = [], []
    for index in _chunks(len(photos)):
        some = photos.as_example(index)
        small, moved = shrink(some.image, some.points)
        if key is not None:
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(index))
            small = cover(keys, small, moved)
        images.append(_levels(small, np.asarray(shown(some.image))))
        points.append(np.asarray(moved))
    if not images:
        return no_patches()
    rotations = np.asarray(jax.vmap(angles_to_matrix)(jnp.asarray(photos.pose, jnp.float32)))
    return _faces(np.concatenate(images), np.concatenate(points), tilt_deg(rotations))


def _small(image: Array, points: Array) -> tuple[Array, Array]:
    """A square (S, S, 3) uint8 with its points as a patch in [0, 1]."""
    part = image.shape[0] // PATCH_PX
    blocks = image.astype(jnp.float32).reshape(PATCH_PX, part, PATCH_PX, part, 3)
    return blocks.mean(axis=(1, 3)) / 255.0, (points + 0.5) / part - 0.5


def _shown(image: Array) -> Array:
    """Where a stored square (S, S, 3) shows its photograph, as a patch (P, P): it is black beyond
    the photograph's borders, but for what JPEG makes of that."""
    part = image.shape[0] // PATCH_PX
    black = image.reshape(PATCH_PX, part, PATCH_PX, part, 3).max(axis=(1, 3, 4)) < _BLACK
    black = black.astype(jnp.uint8)
    edges = (jax.lax.cummin(black, axis, reverse=way) for axis in (0, 1) for way in (False, True))
    return 1 - functools.reduce(jnp.maximum, edges)


def _covered(key: Array, image: Array, points: Array) -> Array:
    return occlude(key, image, points, _COVERING)[0]


def of_rendered(
    key: Array, count: int, assets: SyntheticAssets, settings: SyntheticSettings
) -> Patches:
    """Rendered faces."""
    settings = dataclasses.replace(settings, size=PATCH_PX)

    @jax.jit
    def render(keys: Array, assets: SyntheticAssets) -> tuple[Array, Array, Array]:
        made = jax.vmap(lambda one: sample_picture(one, assets, settings))(keys)
        rotations = jax.vmap(head_rotation)(made.scene.params.rotation)
        return made.image, made.scene.landmarks_px, rotations

    keys = jax.random.split(key, count)
    parts = [jax.device_get(render(keys[index], assets)) for index in _chunks(count)]
    if not parts:
        return no_patches()
    images, points, rotations = (np.concatenate(leaves) for leaves in zip(*parts, strict=True))
    return _faces(_levels(images), points, tilt_deg(rotations))


def of_things(seed: int, photos: ShardedPhotos, backgrounds: AnyArray, count: int) -> Patches:
    """Things that are no faces: of `count`, half pieces of faces and of what is beside them, and
    half pieces of backgrounds (M, S, S, 3) uint8; all of faces where there are no backgrounds."""
    rng = np.random.default_rng(seed)
    pieces = jax.jit(jax.vmap(functools.partial(warp_affine, size=PATCH_PX)))
    images: list[np.ndarray] = []
    for index in _chunks(count if len(photos) else 0):
        of_background = len(backgrounds) > 0 and len(images) % 2 == 1
        if of_background:
            found = np.asarray(backgrounds)[rng.integers(len(backgrounds), size=len(index))]
        else:
            drawn = rng.integers(len(photos), size=len(index))
            found = np.asarray(photos.as_example(drawn).image)
        side = len(found[0])
        part = rng.uniform(*((0.2, 1.0) if of_background else _CLOSE_UP), len(index))
        step = side * part / PATCH_PX
        offset = rng.uniform(size=(len(index), 2)) * (side * (1.0 - part))[:, None]
        matrices = np.concatenate(
            [step[:, None, None] * np.eye(2), offset[..., None]], axis=2
        ).astype(np.float32)
        images.append(_levels(pieces(found.astype(np.float32) / 255.0, matrices)))
    if not images:
        return no_patches()
    return _things(np.concatenate(images))


def of_alarms(find: Callable[[np.ndarray], Sequence[np.ndarray]], pictures: AnyArray) -> Patches:
    """Things that are no faces but look like one: what a detector finds in pictures (M, S, S, 3)
    uint8 without faces; ``find(picture)`` gives the boxes (x, y, width, height) of one."""
    import cv2  # here: nothing else needs it

    images = []
    for picture in np.asarray(pictures):
        shown = np.full((*picture.shape[:2], 1), 255, np.uint8)
        levels = np.concatenate([picture, shown], axis=-1).astype(np.float32)
        for box in find(picture):
            step = max(box[2:]) / THING_PX
            # Blurred where it is made smaller.
            smooth = cv2.GaussianBlur(levels, (0, 0), 0.4 * step) if step > 1.0 else levels
            offset = box[:2] + box[2:] / 2.0 - step * (PATCH_PX - 1) / 2.0
            matrix = np.concatenate([step * np.eye(2), offset[:, None]], axis=1)
            inverse = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            images.append(cv2.warpAffine(smooth, matrix, (PATCH_PX, PATCH_PX), flags=inverse))
    return _things(np.round(images).astype(np.uint8)) if images else no_patches()


def _things(images: np.ndarray) -> Patches:
    middle = np.full((len(images), 2), (PATCH_PX - 1) / 2.0)
    return _patches(
        images, Boxes(middle, np.full(len(images), THING_PX), np.zeros(len(images))), False
    )


def _chunks(count: int) -> Iterator[np.ndarray]:
    """0 to `count` in chunks."""
    for start in range(0, count, CHUNK):
        yield np.arange(start, min(start + CHUNK, count))


def _levels(images: AnyArray, shown: AnyArray | float = 1.0) -> np.ndarray:
    """Patches (N, P, P, 3) in [0, 1] with where they are shown, as `Patches` have them."""
    alpha = np.broadcast_to(np.asarray(shown)[..., None], (*images.shape[:3], 1))
    both = np.concatenate([np.asarray(images), alpha], axis=-1)
    return np.round(255.0 * np.clip(both, 0.0, 1.0)).astype(np.uint8)


def _faces(images: np.ndarray, points: np.ndarray, roll_deg: np.ndarray) -> Patches:
    return _patches(images, boxes_of_points(points, roll_deg), True)


def _patches(images: np.ndarray, boxes: Boxes, face: bool) -> Patches:
    single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), boxes)
    return Patches(images, single, np.full(len(images), face))


def no_patches() -> Patches:
    """A group of none."""
    empty = np.zeros((0, 68, 2), np.float32)
    boxes = Boxes(empty[:, 0], empty[:, 0, 0], empty[:, 0, 0])
    return _patches(np.zeros((0, PATCH_PX, PATCH_PX, 4), np.uint8), boxes, True)
