"""A face's texture: the colours that a photograph shows of it, laid out over the model's uv atlas.

The light of the photograph stays in it. What the photograph does not show is continued from what
it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project
from dfc_jax.crops import apply_affine, crop_photo
from dfc_jax.inference.draw import MESH_SIZE, MeshView, look_at
from dfc_jax.morphable.decimate import mirror_permutation
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.raster import interpolate, rasterize
from dfc_jax.raster.flow import is_visible
from dfc_jax.types import Array, ByValue, Camera, Fragments

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face

TEXTURE_PX = MESH_SIZE
# Cosine between normal and line of sight from which a texel begins to count, and counts in full:
# at the silhouette a small error of the fit shows what is behind the face.
FACING = (0.25, 0.6)
# At the photograph's border a pixel of the crop is part black.
MARGIN_PX = 1.5
# How much brighter one side of the face is than the other is found in a texture so many times
# smaller, in which a texel says so little of it that the mean over some eight of them counts.
GAIN_SHRINK, GAIN_WEIGHT = 4, 0.12
# Bounds of the logarithm of that ratio; and what is added to colours, for black has none.
LOG_GAIN, DARK = (-0.7, 0.7), 0.02


@dataclass(frozen=True, eq=False)
class Seen(ByValue):
    """What photographs show of a face, over its atlas of S x S texels; row 0 is v = 1.

    Attributes:
      colour: (S, S, 3) float32 RGB in [0, 1].
      weight: (S, S) float32 in [0, 1], how well it is shown; 0 where it is not.
    """

    colour: np.ndarray
    weight: np.ndarray


class TextureMaker:
    """Makes textures of the faces of one model.

    Args:
      model: whose uv atlas to fill.
      size: edge of the textures, a power of 2.
    """

    def __init__(self, model: FaceModel, size: int = TEXTURE_PX) -> None:
        self.size = size
        self.triangles = model.triangles
        texels = (np.asarray(model.uv) * [1.0, -1.0] + [0.0, 1.0]) * size - 0.5
        # As `draw.look_at` calls it, which then shares its compiled program.
        depth = jnp.asarray(np.full(len(texels), 1000.0), jnp.float32)
        self.atlas = rasterize(jnp.asarray(texels, jnp.float32), depth, model.triangles, size)
        self._mirror_px = _mirror_px(model, self.atlas, texels)

    def __call__(
        self,
        image: np.ndarray,
        face: "Face",
        view: MeshView | None = None,
        symmetric: bool = True,
    ) -> np.ndarray:
        """The texture (S, S, 3), uint8 RGB, of a face of a photograph (H, W, 3) uint8 RGB.

        Row 0 is v = 1, as OBJ and `dfc_jax.raster.sample_texture` have it. `view` is what
        `draw.look_at` says of the face, if that is known already; `symmetric` as in `complete`.
        """
        return self.complete(self.see(image, face, view), symmetric)

    def see(
        self,
        image: np.ndarray,
        face: "Face",
        view: MeshView | None = None,
        shown: np.ndarray | None = None,
    ) -> Seen:
        """What a photograph (H, W, 3) uint8 RGB shows of a face.

        `shown` (C, C) float32 in [0, 1] says how surely the pixels of the face's own crop show it
        and nothing before it; if left out, they all do.
        """
        view = look_at(face, self.triangles) if view is None else view
        crop = view.crop
        camera = Camera(
            jnp.float32(face.focal_px * crop.scale),
            jnp.asarray(apply_affine(crop.to_crop, face.principal_point), jnp.float32),
        )
        ends = np.array([[0.0, 0.0], [image.shape[1] - 1.0, image.shape[0] - 1.0]])
        placed = _placed(
            jnp.asarray(apply_affine(crop.to_crop, ends), jnp.float32),
            view.zbuf,
            jnp.asarray(face.vertices_mm, jnp.float32),
            view.normals,
            camera,
            self.triangles,
            self.atlas,
        )
        x, y, weight = map(np.asarray, placed)
        if shown is not None:
            own = apply_affine(face.crop.to_crop, apply_affine(crop.to_photo, np.stack([x, y], -1)))
            own_x, own_y = np.moveaxis(own.astype(np.float32), -1, 0)
            weight = weight * cv2.remap(shown, own_x, own_y, cv2.INTER_LINEAR)
        return Seen(cv2.remap(crop_photo(image, crop), x, y, cv2.INTER_LINEAR), weight)

    def complete(self, seen: Seen, symmetric: bool = True) -> np.ndarray:
        """A texture (S, S, 3) uint8 RGB without holes.

        What is not shown is taken from the other side of the face, as bright as what is around it,
        if that is shown (not without `symmetric`); the rest is continued from around it.
        """
        if symmetric:
            seen = self.mirrored(seen)
        return _bytes(continued(seen.colour, seen.weight))

    def mirrored(self, seen: Seen) -> Seen:
        """The same, with what it does not show taken from the other side of the face.

        Where both sides are shown, they tell how much brighter the one is than the other in each
        colour; this ratio is continued to where one is not. A model that is not left-right
        symmetric has no other side.
        """
        if self._mirror_px is None:
            return seen
        x, y = self._mirror_px
        colour, weight = (
            cv2.remap(values, x, y, cv2.INTER_LINEAR) for values in (seen.colour, seen.weight)
        )
        # In the middle of the face, where the sides meet, the ratio is 1 by itself: no seam.
        gain = _gain(seen.colour, colour, np.minimum(seen.weight, weight))
        weight = (1.0 - seen.weight) * weight
        total = seen.weight + weight
        own = (seen.weight / np.maximum(total, 1e-6))[..., None]
        return Seen(own * seen.colour + (1.0 - own) * gain * colour, total)


def _gain(ours: np.ndarray, theirs: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The smooth ratio (S, S, 3) of colours to others, both (S, S, 3), where they have a weight
    (S, S), continued to where they have none."""
    size = max(1, len(weight) // GAIN_SHRINK)
    means = [
        cv2.resize(values, (size, size), interpolation=cv2.INTER_AREA)
        for values in (ours * weight[..., None], theirs * weight[..., None], weight)
    ]
    dark = DARK * np.maximum(means[2], 1e-6)[..., None]
    ratio = np.log((means[0] + dark) / (means[1] + dark))
    log_gain = continued(ratio, GAIN_WEIGHT * means[2], 0.0)
    gain = np.exp(np.clip(log_gain, *LOG_GAIN))
    return cv2.resize(gain, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)


def masked(seen: Seen) -> np.ndarray:
    """A texture (S, S, 4) uint8 RGBA: alpha is the weight; all is 0 where no photograph shows the
    face."""
    alpha = seen.weight[..., None]
    return _bytes(np.concatenate([np.where(alpha > 0.0, seen.colour, 0.0), alpha], axis=-1))


def blended(several: Sequence[Seen]) -> Seen:
    """What several photographs or frames show of one person: the mean of their colours by their
    weights.

    Raises:
      ValueError: there is none.
    """
    if not several:
        raise ValueError("there is nothing to blend")
    total = np.sum([seen.weight for seen in several], axis=0, dtype=np.float32)
    colour = np.sum([seen.colour * seen.weight[..., None] for seen in several], axis=0)
    return Seen(colour / np.maximum(total, 1e-6)[..., None], np.minimum(total, 1.0))


def _bytes(values: np.ndarray) -> np.ndarray:
    return (255.0 * np.clip(values, 0.0, 1.0) + 0.5).astype(np.uint8)


def _mirror_px(
    model: FaceModel, atlas: Fragments, texels: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """x and y (S, S) of the texels of the same places on the other side of the face, the model's
    `texels` (V, 2) being those of its vertices; None if the model is not left-right symmetric."""
    try:
        mirror = mirror_permutation(np.asarray(model.mean_mm))
    except ValueError:
        return None
    places = jnp.asarray(texels[mirror], jnp.float32)
    x, y = np.moveaxis(np.asarray(interpolate(atlas, model.triangles, places)), -1, 0)
    outside = np.asarray(atlas.pix_to_face) < 0
    # Beyond the atlas, where OpenCV finds nothing.
    beyond = np.float32(-10.0)
    return np.where(outside, beyond, x), np.where(outside, beyond, y)


@jax.jit
def _placed(
    ends: Array,
    zbuf: Array,
    vertices_mm: Array,
    normals: Array,
    camera: Camera,
    triangles: Array,
    atlas: Fragments,
) -> tuple[Array, Array, Array]:
    """x and y (S, S) of the texels in a crop of the photograph, which reaches from `ends`[0] to
    `ends`[1], crop pixels, and their weight (S, S) in [0, 1]."""
    lengths = jnp.linalg.norm(vertices_mm, axis=-1, keepdims=True)
    facing = -jnp.sum(normals * vertices_mm, axis=-1, keepdims=True) / lengths
    both = interpolate(atlas, triangles, jnp.concatenate([vertices_mm, facing], axis=-1))
    position, facing = both[..., :3], both[..., 3]
    xy = project(camera, position)
    seen = is_visible(zbuf, xy, position[..., 2])
    seen &= ((xy >= ends[0] + MARGIN_PX) & (xy <= ends[1] - MARGIN_PX)).all(axis=-1)
    weight = jnp.clip((facing - FACING[0]) / (FACING[1] - FACING[0]), 0.0, 1.0)
    return xy[..., 0], xy[..., 1], jnp.where(seen, weight, 0.0)


def continued(colour: np.ndarray, weight: np.ndarray, otherwise: float = 0.5) -> np.ndarray:
    """Texels (S, S, 3) blended by their weight (S, S) with the mean of those around them, over an
    area that doubles until there are some (S is a power of 2); `otherwise`, grey, if there are
    none at all."""
    if len(colour) == 1:
        return np.where(weight[..., None] > 0.0, colour, np.float32(otherwise))
    half = (len(colour) // 2,) * 2
    coarse_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(colour * weight[..., None], half, interpolation=cv2.INTER_AREA)
    means = sums / np.maximum(coarse_weight, 1e-6)[..., None]
    around = continued(means, np.minimum(2.0 * coarse_weight, 1.0), otherwise)
    around = cv2.resize(around, colour.shape[:2], interpolation=cv2.INTER_LINEAR)
    return around + weight[..., None] * (colour - around)
