"""Fit one face, seen in several views, to their correspondences."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

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


@partial(jax.jit, static_argnames=("settings", "n_identity"))
def fit_views(
    model: FaceModel,
    correspondences: Correspondences,
    principal_points: Array,
    settings: FitSettings = DEFAULT,
    n_identity: int = N_IDENTITY,
    focal_px: Array | None = None,
) -> FitResult:
    """One identity, and pose and expression of each of F views: a person's photographs, or frames
    of a video.

    Every view is fitted alone (`fit`); from there all are fitted together, each weighted by its own
    noise, in `settings.view_rounds` rounds. The identity's prior counts once. Views of different
    people give a face between them: what separates them is in `FitResult.rms_px`.

    The views' focal lengths are independent, as crops of one video are of different scales. Where
    it is not known, a view determines it hardly, and the distance with it, but their ratio well.

    Args:
      model: the face model.
      correspondences: N of each view, leaves (F, N, ...); weight 0 fills up. A view without any
        sees nothing, and has a status that says so.
      principal_points: (F, 2) pixels.
      settings: weights and effort.
      n_identity: identity directions to use, as in `fit`.
      focal_px: (F,) the focal lengths, when known.

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
    identity = slice(N_POSE, N_POSE + n_identity)
    count = len(xs)
    shared_prior = problems.prior_weight.at[:, identity].divide(count)
    problems = dataclasses.replace(problems, prior_weight=shared_prior)
    bounds = jax.vmap(
        partial(joint_bounds, n_identity=n_identity, focal_known=focal_px is not None)
    )
    lower, upper = bounds(xs)
    together = _joined(lower, identity), _joined(upper, identity)

    def one_round(x: Array, _) -> tuple[Array, LMResult]:
        xs = _separated(x, count, identity)
        weighted = jax.vmap(partial(in_units_of_noise, settings=settings))(xs, problems)

        def error(x: Array) -> Array:
            return jax.vmap(residuals)(_separated(x, count, identity), weighted)

        def slope(x: Array) -> ArrowJacobian:
            rows = jax.vmap(jacobian)(_separated(x, count, identity), weighted)
            return ArrowJacobian(rows[..., identity], _own(rows, identity))

        result = settled(error, slope, x, settings, together, form=ArrowEquations)
        return result.x, result

    x, results = jax.lax.scan(one_round, _joined(xs, identity), None, length=settings.view_rounds)
    xs = _separated(x, count, identity)
    finish = partial(fit_result, settings=settings, n_identity=n_identity, results=results)
    found = jax.vmap(finish)(xs, problems)
    # A view that sees too little has the face of the others.
    shared = jnp.where(jnp.all(jnp.isfinite(xs[:, identity])), xs[:, identity], 0.0)
    return dataclasses.replace(found, params=dataclasses.replace(found.params, identity=shared))


def _joined(xs: Array, identity: slice) -> Array:
    """The unknowns (F, 7 + K + E) of views as ``[identity (K), own of the first (7 + E), ...]``;
    the identity is the mean of the views'."""
    return jnp.concatenate([jnp.mean(xs[:, identity], axis=0), _own(xs, identity).ravel()])


def _own(values: Array, identity: slice) -> Array:
    """Of values (..., 7 + K + E), those of the unknowns that a view has for itself."""
    return jnp.concatenate([values[..., : identity.start], values[..., identity.stop :]], axis=-1)


def _separated(x: Array, count: int, identity: slice) -> Array:
    """The unknowns (F, 7 + K + E) of each of the F = `count` views; see `_joined`."""
    n_identity = identity.stop - identity.start
    own = x[n_identity:].reshape(count, -1)
    shared = jnp.broadcast_to(x[:n_identity], (count, n_identity))
    return jnp.concatenate([own[:, : identity.start], shared, own[:, identity.start :]], axis=1)
