"""Fit the face model to 68 landmarks in the iBUG order, the jaw sliding along the silhouette."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project, to_camera
from dfc_jax.fitting.fit import FitResult, fit_result, joint_bounds, unprimed, with_priors
from dfc_jax.fitting.levenberg_marquardt import LMResult
from dfc_jax.fitting.residuals import N_POSE, FitProblem, flatten, unflatten
from dfc_jax.fitting.rounds import refine
from dfc_jax.fitting.settings import LANDMARKS, FitSettings
from dfc_jax.fitting.starts import start
from dfc_jax.landmarks68 import JAW, N_JAW, N_LANDMARKS, OPENINGS
from dfc_jax.morphable.linear import FaceModel, landmarks3d, shape, surface_basis, surface_positions
from dfc_jax.ops.rotations import head_rotation
from dfc_jax.types import Array, Camera, FaceParams, SurfacePoints

_SLIDE_COST_MM = 0.15


@dataclasses.dataclass(frozen=True)
class LandmarkSettings:
    """Settings of `fit_landmarks` (hashable: static under jit).

    Attributes:
      fit: weights and effort; `min_noise_px` in pixels of the image, no coarse rounds are made.
      jaw_weight: weight of each of the 17 jaw points, relative to the brows, nose and outer lips.
      opening_weight: the same of the points around the eyes and of the inner lips, which say how
        far eyes and mouth are open.
    """

    fit: FitSettings = LANDMARKS
    jaw_weight: float = 0.3
    opening_weight: float = 4.0


def visible_landmarks(model: FaceModel, params: FaceParams) -> SurfacePoints:
    """Where people see the 68 landmarks of a posed face: surface points (68,).

    The inner ones are `FaceModel.landmarks`; of each jaw line the candidate that `_choose` takes.
    """
    mean, basis = surface_basis(model, model.contours, params.identity.shape[-1])
    candidates = mean + basis @ jnp.concatenate([params.identity, params.expression])
    index = _choose(candidates, _jaw_lines(model), params)
    rows, inner = jnp.arange(N_JAW), model.landmarks
    return SurfacePoints(
        triangle=inner.triangle.at[:N_JAW].set(model.contours.triangle[rows, index]),
        barycentric=inner.barycentric.at[:N_JAW].set(model.contours.barycentric[rows, index]),
    )


def project_landmarks(model: FaceModel, params: FaceParams, principal_point: Array) -> Array:
    """The 68 landmarks of `visible_landmarks` in pixels (68, 2)."""
    vertices = shape(model, params.identity, params.expression)
    points = surface_positions(vertices, model.triangles, visible_landmarks(model, params))
    return project(_camera(params, principal_point), to_camera(params, points))


@partial(jax.jit, static_argnames=("settings", "n_identity"))
def fit_landmarks(
    model: FaceModel,
    landmarks_px: Array,
    principal_point: Array,
    settings: LandmarkSettings = LandmarkSettings(),
    n_identity: int = 50,
    weight: Array | None = None,
    initial: FaceParams | None = None,
    focal_px: Array | None = None,
) -> FitResult:
    """Pose, shape and expression of one face from 68 landmarks; batches through `jax.vmap`.

    The pose starts from the 51 inner points. Before each of `settings.fit.rounds` rounds the jaw
    points move along `FaceModel.contours` to the silhouette of the present estimate.

    Args:
      model: the face model.
      landmarks_px: (68, 2) pixels, iBUG order; a point that is not finite is ignored.
      principal_point: (2,) pixel of the optical axis.
      settings: weights and effort.
      n_identity: identity directions to use, as far as the model has them, the rest stays 0;
        all expressions are used.
      weight: (68,) non-negative, times those of `settings`; 0 ignores a point, whatever it holds.
      initial: start here (with `n_identity` coefficients) instead of from scratch.
      focal_px: the focal length, when known; estimated otherwise.
    """
    n_identity = min(n_identity, model.n_identity)
    is_jaw = jnp.arange(N_LANDMARKS) < N_JAW
    weight = jnp.ones(N_LANDMARKS) if weight is None else weight
    part_weight = np.ones(N_LANDMARKS, np.float32)
    part_weight[JAW], part_weight[OPENINGS] = settings.jaw_weight, settings.opening_weight
    weight = weight * part_weight
    contours, lines = surface_basis(model, model.contours, n_identity), _jaw_lines(model)
    mean, basis = surface_basis(model, model.landmarks, n_identity)
    problem = unprimed(mean, basis, landmarks_px, weight, principal_point)
    inner = dataclasses.replace(problem, weight=jnp.where(is_jaw, 0.0, problem.weight))
    x = start(inner, settings.fit, focal_px) if initial is None else flatten(initial)
    if focal_px is not None:
        x = x.at[0].set(jnp.log(focal_px))
    problem = with_priors(problem, x, settings.fit, n_identity, model.expression_names)
    lower, upper = joint_bounds(x, n_identity, focal_px is not None)

    def one_round(x: Array, _) -> tuple[Array, LMResult]:
        current = _on_silhouette(x, problem, contours, lines)
        x, results = refine(x, current, settings.fit, lower, upper, 1, settings.fit.steps)
        return x, jax.tree.map(lambda values: values[0], results)

    x, results = jax.lax.scan(one_round, x, None, length=settings.fit.rounds)
    problem = _on_silhouette(x, problem, contours, lines)
    return fit_result(x, problem, settings.fit, n_identity, results)


def _camera(params: FaceParams, principal_point: Array) -> Camera:
    return Camera(params.focal_px, jnp.asarray(principal_point))


class _JawLines(NamedTuple):
    """What the choice of the visible jaw points needs to know of a model.

    normals: (17, 2) outward direction in the model's frontal plane.
    home: (17,) index of the embedded landmark on its line.
    """

    normals: Array
    home: Array


def _jaw_lines(model: FaceModel) -> _JawLines:
    jaw = landmarks3d(model, model.mean_mm)[:N_JAW]
    padded = jnp.concatenate([jaw[:1], jaw, jaw[-1:]])
    # The jaw runs from the subject's right ear over the chin to the left ear.
    along = padded[2:] - padded[:-2]
    normals = jnp.stack([along[:, 1], -along[:, 0]], axis=-1)
    lines = surface_positions(model.mean_mm, model.triangles, model.contours)
    home = jnp.argmin(jnp.linalg.norm(lines - jaw[:, None], axis=-1), axis=1)
    return _JawLines(normals / jnp.linalg.norm(normals, axis=-1, keepdims=True), home)


def _choose(candidates_mm: Array, lines: _JawLines, params: FaceParams) -> Array:
    """(17,) index of the candidate (17, L, 3) of each jaw line that lies farthest outwards.

    Outwards is the jaw's normal in the model's frontal plane, turned with the head. Where the
    line is seen end on, no place is farther out than another; moving away from the line's
    embedded place has to gain `_SLIDE_COST_MM` a step, so there the embedded place wins.
    """
    rotation = head_rotation(params.rotation)
    outwards = lines.normals @ rotation[:2, :2].T
    reach = jnp.einsum("kli,ki->kl", candidates_mm @ rotation[:2].T, outwards)
    steps = jnp.abs(jnp.arange(candidates_mm.shape[1]) - lines.home[:, None])
    return jnp.argmax(reach - _SLIDE_COST_MM * steps, axis=-1)


def _on_silhouette(
    x: Array, problem: FitProblem, contours: tuple[Array, Array], lines: _JawLines
) -> FitProblem:
    mean, basis = contours
    params = unflatten(x, 0)
    index = _choose(mean + basis @ x[N_POSE:], lines, params)
    rows = jnp.arange(N_JAW)
    return dataclasses.replace(
        problem,
        mean_mm=problem.mean_mm.at[:N_JAW].set(mean[rows, index]),
        basis_mm=problem.basis_mm.at[:N_JAW].set(basis[rows, index]),
    )
