"""Errors of dense correspondences against a photograph whose flow to the template is known."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from dfc_jax.data.faces import DenseTruth
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster.interpolate import interpolate
from dfc_jax.types import Array

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face
    from dfc_jax.systems.dfc.template import Template

# A sample counts where all the pixels that it is taken between do.
WHOLE = 0.999


class DenseErrors(NamedTuple):
    """Mean errors over the pixels of one photograph that the template sees; NaN without any.

    flow_px: end-point error of the network's flow, in template pixels; over those in the crop.
    mesh_px: distance of the fitted mesh from where it should be, in photo pixels.
    """

    flow_px: float
    mesh_px: float


def dense_errors(truth: DenseTruth, face: "Face", template: "Template") -> DenseErrors:
    """The errors of a face's flow, and of its mesh, in every pixel whose correspondence is known.

    A matchable pixel p of the photograph shows the point of the face that the template shows at q.
    The flow is wrong by the distance of where it leads p from q; the mesh by the distance from p of
    the pixel to which its own point of q projects.

    Args:
      truth: of the whole photograph, whose size is that of its own template.
      face: what was found in the photograph.
      template: to which the face's flow leads.
    """
    seen_at = face.focal_px * face.vertices_mm[:, :2] / face.vertices_mm[:, 2:]
    found = face.flow, face.crop.to_crop, seen_at + face.principal_point
    return DenseErrors(*map(float, _errors(*truth, *found, template)))


@jax.jit
def _errors(
    true_flow: Array,
    matchable: Array,
    flow: Array,
    to_crop: Array,
    vertices_px: Array,
    template: "Template",
) -> tuple[Array, Array]:
    p = pixel_grid(*matchable.shape)
    # From the template at the photograph's size to that of the network: pixels are squares.
    q = (p + true_flow + 0.5) * (template.size / len(true_flow)) - 0.5
    at = p @ to_crop[:, :2].T + to_crop[:, 2]
    led = at + bilinear_sample(flow, at)
    inside = jnp.all((at >= 0.0) & (at <= len(flow) - 1.0), axis=-1)
    places = interpolate(template.fragments, template.triangles, vertices_px)
    seen = bilinear_sample(places, q)
    whole = bilinear_sample(template.valid[..., None].astype(q.dtype), q)[..., 0] > WHOLE
    return (
        _mean(jnp.linalg.norm(led - q, axis=-1), matchable & inside),
        _mean(jnp.linalg.norm(seen - p, axis=-1), matchable & whole),
    )


def _mean(errors: Array, counted: Array) -> Array:
    return jnp.sum(jnp.where(counted, errors, 0.0)) / jnp.sum(counted)
