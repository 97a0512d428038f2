"""Fit the face model to 2D-3D correspondences or to 68 landmarks; batches through `jax.vmap`.

The road: an affine least-squares start, a robust fit of the pose with the mean shape, then rounds
of iteratively reweighted joint Levenberg-Marquardt steps. Before every round the noise is
estimated from the median residual, so the robust weights sharpen as the fit improves (the
annealing of Black & Rangarajan, "On the unification of line processes, outlier rejection, and
robust statistics", IJCV 19, 1996, with the Geman-McClure estimator).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.fitting.kernels import geman_mcclure
from dfc_jax.fitting.levenberg_marquardt import LMHistory, LMResult, Status, levenberg_marquardt
from dfc_jax.fitting.residuals import (
    N_POSE,
    FitProblem,
    flatten,
    jacobian,
    reprojection,
    residuals,
    unflatten,
)
from dfc_jax.morphable.linear import FaceModel, surface_basis
from dfc_jax.ops.rotations import FRONTAL, matrix_to_rotvec
from dfc_jax.types import Array, ByValue, Correspondences, FaceParams

# Identity coefficients that one photograph determines.
N_IDENTITY = 50
# Median length of a 2D Gaussian vector, in standard deviations of one component.
_RAYLEIGH_MEDIAN = math.sqrt(2.0 * math.log(2.0))
_MEDIAN_CUT = 2.2
# So many points show where a face is and about what it looks like.
_ENOUGH_POINTS = 256
# Fewer points do not determine a pose. Spread, in pixels or millimetres, that rounding gives to one
# point; breadth of a line, as a part of its length.
_FEW, _IN_ONE_PLACE, _ON_A_LINE = 4, 1e-3, 2e-3
# Barycentric coordinates beyond this are no place on the face, and their products may overflow.
_FAR = 1e3


# Several shapes move the lids, and several open the mouth. Points do not show the gaze, nor which
# muscle closed the eye: where they speak of an opening, `jawOpen` explains it first, and
# `eyeBlink`, whose weight stands beside these.
LIDS_AND_JAW = (
    ("eyeWide", 30.0),
    ("eyeSquint", 100.0),
    ("cheekSquint", 30.0),
    ("eyeLookDown", 100.0),
    ("eyeLookUp", 100.0),
    ("eyeLookIn", 100.0),
    ("eyeLookOut", 100.0),
    ("jawOpen", 1.0),
    ("mouthClose", 200.0),
    ("mouthFunnel", 100.0),
    # Without a weight of its own it takes up what the mean shape lacks, in nearly every face.
    ("cheekPuff", 60.0),
)


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Weights and effort of the fit (hashable: static under jit).

    With `noise_scaled`, the prior weights are multiplied by the estimated noise variance (px^2):
    the fit is then the maximum a posteriori estimate for coefficients of variance 1 / weight and
    independent errors, in any image size. Errors of a flow are alike from pixel to pixel, and say
    less than as many independent ones: hence larger weights than for landmarks. Without, they are
    the plain weights of eq. 3, and depend on the pixel's size and on the number of correspondences.

    Attributes:
      identity_weight: w_id, on identity coefficients in standard deviations.
      expression_weight: w_exp, on blendshape weights.
      special_weights: (name, weight) of the expression shapes that have another weight; a name
        without its side means both sides.
      focal_weight: weight on ``log(focal / prior focal)``.
      distance_mm: the prior focal length puts the face at this distance from the camera.
      start_distances_mm: distances from which the pose is looked for beside this one; the pose
        with the least noise goes on. Faces within arm's length are not found from far away.
      noise_scaled: multiply these weights by the noise variance.
      min_noise_px: least value of the estimated noise.
      outlier_scale: residual, in units of the noise, at which the weight has fallen to 1/4.
      pose_rounds: reweighting rounds of the pose alone, two steps each.
      coarse_rounds: reweighting rounds of the joint fit to one point in `coarse_stride`, two
        steps each; they cost that much less. The pose alone is fitted to these points, too.
      coarse_stride: see `coarse_rounds`.
      rounds: reweighting rounds of the joint fit to all points.
      steps: Levenberg-Marquardt steps in each of these, at most; the points' own Jacobian is made
        for the first alone, as long as the others gain what it promises.
      ftol: part of its energy that a step has to gain for another one to follow.
    """

    identity_weight: float = 2.0
    expression_weight: float = 20.0
    # Less would do for eyes that are seen; the far eye of a profile would blink for other misfits.
    special_weights: tuple[tuple[str, float], ...] = (("eyeBlink", 5.0), *LIDS_AND_JAW)
    focal_weight: float = 4.0
    distance_mm: float = 800.0
    start_distances_mm: tuple[float, ...] = (300.0,)
    noise_scaled: bool = True
    min_noise_px: float = 0.02
    outlier_scale: float = 3.5
    pose_rounds: int = 2
    coarse_rounds: int = 2
    coarse_stride: int = 4
    rounds: int = 1
    steps: int = 7
    ftol: float = 1e-4


