"""The energy of the fit (eq. 3 of the paper) as a residual vector, with its Jacobian.

    E = sum_i w_i ||p_i - Pi_f(R S_qi + t)||^2 + w_id ||alpha_id||^2 + w_exp ||alpha_exp||^2
        + sum_k c_k alpha_exp,k + w_f (log f - log f_0)^2

with alpha_exp >= 0, so that the costs c are an l1 norm: `settings.expression_means`.
The unknowns are one vector ``x = [pose (7), identity (K), expression (E)]``. At 128 pixels focal
length and distance are nearly ambiguous while the image scale ``f / t_z`` is not, so the pose is

    [log f, rotation vector (3), u / 100, v / 100, log(f / t_z)]

with (u, v) the model origin's projection in pixels from the principal point: hence
``t = (u, v, f) t_z / f``. Only ``log f`` is then weakly determined, and its prior is diagonal.
"""

import jax
import jax.numpy as jnp
from flax import struct

from dfc_jax.camera import project, project_jacobian, to_camera
from dfc_jax.ops.rotations import head_rotation
from dfc_jax.types import Array, ByValue, Camera, FaceParams

N_POSE = 7
_OFFSET_UNIT_PX = 100.0


@struct.dataclass(eq=False)
class FitProblem(ByValue):
    """One face to fit: N observed points and C = K + E shape coefficients.

    Attributes:
      mean_mm: (N, 3) the points on the mean shape, model space.
      basis_mm: (N, 3, C) their displacement by one unit of each coefficient.
      points_px: (N, 2) where they are seen.
      weight: (N,) non-negative, 0 for unused entries.
      principal_point: (2,) pixels.
      prior_mean: (7 + C,) and
      prior_weight: (7 + C,) the terms ``prior_weight * (x - prior_mean)^2``.
      prior_rows: (P, 7 + C) and the terms ``(prior_rows x)^2``.
    """

    mean_mm: Array
    basis_mm: Array
    points_px: Array
    weight: Array
    principal_point: Array
    prior_mean: Array
    prior_weight: Array
    prior_rows: Array


def flatten(params: FaceParams) -> Array:
    """`FaceParams` of one face to the vector x (7 + K + E,)."""
    focal, t = params.focal_px, params.translation_mm
    scale = focal / t[2]
    offset = scale * t[:2] / _OFFSET_UNIT_PX
    pose = jnp.concatenate([jnp.log(focal)[None], params.rotation, offset, jnp.log(scale)[None]])
    return jnp.concatenate([pose, params.identity, params.expression])


def unflatten(x: Array, n_identity: int) -> FaceParams:
    """Inverse of `flatten`."""
    focal, scale = jnp.exp(x[0]), jnp.exp(x[6])
    offset = _OFFSET_UNIT_PX * x[4:6]
    return FaceParams(
        focal_px=focal,
        rotation=x[1:4],
        translation_mm=jnp.concatenate([offset, focal[None]]) / scale,
        identity=x[N_POSE : N_POSE + n_identity],
        expression=x[N_POSE + n_identity :],
    )


def _model_points(x: Array, problem: FitProblem) -> Array:
    if problem.basis_mm.shape[-1] == 0:
        return problem.mean_mm
    return problem.mean_mm + problem.basis_mm @ x[N_POSE:]


def _project_pose(pose: Array, points_mm: Array, principal_point: Array) -> Array:
    params = unflatten(pose, 0)
    return project(Camera(params.focal_px, principal_point), to_camera(params, points_mm))


def reprojection(x: Array, problem: FitProblem) -> Array:
    """Observed minus projected points (N, 2), pixels, unweighted."""
    points = _model_points(x, problem)
    return problem.points_px - _project_pose(x[:N_POSE], points, problem.principal_point)


def residuals(x: Array, problem: FitProblem) -> Array:
    """The vector (2 N + 7 + C + P,) whose squared norm is E."""
    data = jnp.sqrt(problem.weight)[:, None] * reprojection(x, problem)
    prior = jnp.sqrt(problem.prior_weight) * (x - problem.prior_mean)
    return jnp.concatenate([data.reshape(-1), prior, problem.prior_rows @ x])


def jacobian(x: Array, problem: FitProblem) -> Array:
    """Derivative of `residuals`: (2 N + 7 + C + P, 7 + C).

    Forward differentiation goes over the camera alone, which is small: focal length, rotation and
    translation by the pose. The rest is linear or closed: with ``X = R p + t`` and the projection
    ``Pi_f(X)`` the columns of the pose are ``dPi/dX (dR p + dt) + dPi/df df``, those of the shape
    ``dPi/dX R basis``.
    """
    points = _model_points(x, problem)
    params = unflatten(x[:N_POSE], 0)
    camera = Camera(params.focal_px, problem.principal_point)
    in_camera = to_camera(params, points)
    by_point = project_jacobian(camera, in_camera)
    focal, turned, moved = jax.jacfwd(_camera_of)(x[:N_POSE])
    by_focal = (project(camera, in_camera) - problem.principal_point) / params.focal_px
    by_pose = by_point @ (jnp.einsum("ijp,nj->nip", turned, points) + moved)
    by_pose += by_focal[..., None] * focal
    by_shape = (by_point @ head_rotation(params.rotation)) @ problem.basis_mm
    root = -jnp.sqrt(problem.weight)[:, None, None]
    data = root * jnp.concatenate([by_pose, by_shape], axis=-1)
    prior = jnp.diag(jnp.sqrt(problem.prior_weight))
    return jnp.concatenate([data.reshape(-1, x.size), prior, problem.prior_rows])


def _camera_of(pose: Array) -> tuple[Array, Array, Array]:
    """Focal length (), rotation (3, 3) and translation (3,) of a pose (7,)."""
    params = unflatten(pose, 0)
    return params.focal_px, head_rotation(params.rotation), params.translation_mm
