"""The square of a photograph around a face, and what its pixels show of the fitted mesh."""

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.crops import Crop, apply_affine, crop_photo
from dfc_jax.inference.draw import projected
from dfc_jax.morphable.linear import FaceModel, vertex_normals
from dfc_jax.raster import interpolate
from dfc_jax.raster.flow import fragments_of
from dfc_jax.texture.light import luminance
from dfc_jax.texture.matte import edge_coefficients, matte
from dfc_jax.types import Array, Camera

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face

# Edges of the squares in which faces are rasterized; larger faces are made smaller by whole numbers
# first, and what is drawn of them larger again, for textures hold no more.
SIZES = (128, 256, 512, 1024)
# Cosine between normal and line of sight from which something is drawn, and wholly drawn: at the
# silhouette a small error of the fit would draw on what is behind the face.
FACING = (0.1, 0.35)


def visible(face: "Face") -> np.ndarray:
    """How surely pixels (S, S) of the face's crop show it and nothing before it, float32: what
    the segmentation network says, if it was asked, else the matchability."""
    found = face.matchability if face.segmentation is None else face.segmentation
    return np.asarray(found, np.float32)


class Patch(NamedTuple):
    """A face in the square of the photograph around it, at a size of S x S, one of `SIZES`.

    Attributes:
      crop: the square.
      part: left, top, right, bottom of the photo pixels in it that there are.
      luma: (bottom - top, right - left) float32 luminance of these.
      small: (S, S, 3) float32 the square.
      uv: (S, S, 2) float32 atlas coordinates, v up.
      normals: (S, S, 3) float32, camera space.
      facing: (S, S) float32 in [0, 1], 0 beside the mesh and where it turns away.
      coarse: (S, S) float32 in [0, 1], how surely the face is seen.
      pixel: edge of a pixel of the face's own crop, in pixels.
    """

    crop: Crop
    part: tuple[int, int, int, int]
    luma: np.ndarray
    small: np.ndarray
    uv: np.ndarray
    normals: np.ndarray
    facing: np.ndarray
    coarse: np.ndarray
    pixel: float

    def sampled(self, texture: np.ndarray) -> np.ndarray:
        """A texture (T, T) or (T, T, C) as it lies in the square."""
        size = np.float32(len(texture))
        x, y = self.uv[..., 0] * size - 0.5, (1.0 - self.uv[..., 1]) * size - 0.5
        return cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def region(self, region: np.ndarray) -> np.ndarray:
        """How much of a region (T, T) of the atlas is to be drawn in the square (S, S)."""
        return self.sampled(region) * self.facing

    def enlarged(self, values: np.ndarray) -> np.ndarray:
        """Values (S, S) or (S, S, C) at the pixels of `part`."""
        left, top, right, bottom = self.part
        x, y = apply_affine(self.crop.to_crop, np.array([left, top]))
        scale = self.crop.scale
        if scale == 1.0:
            x, y = round(x), round(y)
            return values[y : y + bottom - top, x : x + right - left]
        matrix = np.array([[scale, 0.0, x], [0.0, scale, y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = right - left, bottom - top
        return cv2.warpAffine(values, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def visible(self) -> np.ndarray:
        """How much of each pixel of `part` shows the face, with the edges of the photograph."""
        slope, offset = edge_coefficients(self.coarse, luminance(self.small), self.pixel)
        return matte(self.enlarged(slope), self.enlarged(offset), self.luma)


def take_patch(
    image: np.ndarray, face: "Face", seen: np.ndarray, model: FaceModel, drawn: np.ndarray
) -> Patch | None:
    """The patch of a photograph around a face; None if the photograph shows nothing of it.

    Args:
      image: (H, W, 3) uint8 RGB.
      face: of the photograph.
      seen: (C, C) float32 in [0, 1], how surely pixels of the face's own crop show it, and nothing
        before it.
      model: of the face.
      drawn: (V,) bool, the vertices that have to be in the patch.
    """
    points = projected(face, face.vertices_mm[drawn])
    low, high = np.floor(points.min(axis=0)) - 2, np.ceil(points.max(axis=0)) + 3
    edge = max(high - low)
    shrink = int(np.ceil(edge / SIZES[-1]))
    size = next(size for size in SIZES if size * shrink >= edge)
    side = size * shrink
    corner = np.floor((low + high - side) / 2.0)
    crop = Crop(corner + (side - 1) / 2.0, float(side), size=size)
    ends = np.clip([corner, corner + side], 0, image.shape[1::-1]).astype(int)
    if (ends[0] >= ends[1]).any():
        return None
    (left, top), (right, bottom) = ends.tolist()
    camera = Camera(
        jnp.float32(face.focal_px * crop.scale),
        jnp.asarray(apply_affine(crop.to_crop, face.principal_point), jnp.float32),
    )
    vertices = jnp.asarray(face.vertices_mm, jnp.float32)
    uv, normals, facing = map(
        np.array, _surface(vertices, model.uv, camera, model.triangles, size=size)
    )
    # From pixels of the square to those of the face's own crop.
    to_own, to_photo = face.crop.to_crop, crop.to_photo
    matrix = np.hstack(
        [to_own[:, :2] @ to_photo[:, :2], apply_affine(to_own, to_photo[:, 2])[:, None]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return Patch(
        crop=crop,
        part=(left, top, right, bottom),
        luma=luminance(image[top:bottom, left:right] / np.float32(255.0)),
        small=crop_photo(image, crop),
        uv=uv,
        normals=normals,
        facing=facing,
        coarse=cv2.warpAffine(seen, matrix, (size, size), flags=flags),
        pixel=crop.scale / face.crop.scale,
    )


@partial(jax.jit, static_argnames="size")
def _surface(
    vertices_mm: Array, uv: Array, camera: Camera, triangles: Array, size: int
) -> tuple[Array, Array, Array]:
    """What `Patch` holds of the mesh: uv, normals and facing."""
    normals = vertex_normals(vertices_mm, triangles)
    sight = vertices_mm / jnp.linalg.norm(vertices_mm, axis=-1, keepdims=True)
    facing = -jnp.sum(normals * sight, axis=-1, keepdims=True)
    seen = fragments_of(vertices_mm, triangles, camera, size)
    values = interpolate(seen, triangles, jnp.concatenate([uv, normals, facing], axis=-1))
    drawn = jnp.clip((values[..., 5] - FACING[0]) / (FACING[1] - FACING[0]), 0.0, 1.0)
    return values[..., :2], unit_vectors(values[..., 2:5]), drawn


def unit_vectors(vectors: Array) -> Array:
    """Vectors (..., 3) of unit length."""
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))