DEFAULT = FitSettings()

# As printed in the paper; the units of its coefficients are not given.
PAPER = FitSettings(
    identity_weight=2.5e-5, expression_weight=1000.0, special_weights=(), noise_scaled=False
)

# For landmarks clicked by people on faces of about 100 pixels: right to a pixel or two, none is an
# outlier. Taken for more exact than that, they are explained by a camera at arm's length and by
# brows so deep that they hide the lids.
LANDMARKS = FitSettings(
    identity_weight=1.0,
    expression_weight=5.0,
    special_weights=(("eyeBlink", 0.3), *LIDS_AND_JAW),
    focal_weight=10.0,
    distance_mm=1200.0,
    start_distances_mm=(),
    min_noise_px=1.5,
    outlier_scale=20.0,
    rounds=5,
    steps=2,
)


@struct.dataclass(eq=False)
class FitResult(ByValue):
    """A fitted face; nothing in it is NaN, whatever was given.

    Attributes:
      params: the estimate; the frontal mean face where that would not be finite.
      status: () int32, the `Status` of the last round; MAX_STEPS is usual, rounds are short.
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
      initial: start here (with `n_identity` coefficients) instead of from scratch.
      focal_px: the focal length, when known; estimated otherwise.

    A dozen well-spread points or fewer give a face near the mean, never a failure; see
    `FitResult.n_inliers` and `FitResult.rms_px`.
    """
    n_identity = min(n_identity, model.n_identity)
    # Cleaned before the bases are made of them: there are a hundred times as many numbers then.
    inside = jnp.all(jnp.abs(correspondences.surface.barycentric) <= _FAR, axis=-1)
    surface = dataclasses.replace(
        correspondences.surface,
        barycentric=jnp.where(inside[:, None], correspondences.surface.barycentric, 0.0),
    )
    mean, basis = surface_basis(model, surface, n_identity)
    weight = jnp.where(inside, correspondences.weight, 0.0)
    problem = unprimed(mean, basis, correspondences.points_px, weight, principal_point)
    thin = _thinned(problem, settings)
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
    x, results = refine(
        x, problem, settings, lower, upper, settings.rounds, settings.steps, refresh=settings.steps
    )
    return fit_result(x, problem, settings, n_identity, results)


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
    )


def start(problem: FitProblem, settings: FitSettings, focal_px: Array | None) -> Array:
    """Pose of the mean shape, zero coefficients: x (7 + C,)."""
    n_shape = problem.basis_mm.shape[-1]
    rigid = dataclasses.replace(
        problem,
        basis_mm=problem.basis_mm[..., :0],
        prior_mean=jnp.zeros(N_POSE),
        prior_weight=jnp.zeros(N_POSE),
    )
    poses = _affine_poses(rigid, settings, focal_px)

    def refined(pose: Array) -> tuple[Array, Array]:
        # The focal length is held: it would absorb errors of the shape, which is still the mean.
        pose, _ = refine(pose, rigid, settings, rounds=settings.pose_rounds, fixed=1)
        return pose, _reweight(reprojection(pose, rigid), rigid.weight, settings)[1]

    poses, noise = jax.vmap(refined)(poses)
    return jnp.concatenate([poses[jnp.argmin(noise)], jnp.zeros(n_shape)])


