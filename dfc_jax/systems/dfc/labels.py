"""True flow and matchability from a render or a fitted mesh to the template."""

import jax
import jax.numpy as jnp

from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster.flow import ground_truth_flow
from dfc_jax.systems.dfc.template import Template, on_template
from dfc_jax.types import (
    Array,
    Fragments,
)

UV_TOLERANCE = 0.015


def flow_to_template(source: Fragments, template: Template) -> tuple[Array, Array]:
    """Exact flow (H, W, 2) in pixels and matchability (H, W) from a render to the template.

    The source may be of another size than the template; the flow then is still
    ``q - p`` with q in template pixels.
    """
    flow, matchable = ground_truth_flow(
        source,
        template.fragments,
        template.vertices_mm,
        template.camera,
        template.triangles,
    )
    q = flow + pixel_grid(*source.pix_to_face.shape)
    return flow, matchable & on_template(template, q)


def nearest_uv_labels(
    uv: Array, foreground: Array, template: Template, max_distance: float = UV_TOLERANCE
) -> tuple[Array, Array]:
    """The paper's labels for a photograph with a fitted mesh: flow (H, W, 2) and matchability.

    Each foreground pixel with atlas coordinates uv (H, W, 2) goes to the template pixel with
    the nearest atlas coordinates, matchable if closer than `max_distance`. Whole template
    pixels only; `flow_to_template` is its exact counterpart.
    """
    size = uv.shape[0]
    template_uv = jnp.where(template.valid[..., None], template.uv, jnp.inf).reshape(-1, 2)

    def nearest(row: Array) -> tuple[Array, Array]:
        squared = jnp.sum((row[:, None] - template_uv) ** 2, axis=-1)
        return jnp.argmin(squared, axis=-1), jnp.sqrt(jnp.min(squared, axis=-1))

    index, distance = jax.lax.map(nearest, uv)
    q = jnp.stack([index % template.size, index // template.size], axis=-1).astype(jnp.float32)
    matchable = foreground & (distance < max_distance)
    return jnp.where(foreground[..., None], q - pixel_grid(size, size), 0.0), matchable
