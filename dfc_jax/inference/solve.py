"""From a crop to a fitted face, as three compiled programs: `correspond`, `fit` and `finish`."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.camera import crop_camera, project, to_camera
from dfc_jax.fitting import N_IDENTITY, fit, visible_landmarks
from dfc_jax.morphable.linear import FaceModel, shape, surface_positions
from dfc_jax.ops.rotations import head_rotation
from dfc_jax.raster.flow import fragments_of
from dfc_jax.systems.dfc.lift import N_POINTS, lift, recover
from dfc_jax.systems.dfc.networks import (
    NetSpec,
    Variables,
    apply_with_code,
    encode_target,
    matchability,
)
from dfc_jax.systems.dfc.template import Template, make_template
from dfc_jax.types import Array, ByValue, Correspondences, FaceParams, SurfacePoints


@struct.dataclass(eq=False)
class Solution(ByValue):
    """What the compiled program finds in one crop of S x S pixels.

    Attributes:
      flow: (S, S, 2) crop pixels, from the crop to the template.
      mask: (S, S) probability of being matchable.
      refined_flow: (S, S, 2) `flow`, with what is missing recovered from the fitted mesh.
      refined_mask: (S, S) bool, where the fitted mesh is matchable.
      landmarks_px: (68, 2) crop pixels.
      landmarks3d_mm: (68, 3) camera space.
      vertices_mm: (V, 3) camera space.
      rotation: (3, 3) model to camera.
      translation_mm: (3,).
      focal_px: () crop pixels.
      identity: (K,) standard deviations.
      expression: (E,) weights in [0, 1].
      residual_px: () root mean square of the fit's inliers, crop pixels; infinite without any.
    """

    flow: Array
    mask: Array
    refined_flow: Array
    refined_mask: Array
    landmarks_px: Array
    landmarks3d_mm: Array
    vertices_mm: Array
    rotation: Array
    translation_mm: Array
    focal_px: Array
    identity: Array
    expression: Array
    residual_px: Array


Solver = Callable[[np.ndarray], Solution]


@partial(jax.jit, static_argnames=("spec", "flip_test"))
def correspond(
    crop: Array, variables: Variables, code: Array, spec: NetSpec, flip_test: bool = False
) -> tuple[Array, Array]:
    """Flow (S, S, 2) in crop pixels and probability (S, S) of being matchable, of a crop (S, S, 3).

    `code` is the template's, from `encode_target`. With `flip_test`, the mean of what the network
    says about the crop and about its mirror image. The template is its own mirror image, so a
    pixel's flow in the one is that of its mirror image in the other, with x negated.
    """
    views = jnp.stack([crop, crop[:, ::-1]]) if flip_test else crop[None]
    outputs = apply_with_code(variables, views, code, spec)
    flow, mask = outputs.flow, matchability(outputs.logits)
    if not flip_test:
        return flow[0], mask[0]
    mirrored = flow[1, :, ::-1] * jnp.array([-1.0, 1.0])
    return (flow[0] + mirrored) / 2.0, (mask[0] + mask[1, :, ::-1]) / 2.0


@jax.jit
def finish(
    flow: Array, mask: Array, params: FaceParams, template: Template, model: FaceModel
) -> dict[str, Array]:
    """What `Solution` holds beside the network's outputs and the fit's parameters."""
    camera = crop_camera(params, template.size)
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    landmarks = surface_positions(vertices, model.triangles, visible_landmarks(model, params))
    fitted = fragments_of(vertices, model.triangles, camera, template.size)
    refined_flow, refined_mask = recover(flow, mask > 0.5, fitted, template)
    return {
        "refined_flow": refined_flow,
        "refined_mask": refined_mask,
        "landmarks_px": project(camera, landmarks),
        "landmarks3d_mm": landmarks,
        "vertices_mm": vertices,
        "rotation": head_rotation(params.rotation),
    }


def solve_crop(
    crop: np.ndarray,
    variables: Variables,
    code: Array,
    template: Template,
    model: FaceModel,
    spec: NetSpec,
    flip_test: bool = False,
) -> Solution:
    """Network (`correspond`), lift, fit and landmarks of one crop (S, S, 3)."""
    flow, mask = correspond(crop, variables, code, spec, flip_test)
    result = fit(model, lift(template, flow, mask), template.camera.principal_point)
    params = result.params
    return Solution(
        flow=flow,
        mask=mask,
        translation_mm=params.translation_mm,
        focal_px=params.focal_px,
        identity=params.identity,
        expression=params.expression,
        residual_px=result.rms_px,
        **finish(flow, mask, params, template, model),
    )


def make_solver(
    variables: Variables, spec: NetSpec, model: FaceModel, flip_test: bool = False
) -> Solver:
    """`solve_crop` with the network and the model's template in place, compiled.

    The fit takes as long to compile as all the rest, so both compile at the same time.
    """
    with ThreadPoolExecutor(1) as pool:
        fitted = pool.submit(_compile_fit, model)
        # Not `jnp.asarray` leaf by leaf, which compiles a copy for each shape.
        variables = jax.device_put(variables)
        template = make_template(model)
        code = encode_target(variables, template.image[None], spec)
        black = np.zeros(template.image.shape, np.float32)
        flow, mask = correspond(black, variables, code, spec, flip_test)
        lift(template, flow, mask)
        mean = dataclasses.replace(template.params, identity=template.params.identity[:N_IDENTITY])
        finish(flow, mask, mean, template, model)
        fitted.result()

    def solver(crop: np.ndarray) -> Solution:
        return solve_crop(crop, variables, code, template, model, spec, flip_test)

    return solver


def _compile_fit(model: FaceModel) -> None:
    def zeros(*shape: int, dtype: type = np.float32) -> Array:
        return jax.device_put(np.zeros(shape, dtype))

    surface = SurfacePoints(zeros(N_POINTS, dtype=np.int32), zeros(N_POINTS, 3))
    nothing = Correspondences(zeros(N_POINTS, 2), surface, zeros(N_POINTS))
    fit(model, nothing, zeros(2))
