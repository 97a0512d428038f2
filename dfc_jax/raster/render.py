"""Rendering of a mesh: depth, normals, colour and any other attribute of each pixel."""

import functools
from collections.abc import Mapping
from dataclasses import field

import jax
import jax.numpy as jnp
from flax import struct

from dfc_jax.camera import project
from dfc_jax.morphable.linear import vertex_normals
from dfc_jax.raster.interpolate import barycentrics, interpolate
from dfc_jax.raster.rasterize import rasterize
from dfc_jax.raster.shade import sample_texture, shade
from dfc_jax.types import Array, ByValue, Camera, Fragments


@struct.dataclass(eq=False)
class RenderOutput(ByValue):
    """What the camera sees; every image is 0 on the background.

    Attributes:
      fragments: which surface point each pixel shows, without gradients.
      mask: (H, W) bool, pixels on the mesh.
      depth_mm: (H, W) depth along the optical axis.
      normals: (H, W, 3) unit outward normals in camera space, interpolated over the triangles.
      rgb: (H, W, 3) albedo (white if none was given), times the light if there is one; >= 0 for
        a non-negative albedo, not clipped above.
      uv: (H, W, 2), None unless `render` was given uv.
      attributes: by name, the (H, W, C) images of the attributes that `render` was given.
    """

    fragments: Fragments
    mask: Array
    depth_mm: Array
    normals: Array
    rgb: Array
    uv: Array | None = None
    attributes: dict[str, Array] = field(default_factory=dict)


@functools.partial(jax.jit, static_argnames=("image_size", "cull_backfaces"))
def render(
    vertices_mm: Array,
    triangles: Array,
    camera: Camera,
    image_size: int,
    *,
    uv: Array | None = None,
    texture: Array | None = None,
    vertex_colors: Array | None = None,
    sh: Array | None = None,
    attributes: Mapping[str, Array] | None = None,
    cull_backfaces: bool = False,
) -> RenderOutput:
    """Render a mesh into a square image.

    Differentiable in all floating-point arguments, except across silhouettes: which triangle a
    pixel sees, and hence the mask, is held fixed.

    Args:
      vertices_mm: (V, 3) in camera space.
      triangles: (T, 3) int32, counter-clockwise seen from outside.
      camera: perspective or orthographic.
      image_size: height and width in pixels (static).
      uv: (V, 2) uv coordinates in [0, 1], v up.
      texture: (h, w, 3) albedo over the uv atlas; needs `uv`.
      vertex_colors: (V, 3) albedo, instead of a texture.
      sh: (9, 3) spherical-harmonics light in camera space, see `sh_irradiance`; without
        it `rgb` is the albedo.
      attributes: by name, any (V, C) values to interpolate over the triangles, for example
        ``{"pncc": pncc_colors(mean_mm)}``.
      cull_backfaces: do not draw triangles that turn their inside to the camera (static).

    Raises:
      ValueError: a texture without uv, both a texture and vertex colours, or an attribute of
        another shape than (V, C).
    """
    if texture is not None and uv is None:
        raise ValueError("a texture needs uv coordinates")
    if texture is not None and vertex_colors is not None:
        raise ValueError("give a texture or vertex colours, not both")
    attributes = attributes or {}
    for name, values in attributes.items():
        if values.ndim != 2 or len(values) != len(vertices_mm):
            raise ValueError(
                f"the attribute {name!r} has shape {values.shape}; it must be "
                f"({len(vertices_mm)}, C), a row for each vertex"
            )

    screen_xy, depth_mm = project(camera, vertices_mm), vertices_mm[:, 2]
    perspective = camera.projection == "perspective"
    fragments = rasterize(screen_xy, depth_mm, triangles, image_size, cull_backfaces, perspective)
    bary = barycentrics(fragments, screen_xy, depth_mm, triangles, perspective)
    surface = fragments.replace(bary_coords=bary)

    def image(values: Array) -> Array:
        return interpolate(surface, triangles, values)

    mask = fragments.pix_to_face >= 0
    normals = _normalise(image(vertex_normals(vertices_mm, triangles)))
    uv_image = None if uv is None else image(uv)
    if texture is not None and uv_image is not None:
        albedo = sample_texture(texture, uv_image)
    else:
        albedo = image(jnp.ones_like(vertices_mm) if vertex_colors is None else vertex_colors)
    rgb = albedo if sh is None else shade(albedo, normals, sh)
    return RenderOutput(
        fragments=fragments,
        mask=mask,
        depth_mm=image(depth_mm[:, None])[..., 0],
        normals=normals,
        rgb=jnp.where(mask[..., None], rgb, 0.0),
        uv=uv_image,
        attributes={name: image(values) for name, values in attributes.items()},
    )


def pncc_colors(mean_mm: Array) -> Array:
    """Vertex colours (V, 3) of the projected normalised coordinate code (Zhu et al. 2016).

    The mean shape (V, 3), scaled to [0, 1] along each model axis: x to the subject's left, y up,
    z out of the face. An axis without extent gives 0.
    """
    low, high = mean_mm.min(axis=0), mean_mm.max(axis=0)
    extent = high - low
    return (mean_mm - low) / jnp.where(extent > 0, extent, 1.0)


def _normalise(vectors: Array) -> Array:
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))
