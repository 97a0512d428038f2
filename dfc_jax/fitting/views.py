"""Fit one face, seen in several views, to their correspondences."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.fitting.fit import FitResult, fit, fit_result, joint_bounds, problem_of, with_priors
from dfc_jax.fitting.levenberg_marquardt import LMResult
from dfc_jax.fitting.linearized import ArrowEquations, ArrowJacobian
from dfc_jax.fitting.residuals import (
    N_POSE,
    FitProblem,
    flatten,
    jacobian,
    residuals,
)
from dfc_jax.fitting.rounds import in_units_of_noise, settled
from dfc_jax.fitting.settings import DEFAULT, N_IDENTITY, FitSettings
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.ops.batches import each
from dfc_jax.types import Array, Correspondences


@partial(jax.jit, static_argnames=("settings", "n_identity", "one_camera"))
def fit_views(
    model: FaceModel,
    correspondences: Correspondences,
    principal_points: Array,
    settings: FitSettings = DEFAULT,
    n_identity: int = N_IDENTITY,
    focal_px: Array | None = None,
    one_camera: bool = False,
) -> FitResult:
    """One identity, and pose and expression of each of F views: a person's photographs, or frames
    of a video.

    Every view is fitted alone (`fit`); from there all are fitted together, each weighted by its own
    noise, in `settings.view_rounds` rounds. The identity's prior counts once. Views of different
    people give a face between them: what separates them is in `FitResult.rms_px`.

    The views' focal lengths are independent, as crops of one video are of different scales. Where
    it is not known, a view determines it hardly, and the distance with it, but their ratio well.
    Frames of `one_camera`, all in its pixels, share the focal length, too.

    Args:
      model: the face model.
      correspondences: N of each view, leaves (F, N, ...); weight 0 fills up. A view without any
        sees nothing, and has a status that says so.
      principal_points: (F, 2) pixels.
      settings: weights and effort.
      n_identity: identity directions to use, as in `fit`.
      focal_px: (F,) the focal lengths, when known.
      one_camera: whether the views share an unknown focal length.

    Returns:
      A `FitResult` with leaves (F, ...); all rows of ``params.identity`` are the same, and
      `history` is that of the common rounds. Memory is ``12 N (7 + K + E)`` bytes a view for the
      views' bases, and twice as much for the Jacobians.
    """
    n_identity = min(n_identity, model.n_identity)

    def alone(
        points: Correspondences, centre: Array, focal: Array | None
    ) -> tuple[Array, FitProblem]:
        found = fit(model, points, centre, settings, n_identity, focal_px=focal)
        x = flatten(found.params)
        problem = problem_of(model, points, centre, n_identity)
        return x, with_priors(problem, x, settings, n_identity, model.expression_names)

    xs, problems = each(alone, correspondences, principal_points, focal_px)
    count = len(xs)
    sees = jnp.any(problems.weight > 0, axis=1)
    common = _common(xs.shape[1], n_identity, one_camera and focal_px is None)
    problems = dataclasses.replace(
        problems, prior_weight=_counted_once(problems.prior_weight, common, sees)
    )
    bounds = jax.vmap(
        partial(joint_bounds, n_identity=n_identity, focal_known=focal_px is not None)
    )
    lower, upper = bounds(xs)
    together = _joined(lower, common, sees), _joined(upper, common, sees)

    def one_round(x: Array, _) -> tuple[Array, LMResult]:
        xs = _separated(x, count, common)
        weighted = jax.vmap(partial(in_units_of_noise, settings=settings))(xs, problems)

        def error(x: Array) -> Array:
            return jax.vmap(residuals)(_separated(x, count, common), weighted)

        def slope(x: Array) -> ArrowJacobian:
            rows = jax.vmap(jacobian)(_separated(x, count, common), weighted)
            return ArrowJacobian(rows[..., common], rows[..., ~common])

        result = settled(error, slope, x, settings, together, form=ArrowEquations)
        return result.x, result

    start = _joined(xs, common, sees)
    x, results = jax.lax.scan(one_round, start, None, length=settings.view_rounds)
    xs = _separated(x, count, common)
    finish = partial(fit_result, settings=settings, n_identity=n_identity, results=results)
    found = jax.vmap(finish)(xs, problems)
    # A view that sees too little has the face of the others.
    identity = xs[:, N_POSE : N_POSE + n_identity]
    shared = jnp.where(jnp.all(jnp.isfinite(identity)), identity, 0.0)
    return dataclasses.replace(found, params=dataclasses.replace(found.params, identity=shared))


def _common(size: int, n_identity: int, focal: bool) -> np.ndarray:
    """Which of a view's unknowns (size,) are those of all: the identity, and the focal length."""
    place = np.arange(size)
    return ((place >= N_POSE) & (place < N_POSE + n_identity)) | (focal & (place == 0))


def _counted_once(prior_weight: Array, common: np.ndarray, sees: Array) -> Array:
    """Priors (F, n) of views, of which those of the common unknowns count once, and only where a
    view sees something, which alone says where a focal length is to be expected."""
    share = sees / jnp.maximum(jnp.sum(sees), 1)
    return jnp.where(common, prior_weight * share[:, None], prior_weight)


def _joined(xs: Array, common: np.ndarray, sees: Array) -> Array:
    """The unknowns (F, n) of views as ``[common, own of the first, ...]``; common are the means of
    the views that see something."""
    share = sees / jnp.maximum(jnp.sum(sees), 1)
    mean = jnp.sum(jnp.where(sees[:, None], share[:, None] * xs[:, common], 0.0), axis=0)
    return jnp.concatenate([mean, xs[:, ~common].ravel()])


def _separated(x: Array, count: int, common: np.ndarray) -> Array:
    """The unknowns (F, n) of each of the F = `count` views; see `_joined`."""
    n_common = int(common.sum())
    own = x[n_common:].reshape(count, -1)
    both = jnp.concatenate([jnp.tile(x[:n_common], (count, 1)), own], axis=1)
    return both[:, np.argsort(np.concatenate([np.flatnonzero(common), np.flatnonzero(~common)]))]
