"""A face model's uv atlas, rasterized: its texels, their mirror images, and filters over them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import N_JAW
from dfc_jax.morphable.decimate import mirror_permutation
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster import interpolate, rasterize
from dfc_jax.texture.appearance import part_vertex_colors
from dfc_jax.types import Array, ByValue, Fragments


@struct.dataclass(eq=False)
class Atlas(ByValue):
    """The uv atlas of a face model as S x S texels; texel centres are at integers, row 0 at v = 1.

    Attributes:
      fragments: the triangle and barycentric coordinates of each texel.
      mirror_px: (S, S, 2) texel (x, y) of the same place on the other side of the face; on the
        background the texel itself.
      albedo: (S, S, 3) mean RGB of each part, relative to the skin's except for the eyes.
      skin: (S, S) bool, the front of the face from hairline to jaw, from which light is estimated.
      plain: (S, S) bool, bare skin unless something covers it: no beard, brows or lids.
      rims: (S, S) bool, bare skin that the rims of glasses would cover.
      feature: (S, S) bool, brows, lids and lips, which have colours of their own.
      eyes: (S, S) bool, the eyeballs.
    """

    fragments: Fragments
    mirror_px: Array
    albedo: Array
    skin: Array
    plain: Array
    rims: Array
    feature: Array
    eyes: Array

    @property
    def size(self) -> int:
        """Edge in texels."""
        return self.skin.shape[0]


def make_atlas(model: FaceModel, size: int) -> Atlas:
    """Rasterize the uv atlas of a model at `size` x `size` texels.

    Raises:
      DatasetError: the model is not left-right symmetric.
    """
    try:
        mirror = mirror_permutation(np.asarray(model.mean_mm))
    except ValueError as error:
        raise DatasetError(
            f"face model {model.version}: {error}, so that textures cannot be completed; use "
            "another --face_model"
        ) from error
    return _draw_atlas(model, jnp.asarray(mirror), size)


@partial(jax.jit, static_argnames="size")
def _draw_atlas(model: FaceModel, mirror: Array, size: int) -> Atlas:
    screen = _texels(model.uv, size)
    depth = jnp.ones(len(screen))
    fragments = rasterize(screen, depth, model.triangles, size, perspective_correct=False)
    covered = fragments.pix_to_face >= 0
    part = jnp.where(covered, model.triangle_part[fragments.pix_to_face], -1)

    def among(*names: str) -> Array:
        return jnp.isin(part, jnp.array([PARTS.index(name) for name in names]))

    colors = part_vertex_colors(model)
    is_skin = (model.triangle_part == PARTS.index("skin"))[:, None, None]
    skin_color = (is_skin * colors[model.triangles]).sum((0, 1)) / (3.0 * is_skin.sum())
    albedo = interpolate(fragments, model.triangles, colors)
    albedo = jnp.where(among("eyes")[..., None], albedo, albedo / skin_color)
    position = interpolate(fragments, model.triangles, model.mean_mm)
    face, front, bare, lids, rims = _zones(position, landmarks3d(model, model.mean_mm))
    bare = bare | among("ears", "neck")
    return Atlas(
        fragments=fragments,
        mirror_px=jnp.where(
            covered[..., None],
            interpolate(fragments, model.triangles, screen[mirror]),
            pixel_grid(size, size),
        ),
        albedo=jnp.where(covered[..., None], albedo, 1.0),
        skin=among("skin", "nose") & face & front,
        plain=among("skin", "nose", "ears", "neck") & bare,
        rims=among("skin", "nose") & front & rims,
        feature=among("brows", "lips") | (among("skin", "nose") & front & lids),
        eyes=among("eyes"),
    )


def _zones(position: Array, points: Array) -> tuple[Array, ...]:
    """Zones of skin positions (..., 3) by the 68 landmarks (68, 3), both millimetres of model
    space, each (...) bool: between hairline and chin; on the front; without beard, brows and lids;
    on brows and lids; under the rims of glasses."""
    x, y = jnp.abs(position[..., 0]), position[..., 1]
    brow, chin, nostrils = points[17:27, 1].max(), points[8, 1], points[33, 1]
    height = brow - chin
    eye_x, eye_y = jnp.abs(points[36:48, 0]), points[36:48, 1]
    face = (y < brow + 0.25 * height) & (y > chin)
    front = x < 0.9 * jnp.abs(points[:N_JAW, 0]).max()
    beside = (x < eye_x.min() - 0.02 * height) | (x > eye_x.max() + 0.08 * height)
    lids = ~beside & (y > eye_y.min() - 0.05 * height) & (y < brow + 0.06 * height)
    # Brows reach farther inwards and outwards than the eyes.
    brows = (y > eye_y.max() + 0.03 * height) & (y < brow + 0.06 * height) & front
    bare = (y > nostrils) & ~lids & ~brows
    rims = bare & (y < brow) & (y > eye_y.min() - 0.12 * height)
    return face, front, bare, lids | brows, rims


def _texels(uv: Array, size: int) -> Array:
    """uv (..., 2), v up, to texel centres (x, y); the inverse of `sample_texture`."""
    return jnp.stack([uv[..., 0] * size - 0.5, (1.0 - uv[..., 1]) * size - 0.5], axis=-1)


def blur(values: Array, sigma: float) -> Array:
    """Gaussian blur of texels (S, S, C), `sigma` in texels; texels beyond the border count as 0."""
    offset = jnp.arange(values.shape[0])
    kernel = jnp.exp(-0.5 * ((offset[:, None] - offset) / sigma) ** 2)
    kernel /= kernel[len(offset) // 2].sum()
    return jnp.einsum("ij,jkc,lk->ilc", kernel, values, kernel)


def smooth(values: Array, weight: Array, sigma: float, otherwise: Array | float = 0.0) -> Array:
    """Gaussian-weighted mean of texels (S, S, C) with weights (S, S), `sigma` in texels; tends to
    `otherwise` where there is no weight nearby."""
    mean = blur(values * weight[..., None], sigma)
    total = blur(weight[..., None], sigma)
    epsilon = 1e-3
    return (mean + epsilon * otherwise) / (total + epsilon)


def fill(values: Array, weight: Array) -> Array:
    """Inpaint the texels (S, S, C) of weight (S, S) 0: smooth near the others, 0 far from them."""
    filled, sigma = jnp.zeros_like(values), len(values) / 12.0
    while sigma > 0.7:
        filled = smooth(values, weight, sigma, filled)
        sigma /= 2.0
    return jnp.where(weight[..., None] > 0, values, filled)


def mirrored(atlas: Atlas, values: Array) -> Array:
    """Texels (S, S, C) resampled from the other side of the face."""
    return bilinear_sample(values, atlas.mirror_px)
