"""Fit the face model to 68 landmarks in the iBUG order, the jaw sliding along the silhouette, alone
or beside correspondences."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project, to_camera
from dfc_jax.fitting.fit import (
    FitResult,
    fit,
    fit_result,
    joint_bounds,
    problem_of,
    unprimed,
    with_priors,
)
from dfc_jax.fitting.levenberg_marquardt import LMResult
from dfc_jax.fitting.residuals import (
    FitProblem,
    flatten,
    jacobian,
    residuals,
)
from dfc_jax.fitting.rounds import in_units_of_noise, refine, settled
from dfc_jax.fitting.settings import DEFAULT, LANDMARKS, N_IDENTITY, FitSettings
from dfc_jax.fitting.silhouette import jaw_lines, on_silhouette, visible_landmarks
from dfc_jax.fitting.starts import start
from dfc_jax.fitting.status import Status
from dfc_jax.landmarks68 import JAW, N_JAW, N_LANDMARKS, OPENINGS
from dfc_jax.morphable.linear import FaceModel, shape, surface_basis, surface_positions
from dfc_jax.types import Array, Camera, Correspondences, FaceParams


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
    problem, slide = _landmark_problem(
        model, landmarks_px, principal_point, settings, n_identity, weight
    )
    is_jaw = jnp.arange(N_LANDMARKS) < N_JAW
    inner = dataclasses.replace(problem, weight=jnp.where(is_jaw, 0.0, problem.weight))
    x = start(inner, settings.fit, focal_px) if initial is None else flatten(initial)
    if focal_px is not None:
        x = x.at[0].set(jnp.log(focal_px))
    problem = with_priors(problem, x, settings.fit, n_identity, model.expression_names)
    lower, upper = joint_bounds(x, n_identity, focal_px is not None)

    def one_round(x: Array, _) -> tuple[Array, LMResult]:
        current = slide(x, problem)
        x, results = refine(x, current, settings.fit, lower, upper, 1, settings.fit.steps)
        return x, jax.tree.map(lambda values: values[0], results)

    x, results = jax.lax.scan(one_round, x, None, length=settings.fit.rounds)
    return fit_result(x, slide(x, problem), settings.fit, n_identity, results)


@partial(jax.jit, static_argnames=("settings", "landmark_settings", "n_identity"))
def fit_both(
    model: FaceModel,
    correspondences: Correspondences,
    landmarks_px: Array,
    principal_point: Array,
    settings: FitSettings = DEFAULT,
    landmark_settings: LandmarkSettings = LandmarkSettings(),
    n_identity: int = N_IDENTITY,
    weight: Array | None = None,
    focal_px: Array | None = None,
) -> FitResult:
    """Pose, shape and expression of one face from N correspondences and 68 landmarks together.

    Starts from the fit to the correspondences alone, or from that to the landmarks where those do
    not determine a face. Then, in `settings.view_rounds` rounds, both count in units of their own
    noise: that of landmarks is at least `landmark_settings.fit.min_noise_px`.

    Args:
      model, correspondences, principal_point, settings, n_identity, focal_px: see `fit`; the priors
        are those of `settings`.
      landmarks_px, weight: see `fit_landmarks`.
      landmark_settings: how much landmarks count beside each other; the effort is not used.

    Returns:
      A `FitResult`, whose errors, weights and inliers are those of the correspondences.
    """
    n_identity = min(n_identity, model.n_identity)
    marks, slide = _landmark_problem(
        model, landmarks_px, principal_point, landmark_settings, n_identity, weight
    )
    dense = fit(model, correspondences, principal_point, settings, n_identity, focal_px=focal_px)

    def from_landmarks() -> Array:
        given = landmarks_px, principal_point, landmark_settings, n_identity, weight, None, focal_px
        return flatten(fit_landmarks(model, *given).params)

    x = jax.lax.cond(dense.status < Status.NO_POINTS, lambda: flatten(dense.params), from_landmarks)
    points = problem_of(model, correspondences, principal_point, n_identity)
    points, marks = (
        with_priors(each, x, settings, n_identity, model.expression_names)
        for each in (points, marks)
    )
    bounds = joint_bounds(x, n_identity, focal_px is not None)

    def one_round(x: Array, _) -> tuple[Array, LMResult]:
        weighed = _joined(
            in_units_of_noise(x, points, settings),
            in_units_of_noise(x, slide(x, marks), landmark_settings.fit),
        )
        result = settled(
            partial(residuals, problem=weighed),
            partial(jacobian, problem=weighed),
            x,
            settings,
            bounds,
        )
        return result.x, result

    x, results = jax.lax.scan(one_round, x, None, length=settings.view_rounds)
    return fit_result(x, points, settings, n_identity, results, fitted=_joined(points, marks))


def _joined(first: FitProblem, second: FitProblem) -> FitProblem:
    """The points of both, with the priors of the first."""
    return dataclasses.replace(
        first,
        mean_mm=jnp.concatenate([first.mean_mm, second.mean_mm]),
        basis_mm=jnp.concatenate([first.basis_mm, second.basis_mm]),
        points_px=jnp.concatenate([first.points_px, second.points_px]),
        weight=jnp.concatenate([first.weight, second.weight]),
    )


def _landmark_problem(
    model: FaceModel,
    landmarks_px: Array,
    principal_point: Array,
    settings: LandmarkSettings,
    n_identity: int,
    weight: Array | None,
) -> tuple[FitProblem, Callable[[Array, FitProblem], FitProblem]]:
    """The problem of 68 landmarks without priors yet, the jaw at its embedded points; and what
    moves that to the silhouette of a face with the unknowns x."""
    part_weight = np.ones(N_LANDMARKS, np.float32)
    part_weight[JAW], part_weight[OPENINGS] = settings.jaw_weight, settings.opening_weight
    every = jnp.asarray(part_weight) * (1.0 if weight is None else weight)
    contours, lines = surface_basis(model, model.contours, n_identity), jaw_lines(model)
    mean, basis = surface_basis(model, model.landmarks, n_identity)
    problem = unprimed(mean, basis, landmarks_px, every, principal_point)
    return problem, lambda x, problem: on_silhouette(x, problem, contours, lines)


def _camera(params: FaceParams, principal_point: Array) -> Camera:
    return Camera(params.focal_px, jnp.asarray(principal_point))
