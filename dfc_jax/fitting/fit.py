"""Fit the face model to 2D-3D correspondences; batches through `jax.vmap`.

The road: an affine least-squares start, a robust fit of the pose with the mean shape, then rounds
of iteratively reweighted joint Levenberg-Marquardt steps, first to a part of the points.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.fitting.levenberg_marquardt import LMHistory, LMResult
from dfc_jax.fitting.residuals import N_POSE, FitProblem, flatten, reprojection, unflatten
from dfc_jax.fitting.rounds import refine, reweight
from dfc_jax.fitting.settings import (
    DEFAULT,
    N_IDENTITY,
    FitSettings,
    exclusive_rows,
    expression_means,
    expression_weights,
)
from dfc_jax.fitting.starts import start, thinned
from dfc_jax.fitting.status import Status
from dfc_jax.morphable.linear import FaceModel, surface_basis
from dfc_jax.types import Array, ByValue, Correspondences, FaceParams

# Fewer points do not determine a pose. Spread, in pixels or millimetres, that rounding gives to one
# point; breadth of a line, as a part of its length.
_FEW, _IN_ONE_PLACE, _ON_A_LINE = 4, 1e-3, 2e-3
# Barycentric coordinates beyond this are no place on the face, and their products may overflow.
_FAR = 1e3


@struct.dataclass(eq=False)
class FitResult(ByValue):
    """A fitted face; nothing in it is NaN, whatever was given.

    Attributes:
      params: the estimate; the frontal mean face where that would not be finite.
      status: () int32, the `Status` of the last round; CONVERGED_FTOL is usual;
        fits to landmarks alone, whose rounds are short, say MAX_STEPS.
        Where points determine no face, the code says what they lack.
      history: of every joint round, (rounds, steps + 1); costs of different rounds have different
        weights and cannot be compared.
      rms_px: () root mean square distance between observed and projected inliers, pixels;
        infinite without inliers.
      weight: (N,) the last robust weights times the given ones.
      noise_px: () robust estimate of the noise, one component's standard deviation.
      n_inliers: () int32, points with a residual below `outlier_scale` times the noise.
    """

    params: FaceParams
    status: Array
    history: LMHistory
    rms_px: Array
    weight: Array
    noise_px: Array
    n_inliers: Array


@partial(jax.jit, static_argnames=("settings", "n_identity"))
def fit(
    model: FaceModel,
    correspondences: Correspondences,
    principal_point: Array,
    settings: FitSettings = DEFAULT,
    n_identity: int = N_IDENTITY,
    initial: FaceParams | None = None,
    focal_px: Array | None = None,
    identity: Array | None = None,
) -> FitResult:
    """Pose, shape and expression of one face from N correspondences (eq. 3 of the paper).

    Args:
      model: the face model.
      correspondences: points in pixels and the surface points they show. Those with weight 0
        are unused, whatever else they hold, and so are those where anything is not finite.
      principal_point: (2,) pixel of the optical axis, for crops and photographs alike.
      settings: weights and effort.
      n_identity: identity directions to use, as far as the model has them, the rest stays 0;
        all expressions are used.
      initial: start here (with `n_identity` coefficients) instead of from scratch; without any,
        where the identity is known.
      focal_px: the focal length, when known; estimated otherwise.
      identity: (`n_identity`,) the identity's coefficients, when known.

    A dozen well-spread points or fewer give a face near the mean, never a failure; see
    `FitResult.n_inliers` and `FitResult.rms_px`.
    """
    n_identity = min(n_identity, model.n_identity)
    problem = problem_of(model, correspondences, principal_point, n_identity)
    if identity is not None:
        problem, n_identity = of_person(problem, identity), 0
    thin = thinned(problem, settings)
    x = start(thin, settings, focal_px) if initial is None else flatten(initial)
    if focal_px is not None:
        x = x.at[0].set(jnp.log(focal_px))
    thin, problem = (
        with_priors(each, x, settings, n_identity, model.expression_names)
        for each in (thin, problem)
    )
    lower, upper = joint_bounds(x, n_identity, focal_px is not None)
    # One matrix, the better part of a step's price, serves all steps of a round.
    x, _ = refine(x, thin, settings, lower, upper, settings.coarse_rounds, refresh=2)
    effort = settings.rounds, settings.steps
    x, results = refine(
        x, problem, settings, lower, upper, *effort, refresh=settings.steps, ftol=settings.ftol
    )
    found = fit_result(x, problem, settings, n_identity, results)
    if identity is None:
        return found
    # As for the other coefficients, the mean shape where the points determine no face.
    shown = jnp.where(found.status < Status.NON_FINITE, identity, 0.0)
    return dataclasses.replace(found, params=dataclasses.replace(found.params, identity=shown))


def problem_of(
    model: FaceModel, correspondences: Correspondences, principal_point: Array, n_identity: int
) -> FitProblem:
    """The problem of some correspondences, without priors yet."""
    # Cleaned before the bases are made of them: there are a hundred times as many numbers then.
    inside = jnp.all(jnp.abs(correspondences.surface.barycentric) <= _FAR, axis=-1)
    surface = dataclasses.replace(
        correspondences.surface,
        barycentric=jnp.where(inside[:, None], correspondences.surface.barycentric, 0.0),
    )
    mean, basis = surface_basis(model, surface, n_identity)
    weight = jnp.where(inside, correspondences.weight, 0.0)
    return unprimed(mean, basis, correspondences.points_px, weight, principal_point)


def of_person(problem: FitProblem, identity: Array) -> FitProblem:
    """The problem of a person whose identity (K,) is known: the expressions alone are left."""
    shape = problem.mean_mm + problem.basis_mm[..., : len(identity)] @ identity
    rest = problem.basis_mm[..., len(identity) :]
    return unprimed(shape, rest, problem.points_px, problem.weight, problem.principal_point)


def unprimed(
    mean_mm: Array, basis_mm: Array, points_px: Array, weight: Array, principal_point: Array
) -> FitProblem:
    """A problem without priors yet; see `with_priors`. Points that are unused, or not finite, have
    weight 0 and lie at 0; their places on the model are finite in any case."""
    n = N_POSE + basis_mm.shape[-1]
    centre = jnp.asarray(principal_point)
    used = (weight > 0) & jnp.isfinite(weight) & jnp.all(jnp.isfinite(centre))
    used &= jnp.all(jnp.isfinite(points_px), axis=1)
    return FitProblem(
        mean_mm=mean_mm,
        basis_mm=basis_mm,
        points_px=jnp.where(used[:, None], points_px, 0.0),
        weight=jnp.where(used, weight, 0.0),
        principal_point=jnp.where(jnp.isfinite(centre), centre, 0.0),
        prior_mean=jnp.zeros(n),
        prior_weight=jnp.zeros(n),
        prior_rows=jnp.zeros((0, n)),
    )


def with_priors(
    problem: FitProblem, x: Array, settings: FitSettings, n_identity: int, names: Sequence[str]
) -> FitProblem:
    """Priors around zero coefficients, or below zero for expressions that are to be sparse, of
    expressions that exclude each other, and of the focal length that goes with the usual distance;
    `names` are those of the expression shapes, as far as they have any."""
    expression = np.full(x.size - N_POSE - n_identity, settings.expression_weight)
    expression[: len(names)] = expression_weights(names, settings)
    mean = np.zeros(x.size, np.float32)
    first = N_POSE + n_identity
    mean[first : first + len(names)] = expression_means(names, settings)
    focal = jnp.log(settings.distance_mm) + x[6]
    weights = jnp.concatenate(
        [
            jnp.zeros(N_POSE).at[0].set(settings.focal_weight),
            jnp.full(n_identity, settings.identity_weight),
            jnp.asarray(expression, jnp.float32),
        ]
    )
    prior_mean = jnp.asarray(mean, x.dtype).at[0].set(focal)
    pairs = exclusive_rows(names, settings)
    rows = np.zeros((len(pairs), x.size), np.float32)
    rows[:, first : first + len(names)] = pairs
    return dataclasses.replace(
        problem, prior_mean=prior_mean, prior_weight=weights, prior_rows=jnp.asarray(rows, x.dtype)
    )


def joint_bounds(x: Array, n_identity: int, focal_known: bool) -> tuple[Array, Array]:
    """Lowest and highest values of the unknowns `x`: weights of expressions are in [0, 1], a known
    focal length stays."""
    expression = jnp.arange(x.size) >= N_POSE + n_identity
    lower = jnp.where(expression, 0.0, -jnp.inf)
    upper = jnp.where(expression, 1.0, jnp.inf)
    if focal_known:
        lower, upper = lower.at[0].set(x[0]), upper.at[0].set(x[0])
    return lower, upper


def lacking(problem: FitProblem) -> Array:
    """What the points lack to determine a face, a `Status`; MAX_STEPS for nothing."""
    used = problem.weight > 0
    seen, there = (_spread(points, used) for points in (problem.points_px, problem.mean_mm))
    widest = jnp.minimum(seen[0], there[0])
    flattest = jnp.minimum(seen[1], there[1])
    status = jnp.where(flattest < _ON_A_LINE, Status.COLLINEAR, Status.MAX_STEPS)
    status = jnp.where(widest < _IN_ONE_PLACE, Status.ONE_POINT, status)
    status = jnp.where(jnp.sum(used) < _FEW, Status.FEW_POINTS, status)
    return jnp.where(jnp.any(used), status, Status.NO_POINTS)


def _spread(points: Array, used: Array) -> tuple[Array, Array]:
    """How far points (N, D) lie from their mean, (); and, as a part of that, from their line."""
    count = jnp.maximum(jnp.sum(used), 1)
    centred = jnp.where(used[:, None], points, 0.0)
    centred = jnp.where(used[:, None], points - jnp.sum(centred, axis=0) / count, 0.0)
    gram = centred.T @ centred / count
    total = jnp.trace(gram)
    # The sum of the products of two eigenvalues each, over the square of the sum of all.
    pairs = 0.5 * (total**2 - jnp.sum(gram**2))
    safe = jnp.where(total > 0, total, 1.0)
    return jnp.sqrt(total), jnp.sqrt(jnp.maximum(pairs, 0.0)) / safe


def fit_result(
    x: Array,
    problem: FitProblem,
    settings: FitSettings,
    n_identity: int,
    results: LMResult,
    fitted: FitProblem | None = None,
) -> FitResult:
    """The unknowns `x` as parameters, with errors and status; zeros where they are not finite, the
    mean shape where the points do not determine one. These are those of `fitted`, if there were
    more than the problem's."""
    missing = lacking(problem if fitted is None else fitted)
    x = jnp.where((missing == Status.MAX_STEPS) | (jnp.arange(x.size) < N_POSE), x, 0.0)
    leaves = jax.tree.leaves(unflatten(x, n_identity))
    sound = jnp.all(jnp.isfinite(jnp.concatenate([leaf.ravel() for leaf in leaves])))
    x = jnp.where(sound, x, jnp.zeros_like(x).at[0].set(jnp.log(settings.distance_mm)))
    status = jnp.where(sound, results.status[-1], Status.NON_FINITE)
    status = jnp.where(missing == Status.MAX_STEPS, status, missing)
    error = reprojection(x, problem)
    weight, noise = reweight(error, problem.weight, settings)
    squared = jnp.sum(error**2, axis=-1)
    inlier = (problem.weight > 0) & (squared < (settings.outlier_scale * noise) ** 2)
    n_inliers = jnp.sum(inlier)
    total = jnp.sum(jnp.where(inlier, squared, 0.0))
    return FitResult(
        params=unflatten(x, n_identity),
        status=status.astype(jnp.int32),
        history=results.history,
        rms_px=jnp.where(n_inliers > 0, jnp.sqrt(total / jnp.maximum(n_inliers, 1)), jnp.inf),
        weight=weight,
        noise_px=noise,
        n_inliers=n_inliers.astype(jnp.int32),
    )
