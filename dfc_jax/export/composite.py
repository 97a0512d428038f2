"""Another texture, or make-up, on the faces of a photograph, in its light; what covers a face stays
in front (compositing of partial faces: Saito, Li and Li, ECCV 2016, arXiv 1604.02647).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import jax
import numpy as np
from PIL import Image

from dfc_jax.errors import OptionError
from dfc_jax.export.patch import Patch, take_patch, unit_vectors, visible
from dfc_jax.export.texture import TextureMaker
from dfc_jax.inference.draw import look_at
from dfc_jax.morphable.linear import FaceModel, vertex_normals
from dfc_jax.ops.rotations import FRONTAL
from dfc_jax.photo import as_photo, read_photo
from dfc_jax.raster import interpolate
from dfc_jax.texture.light import Light, fit_light, no_light
from dfc_jax.texture.makeup import FACE, Makeup, make_regions, painted, parse_makeup
from dfc_jax.texture.matte import blend_pyramids
from dfc_jax.types import Array, ByValue, Fragments

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face

# Edge of the maps of regions, and of textures taken from photographs.
MAPS_PX, TEXTURE_PX = 512, 1024
# Edges that a texture given as a picture may have.
TEXTURE_EDGES = (16, 8192)
# Where a texture has less weight than this, the picture tends to what it was.
GATE = 0.1
# Of what light is told from: how surely it is skin, and pixels along an edge.
_SURE, _LIGHT_PX = 0.5, 128


@dataclass(frozen=True, eq=False)
class Albedo(ByValue):
    """A texture without light, over the uv atlas; row 0 is v = 1.

    Attributes:
      colour: (S, S, 3) float32 RGB in [0, 1].
      alpha: (S, S) float32 in [0, 1], 0 where the face below is to be seen.
      skin: (3,) mean colour of its skin, which becomes that of the face below; None for a texture
        whose colours are to stay as they are, such as paint.
    """

    colour: np.ndarray
    alpha: np.ndarray
    skin: np.ndarray | None = None


def read_albedo(path: str | os.PathLike[str]) -> Albedo:
    """A texture that somebody has painted: a square picture, row 0 at v = 1, with or without
    transparency.

    Raises:
      OptionError: it has another shape.
      PhotoError: it is no picture.
    """
    colour = read_photo(path)
    height, width = colour.shape[:2]
    low, high = TEXTURE_EDGES
    if height != width or not low <= width <= high:
        raise OptionError(
            f"{path}: a texture of {width} x {height} pixels; give a square one over the uv atlas, "
            f"from {low} to {high} pixels, as dfc align --outputs texture writes it"
        )
    # `read_photo` has laid what is transparent over white.
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"), np.float32) / np.float32(255.0)
    if not (pixels[..., 3] < 1.0).any():
        pixels = np.dstack([colour / np.float32(255.0), pixels[..., 3]])
    return Albedo(np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3]))


class Composer:
    """Draws on the faces of one model; a call makes a picture.

    Args:
      model: the face model of the aligner that has found the faces.
    """

    def __init__(self, model: FaceModel) -> None:
        self.model = model
        self._regions = make_regions(model, TextureMaker(model, MAPS_PX).atlas)
        place = np.asarray(model.uv) * [1.0, -1.0] + [0.0, 1.0]
        texel = np.clip((place * MAPS_PX).astype(int), 0, MAPS_PX - 1)
        self._drawn = self._regions[FACE][texel[:, 1], texel[:, 0]] > 0.0

    def __call__(
        self,
        image: np.ndarray,
        faces: Sequence["Face"],
        texture: Albedo | str | os.PathLike[str] | None = None,
        makeup: str | Mapping[str, str] | Sequence[Makeup] = (),
        seen: Sequence[np.ndarray] | None = None,
        steady: Callable[[int, Light], Light] | None = None,
    ) -> np.ndarray:
        """The photograph (H, W, 3) uint8 RGB with another texture, make-up or both on its faces.

        Pixels beside the faces, and those that show something before them, stay as they are to the
        bit, and so do eyes and the inside of the mouth.

        Args:
          image: anything that `dfc_jax.photo.as_photo` takes.
          faces: of this photograph, in any order.
          texture: of `albedo_of` or `read_albedo`, or the file that the latter takes.
          makeup: as ``"lips=#aa2233,blush=#dd8877:0.3"`` or ``{"lips": "#aa2233"}``, see
            `dfc_jax.texture.makeup.parse_makeup`; goes over the texture.
          seen: of each face, how surely pixels (S, S) of its crop show it and nothing before it;
            what `visible` says, if left out.
          steady: makes the light to use of the index of a face and its light in this picture, to
            smooth it over the frames of a video.

        Raises:
          OptionError, PhotoError: something given cannot be used.
        """
        image = as_photo(image)
        albedo = texture if isinstance(texture, Albedo | None) else read_albedo(texture)
        if isinstance(makeup, str | Mapping):
            makeup = parse_makeup(makeup)
        canvas = image.copy()
        order = range(len(faces))
        for i in sorted(order, key=lambda i: -faces[i].translation_mm[2] / faces[i].focal_px):
            mask = visible(faces[i]) if seen is None else np.asarray(seen[i], np.float32)
            patch = take_patch(image, faces[i], mask, self.model, self._drawn)
            if patch is not None:
                light = self._light(patch)
                light = light if steady is None else steady(i, light)
                self._draw(canvas, patch, light, albedo, makeup)
        return canvas

    def light(self, image: np.ndarray, face: "Face") -> Light:
        """The light on a face of a photograph (H, W, 3) uint8 RGB."""
        patch = take_patch(image, face, visible(face), self.model, self._drawn)
        return no_light() if patch is None else self._light(patch)

    def albedo_of(self, image: np.ndarray, face: "Face") -> Albedo:
        """The texture of a face of a photograph (H, W, 3) uint8 RGB, without the light on it.

        What the photograph does not show is taken from the other side or continued, see
        `dfc_jax.export.texture`.
        """
        view = look_at(face, self.model.triangles, size=TEXTURE_PX)
        seen = self._maker.see(image, face, view, visible(face))
        colour = self._maker.complete(seen) / np.float32(255.0)
        light = self.light(image, face)
        colour = light.taken_off(colour, self._texel_normals(face.vertices_mm))
        return Albedo(colour, np.ones(colour.shape[:2], np.float32), light.skin)

    def unlit(self, albedo: Albedo) -> Albedo:
        """A texture that was taken from a photograph, as `dfc align` writes it, without its light.

        The light is told from the normals of the mean face, as it looks into the camera.
        """
        size = len(albedo.colour)
        normals = self._texel_normals(np.asarray(self.model.mean_mm) @ FRONTAL)
        normals = cv2.resize(normals, (size, size), interpolation=cv2.INTER_LINEAR)
        skin = cv2.resize(self._regions["foundation"], (size, size)) * albedo.alpha
        step = max(1, size // _LIGHT_PX)
        few = [each[::step, ::step] for each in (albedo.colour, normals, skin)]
        light = fit_light(few[0].reshape(-1, 3), few[1].reshape(-1, 3), few[2].ravel())
        return Albedo(light.taken_off(albedo.colour, normals), albedo.alpha, light.skin)

    @cached_property
    def _maker(self) -> TextureMaker:
        return TextureMaker(self.model, TEXTURE_PX)

    def _texel_normals(self, vertices_mm: np.ndarray) -> np.ndarray:
        """Unit normals (S, S, 3) of a mesh (V, 3) over its atlas."""
        return np.asarray(_over_atlas(self._maker.atlas, vertices_mm, self.model.triangles))

    def _light(self, patch: Patch) -> Light:
        skin = patch.region(self._regions["foundation"]) * patch.coarse
        skin = np.where(skin > _SURE, skin, 0.0)
        step = max(1, len(skin) // _LIGHT_PX)
        few = [each[::step, ::step] for each in (patch.small, patch.normals, skin)]
        return fit_light(few[0].reshape(-1, 3), few[1].reshape(-1, 3), few[2].ravel())

    def _draw(
        self,
        canvas: np.ndarray,
        patch: Patch,
        light: Light,
        albedo: Albedo | None,
        makeup: Sequence[Makeup],
    ) -> None:
        left, top, right, bottom = patch.part
        part = canvas[top:bottom, left:right]
        picture = part / np.float32(255.0)
        seen = patch.visible()
        if albedo is not None:
            picture = self._covered(picture, seen, patch, light, albedo)
        for each in makeup:
            alpha = patch.enlarged(patch.region(self._regions[each.region])) * seen
            picture = painted(picture, alpha, each, light.exposure)
        part[:] = 255.0 * np.clip(picture, 0.0, 1.0) + 0.5

    def _covered(
        self,
        picture: np.ndarray,
        seen: np.ndarray,
        patch: Patch,
        light: Light,
        albedo: Albedo,
    ) -> np.ndarray:
        """A picture (H, W, 3) with the texture over it where the face is seen, (H, W)."""
        tone = light.exposure if albedo.skin is None else light.skin / albedo.skin
        # Colours of what is transparent say nothing, so they have no part in means of texels.
        given = albedo.colour * albedo.alpha[..., None], albedo.alpha
        colour, opaque = (patch.sampled(_no_finer(each, len(patch.normals))) for each in given)
        colour = colour / np.maximum(opaque, 1e-3)[..., None]
        colour = colour * light.shading(patch.normals) * np.float32(tone)
        # Beside the mesh the pyramids need something, too.
        colour = np.where(patch.facing[..., None] > 0.0, np.clip(colour, 0.0, 1.0), patch.small)
        colour, opaque = patch.enlarged(colour), patch.enlarged(opaque)
        seam = patch.enlarged(patch.region(self._regions[FACE]))
        # What is before the face has no part in the colours at the seam.
        under = colour + seen[..., None] * (picture - colour)
        mixed = blend_pyramids(under, under + opaque[..., None] * (colour - under), seam)
        alpha = seen * np.minimum(np.minimum(seam, opaque) / GATE, 1.0)
        return picture + alpha[..., None] * (mixed - picture)


@jax.jit
def _over_atlas(atlas: Fragments, vertices_mm: Array, triangles: Array) -> Array:
    return unit_vectors(interpolate(atlas, triangles, vertex_normals(vertices_mm, triangles)))


def _no_finer(texture: np.ndarray, size: int) -> np.ndarray:
    """A texture without detail that a square of this size could not show."""
    if len(texture) < 2 * size:
        return texture
    return cv2.resize(texture, (size, size), interpolation=cv2.INTER_AREA)
