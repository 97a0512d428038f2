"""A face's texture: the colours that a photograph shows of it, laid out over the model's uv atlas.

The light of the photograph stays in it. What the photograph does not show is continued from what
it does.
"""

from typing import TYPE_CHECKING

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project
from dfc_jax.crops import apply_affine, crop_photo
from dfc_jax.inference.draw import MESH_SIZE, MeshView, look_at
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.raster import interpolate, rasterize
from dfc_jax.raster.flow import is_visible
from dfc_jax.types import Array, Camera, Fragments

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face

TEXTURE_PX = MESH_SIZE
# Cosine between normal and line of sight from which a texel begins to count, and counts in full:
# at the silhouette a small error of the fit shows what is behind the face.
FACING = (0.25, 0.6)
# At the photograph's border a pixel of the crop is part black.
MARGIN_PX = 1.5


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

    def __call__(self, image: np.ndarray, face: "Face", view: MeshView | None = None) -> np.ndarray:
        """The texture (S, S, 3), uint8 RGB, of a face of a photograph (H, W, 3) uint8 RGB.

        Row 0 is v = 1, as OBJ and `dfc_jax.raster.sample_texture` have it. `view` is what
        `draw.look_at` says of the face, if that is known already.
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
        colour = cv2.remap(crop_photo(image, crop), x, y, cv2.INTER_LINEAR)
        return (255.0 * np.clip(continued(colour, weight), 0.0, 1.0) + 0.5).astype(np.uint8)


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


def continued(colour: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Texels (S, S, 3) blended by their weight (S, S) with the mean of those around them, over an
    area that doubles until there are some (S is a power of 2); grey if there are none at all."""
    if len(colour) == 1:
        return np.where(weight[..., None] > 0.0, colour, np.float32(0.5))
    half = (len(colour) // 2,) * 2
    coarse_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(colour * weight[..., None], half, interpolation=cv2.INTER_AREA)
    means = sums / np.maximum(coarse_weight, 1e-6)[..., None]
    around = continued(means, np.minimum(2.0 * coarse_weight, 1.0))
    around = cv2.resize(around, colour.shape[:2], interpolation=cv2.INTER_LINEAR)
    return around + weight[..., None] * (colour - around)