def _affine_poses(problem: FitProblem, settings: FitSettings, focal_px: Array | None) -> Array:
    """Scaled-orthographic pose from the affine camera that maps the points best, for each distance
    at which a fit may start: (D, 7).

    Robust linear least squares for the 2x4 camera, then the nearest scaled rotation (DeMenthon &
    Davis, "Model-based object pose in 25 lines of code", IJCV 15, 1995, without its iteration).
    """
    used = jnp.where(problem.weight > 0, problem.weight, 0.0)
    centre = used @ problem.mean_mm / jnp.maximum(jnp.sum(used), 1e-12)
    points = jnp.concatenate(
        [problem.mean_mm - centre, jnp.ones_like(problem.mean_mm[:, :1])], axis=1
    )
    target = problem.points_px - problem.principal_point

    def solve(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        weighted = points * state[0][:, None]
        gram = weighted.T @ points
        # Keeps points in a plane, or too few of them, solvable.
        ridge = 1e-6 * jnp.trace(gram) * jnp.eye(4) + 1e-12 * jnp.eye(4)
        affine = jnp.linalg.solve(gram + ridge, weighted.T @ target)
        return _reweight(target - points @ affine, used, settings)[0], affine

    _, affine = jax.lax.fori_loop(0, 3, solve, (used, jnp.zeros((4, 2))))
    left, singular, right = jnp.linalg.svd(affine[:3].T, full_matrices=False)
    scale = jnp.maximum(jnp.mean(singular), 1e-6)
    axes = left @ right
    rotation = jnp.stack([axes[0], axes[1], jnp.cross(axes[0], axes[1])])
    offset = affine[3] - scale * axes @ centre

    def pose(focal: Array) -> Array:
        return flatten(
            FaceParams(
                focal_px=focal,
                rotation=matrix_to_rotvec(rotation @ jnp.asarray(FRONTAL)),
                translation_mm=jnp.concatenate([offset, focal[None]]) / scale,
                identity=jnp.zeros(0),
                expression=jnp.zeros(0),
            )
        )

    if focal_px is not None:
        return pose(jnp.asarray(focal_px))[None]
    return jax.vmap(pose)(scale * jnp.array([settings.distance_mm, *settings.start_distances_mm]))


def expression_weights(names: Sequence[str], settings: FitSettings) -> np.ndarray:
    """Prior weights (E,) of the expression shapes with these names."""
    special = dict(settings.special_weights)
    bases = [name.removesuffix("Left").removesuffix("Right") for name in names]
    return np.array(
        [
            special.get(name, special.get(base, settings.expression_weight))
            for name, base in zip(names, bases, strict=True)
        ]
    )


def with_priors(
    problem: FitProblem, x: Array, settings: FitSettings, n_identity: int, names: Sequence[str]
) -> FitProblem:
    """Priors around zero coefficients and the focal length that goes with the usual distance;
    `names` are those of the expression shapes, as far as they have any."""
    expression = np.full(x.size - N_POSE - n_identity, settings.expression_weight)
    expression[: len(names)] = expression_weights(names, settings)
    focal = jnp.log(settings.distance_mm) + x[6]
    weights = jnp.concatenate(
        [
            jnp.zeros(N_POSE).at[0].set(settings.focal_weight),
            jnp.full(n_identity, settings.identity_weight),
            jnp.asarray(expression, jnp.float32),
        ]
    )
    return dataclasses.replace(
        problem, prior_mean=jnp.zeros_like(x).at[0].set(focal), prior_weight=weights
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


def _thinned(problem: FitProblem, settings: FitSettings) -> FitProblem:
    """Every `coarse_stride`-th point, or more where they would be few, with the weights of all."""
    stride = max(1, min(settings.coarse_stride, len(problem.weight) // _ENOUGH_POINTS))
    return dataclasses.replace(
        problem,
        mean_mm=problem.mean_mm[::stride],
        basis_mm=problem.basis_mm[::stride],
        points_px=problem.points_px[::stride],
        weight=stride * problem.weight[::stride],
    )


def _noise(length: Array, used: Array, settings: FitSettings) -> Array:
    """Standard deviation of one component, from the lengths (N,) of errors with outliers.

    The median of all lengths is 1.3 times too large with 30 % of outliers; the median of those
    within a few times of it is right to some percent, with outliers and without.
    """
    ordered = jnp.sort(jnp.where(used, length, jnp.inf))
    median = ordered[jnp.maximum(jnp.sum(used) - 1, 0) // 2]
    inside = jnp.sum(ordered < _MEDIAN_CUT * median)
    noise = ordered[jnp.maximum(inside - 1, 0) // 2] / _RAYLEIGH_MEDIAN
    return jnp.where(jnp.isfinite(noise), jnp.maximum(noise, settings.min_noise_px), 1.0)


def _reweight(error_px: Array, weight: Array, settings: FitSettings) -> tuple[Array, Array]:
    """Geman-McClure weights (N,) of errors (N, 2), times the given ones, and the noise."""
    length, used = jnp.linalg.norm(error_px, axis=-1), weight > 0
    length = jnp.where(jnp.isnan(length), jnp.inf, length)
    noise = _noise(length, used, settings)
    _, robust = geman_mcclure((length / (settings.outlier_scale * noise)) ** 2)
    return jnp.where(used, weight * robust, 0.0), noise


def refine(
    x: Array,
    problem: FitProblem,
    settings: FitSettings,
    lower: Array | None = None,
    upper: Array | None = None,
    rounds: int = 1,
    steps: int = 2,
    fixed: int = 0,
    refresh: int = 1,
    extra: Callable[[Array], Array] | None = None,
) -> tuple[Array, LMResult]:
    """`rounds` of reweighting and Levenberg-Marquardt; results stacked over the rounds.

    The first `fixed` unknowns stay as they are, the others within the bounds, if there are any.
    `refresh` steps may share a matrix, as in `levenberg_marquardt`.
    `extra` maps the unknowns to more residuals (M,), in standard deviations.
    """
    more = (lambda x: x[:0]) if extra is None else extra

    def one_round(x: Array, _) -> tuple[Array, LMResult]:
        def whole(free: Array) -> Array:
            return jnp.concatenate([x[:fixed], free])

        weight, noise = _reweight(reprojection(x, problem), problem.weight, settings)
        prior = problem.prior_weight * (noise**2 if settings.noise_scaled else 1.0)

        def error(free: Array, problem: FitProblem) -> Array:
            x = whole(free)
            return jnp.concatenate([residuals(x, problem), noise * more(x)])

        def slope(free: Array, problem: FitProblem) -> Array:
            x = whole(free)
            rows = jnp.concatenate([jacobian(x, problem), noise * jax.jacfwd(more)(x)])
            return rows[:, fixed:]

        result = levenberg_marquardt(
            error,
            x[fixed:],
            dataclasses.replace(problem, weight=weight, prior_weight=prior),
            max_steps=steps,
            jacobian_fn=slope,
            lower=lower,
            upper=upper,
            ftol=settings.ftol,
            xtol=0.0,
            gtol=0.0,
            refresh=refresh,
        )
        return whole(result.x), result

    return jax.lax.scan(one_round, x, None, length=rounds)


def _lacking(problem: FitProblem) -> Array:
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
    x: Array, problem: FitProblem, settings: FitSettings, n_identity: int, results: LMResult
) -> FitResult:
    """The unknowns `x` as parameters, with errors and status; zeros where they are not finite, the
    mean shape where the points do not determine one."""
    lacking = _lacking(problem)
    x = jnp.where((lacking == Status.MAX_STEPS) | (jnp.arange(x.size) < N_POSE), x, 0.0)
    leaves = jax.tree.leaves(unflatten(x, n_identity))
    sound = jnp.all(jnp.isfinite(jnp.concatenate([leaf.ravel() for leaf in leaves])))
    x = jnp.where(sound, x, jnp.zeros_like(x).at[0].set(jnp.log(settings.distance_mm)))
    status = jnp.where(sound, results.status[-1], Status.NON_FINITE)
    status = jnp.where(lacking == Status.MAX_STEPS, status, lacking)
    error = reprojection(x, problem)
    weight, noise = _reweight(error, problem.weight, settings)
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
