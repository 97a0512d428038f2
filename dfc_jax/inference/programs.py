"""The compiled programs between crops and fitted faces; `solve.Solver` runs them."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dfc_jax.camera import project, to_camera
from dfc_jax.fitting import FitResult, Status, fit, uncertainty, visible_landmarks
from dfc_jax.inference.segmentation import Segmentation, segment, visible
from dfc_jax.morphable.linear import FaceModel, shape, surface_positions
from dfc_jax.ops.batches import each
from dfc_jax.ops.rotations import head_rotation
from dfc_jax.raster.flow import fragments_of
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.systems.dfc.lift import lift, recover, with_eyes
from dfc_jax.systems.dfc.networks import NetSpec, Variables
from dfc_jax.systems.dfc.onnx_model import correspond_alone
from dfc_jax.systems.dfc.template import Template
from dfc_jax.types import AnyArray, Array, Camera, Correspondences, FaceParams

# Crop pixels between the landmarks, across and down, from which a fit can be a face.
MIN_EXTENT_PX = 1.0


class Known(NamedTuple):
    """What is known of the face in a crop before it is looked at.

    Attributes:
      principal_point: (2,) crop pixels.
      focal_px: () crop pixels, or None.
      identity: (K,) standard deviations, or None; both or neither.
    """

    principal_point: AnyArray
    focal_px: AnyArray | None = None
    identity: AnyArray | None = None


class Dense(NamedTuple):
    """What the network and the fit find in a crop of S x S pixels; it stays on the device.

    Attributes:
      flow: (S, S, 2) crop pixels, from the crop to the template.
      matchability: (S, S) probability of being matchable.
      segmentation: (S, S) probability of showing the face, None without such a network.
      correspondences: what the face was fitted to.
      principal_point: (2,) crop pixels.
      params: the fitted face.
      vertices_mm: (V, 3) its mesh in camera space.
      landmarks3d_mm: (68, 3) camera space.
    """

    flow: Array
    matchability: Array
    segmentation: Array | None
    correspondences: Correspondences
    principal_point: Array
    params: FaceParams
    vertices_mm: Array
    landmarks3d_mm: Array


@partial(jax.jit, static_argnames=("spec", "flip_test"))
def correspond(
    crops: Array, variables: Variables, code: Array, spec: NetSpec, flip_test: bool = False
) -> tuple[Array, Array]:
    """Flow (N, S, S, 2) in crop pixels and matchability (N, S, S) of crops (N, S, S, 3).

    `code` is the template's, from `encode_target`. With `flip_test`, the mean of what the network
    says about each crop and about its mirror image. The template is its own mirror image, so a
    pixel's flow in the one is that of its mirror image in the other, with x negated.
    """
    views = jnp.concatenate([crops, crops[:, :, ::-1]]) if flip_test else crops
    flow, probability = correspond_alone(views, variables, code, spec)
    if not flip_test:
        return flow, probability
    n = len(crops)
    mirrored = flow[n:, :, ::-1] * jnp.array([-1.0, 1.0])
    return (flow[:n] + mirrored) / 2.0, (probability[:n] + probability[n:, :, ::-1]) / 2.0


@partial(jax.jit, static_argnames=("spec", "flip_test"))
def correspond_and_segment(
    crops: Array,
    variables: Variables,
    code: Array,
    spec: NetSpec,
    flip_test: bool,
    segmentation: Segmentation,
) -> tuple[Array, Array, Array]:
    """`correspond`, and `segment` of the same crops, in one program."""
    found = correspond(crops, variables, code, spec, flip_test)
    return (*found, segment(crops, segmentation, flip_test))


def lift_with_eyes(template: Template, flow: Array, probability: Array) -> Correspondences:
    """Correspondences of a flow: `lift`, and `with_eyes`."""
    return with_eyes(lift(template, flow, probability), template, flow, probability)


@jax.jit
def lift_each(
    template: Template, flow: Array, probability: Array, segmentation: Array | None = None
) -> Correspondences:
    """`lift_with_eyes` of each of N flows; with a segmentation, of what is visible by it."""
    return jax.vmap(partial(lift_with_eyes, template))(flow, visible(probability, segmentation))


def fit_residual(
    model: FaceModel, correspondences: Correspondences, known: Known
) -> tuple[FitResult, Array]:
    """`fit`, and its residual () in pixels, infinite where the correspondences determine no face: a
    network without sense may send all pixels to a point or a line."""
    given = {"focal_px": known.focal_px, "identity": known.identity}
    result = fit(model, correspondences, known.principal_point, **given)
    return result, jnp.where(result.status < Status.NO_POINTS, result.rms_px, jnp.inf)


@jax.jit
def fit_each(
    model: FaceModel, correspondences: Correspondences, known: Known
) -> tuple[FaceParams, Array]:
    """`fit_residual` of each of N sets of correspondences: parameters, and residuals (N,). What is
    `known` has a leading axis of N."""

    def one(correspondences: Correspondences, known: Known) -> tuple[FaceParams, Array]:
        result, residual = fit_residual(model, correspondences, known)
        return result.params, residual

    return each(one, correspondences, known)


def pose_mesh(
    model: FaceModel, params: FaceParams, principal_point: Array
) -> tuple[Array, Array, Array]:
    """Vertices (V, 3) and landmarks (68, 3) in camera space, and the latter in pixels (68, 2)."""
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    landmarks = surface_positions(vertices, model.triangles, visible_landmarks(model, params))
    return vertices, landmarks, project(Camera(params.focal_px, principal_point), landmarks)


def summarise(
    model: FaceModel,
    flow: Array,
    probability: Array,
    principal_point: Array,
    params: FaceParams,
    segmentation: Array | None = None,
) -> tuple[dict[str, Array], Array, Array]:
    """What decides between fits, and vertices (V, 3) and landmarks (68, 3) in camera space.

    Shares and certainty are of the matchability alone, with a segmentation or without.
    """
    vertices, landmarks, pixels = pose_mesh(model, params, principal_point)
    matchable = probability > 0.5
    count = jnp.sum(matchable)
    total = jnp.sum(jnp.where(matchable, probability, 0.0))
    leaves = jax.tree.leaves((flow, probability, segmentation, params, vertices, pixels))
    found = {
        "landmarks_px": pixels,
        "rotation": head_rotation(params.rotation),
        "matchable_share": count / matchable.size,
        "certainty": total / jnp.maximum(count, 1),
        # A network without sense may shrink the face to a point, which no crop can show.
        "sound": jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]))
        & jnp.all(jnp.ptp(pixels, axis=0) >= MIN_EXTENT_PX),
    }
    return found, vertices, landmarks


@jax.jit
def summarise_each(
    flow: Array,
    probability: Array,
    segmentation: Array | None,
    correspondences: Correspondences,
    principal_point: Array,
    params: FaceParams,
    model: FaceModel,
) -> tuple[dict[str, Array], list[Dense]]:
    """`summarise` of N fits (N, ...), and the rest of each by itself."""

    def one(
        flow: Array,
        probability: Array,
        segmentation: Array | None,
        correspondences: Correspondences,
        principal_point: Array,
        params: FaceParams,
    ) -> tuple[dict[str, Array], Dense]:
        found, vertices, landmarks = summarise(
            model, flow, probability, principal_point, params, segmentation
        )
        seen = flow, probability, segmentation, correspondences, principal_point
        return found, Dense(*seen, params, vertices, landmarks)

    seen = flow, probability, segmentation, correspondences, principal_point
    found, batch = each(one, *seen, params)
    return found, [jax.tree.map(lambda a, i=i: a[i], batch) for i in range(len(flow))]


@jax.jit
def finish_each(dense: Sequence[Dense], template: Template, model: FaceModel) -> dict[str, Any]:
    """What `Solution` holds beside the residual, the landmarks in pixels and the rotation, of N
    fits."""

    def one(
        flow: Array,
        probability: Array,
        segmentation: Array | None,
        correspondences: Correspondences,
        principal_point: Array,
        params: FaceParams,
        vertices: Array,
        landmarks: Array,
    ) -> dict[str, Any]:
        camera = Camera(params.focal_px, principal_point)
        fitted = fragments_of(vertices, model.triangles, camera, template.size)
        fitted_flow, fitted_mask = flow_to_template(fitted, template)
        used = visible(probability, segmentation) > 0.5
        refined_flow, refined_mask = recover(flow, used, fitted_flow, fitted_mask)
        return {
            "flow": flow,
            "matchability": probability,
            "segmentation": segmentation,
            "refined_flow": refined_flow,
            "refined_mask": refined_mask,
            "fitted_mask": fitted_mask,
            "landmarks3d_mm": landmarks,
            "vertices_mm": vertices,
            "translation_mm": params.translation_mm,
            "focal_px": params.focal_px,
            "principal_point": principal_point,
            "identity": params.identity,
            "expression": params.expression,
            "uncertainty": uncertainty(model, correspondences, principal_point, params),
        }

    return each(one, *jax.tree.map(lambda *leaves: jnp.stack(leaves), *dense))
