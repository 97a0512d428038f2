"""Where a fit starts: the pose of the mean shape."""

import dataclasses

import jax
import jax.numpy as jnp

from dfc_jax.fitting.residuals import N_POSE, FitProblem, flatten, reprojection
from dfc_jax.fitting.rounds import refine, reweight
from dfc_jax.fitting.settings import FitSettings
from dfc_jax.ops.rotations import FRONTAL, matrix_to_rotvec
from dfc_jax.types import Array, FaceParams

# So many points show where a face is and about what it looks like.
_ENOUGH_POINTS = 256


def thinned(problem: FitProblem, settings: FitSettings) -> FitProblem:
    """Every `coarse_stride`-th point, or more where they would be few, with the weights of all."""
    stride = max(1, min(settings.coarse_stride, len(problem.weight) // _ENOUGH_POINTS))
    return dataclasses.replace(
        problem,
        mean_mm=problem.mean_mm[::stride],
        basis_mm=problem.basis_mm[::stride],
        points_px=problem.points_px[::stride],
        weight=stride * problem.weight[::stride],
    )


def start(problem: FitProblem, settings: FitSettings, focal_px: Array | None) -> Array:
    """Pose of the mean shape, zero coefficients: x (7 + C,)."""
    n_shape = problem.basis_mm.shape[-1]
    rigid = dataclasses.replace(
        problem,
        basis_mm=problem.basis_mm[..., :0],
        prior_mean=jnp.zeros(N_POSE),
        prior_weight=jnp.zeros(N_POSE),
        prior_rows=jnp.zeros((0, N_POSE)),
    )
    poses = _affine_poses(rigid, settings, focal_px)

    def refined(pose: Array) -> tuple[Array, Array]:
        # The focal length is held: it would absorb errors of the shape, which is still the mean.
        pose, _ = refine(pose, rigid, settings, rounds=settings.pose_rounds, fixed=1)
        return pose, reweight(reprojection(pose, rigid), rigid.weight, settings)[1]

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
        return reweight(target - points @ affine, used, settings)[0], affine

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
