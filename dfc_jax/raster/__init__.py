"""Rendering in pure JAX: a rasterizer, differentiable interpolation, shading."""

from dfc_jax.raster.interpolate import barycentrics, interpolate
from dfc_jax.raster.rasterize import rasterize
from dfc_jax.raster.render import RenderOutput, pncc_colors, render
from dfc_jax.raster.shade import N_SH, sample_texture, sh_basis, sh_irradiance, shade

__all__ = [
    "N_SH",
    "RenderOutput",
    "barycentrics",
    "interpolate",
    "pncc_colors",
    "rasterize",
    "render",
    "sample_texture",
    "sh_basis",
    "sh_irradiance",
    "shade",
]
