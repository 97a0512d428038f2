"""The energy of a fit, its residuals and their derivative."""

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project, to_camera
from dfc_jax.fitting.residuals import (
    N_POSE,
    FitProblem,
    flatten,
    jacobian,
    reprojection,
    residuals,
    unflatten,
)
from dfc_jax.types import Camera

CENTRE = jnp.array([63.5, 63.5])


def small_problem(rng, n_shape=6, n=20) -> tuple[np.ndarray, FitProblem]:
    def normal(*size):
        return jnp.asarray(rng.standard_normal(size), jnp.float32)

    pose = jnp.array([6.0, 0.2, -0.4, 0.1, 0.05, -0.08, -0.5])
    problem = FitProblem(
        mean_mm=40.0 * normal(n, 3),
        basis_mm=3.0 * normal(n, 3, n_shape),
        points_px=60.0 + 20.0 * normal(n, 2),
        weight=jnp.abs(normal(n)),
        principal_point=CENTRE,
        prior_mean=normal(N_POSE + n_shape),
        prior_weight=jnp.abs(normal(N_POSE + n_shape)),
        prior_rows=normal(2, N_POSE + n_shape),
    )
    return jnp.concatenate([pose, 0.3 * normal(n_shape)]), problem


def test_jacobian_is_the_derivative_of_the_residuals():
    x, problem = small_problem(np.random.default_rng(7))
    exact = jax.jit(jax.jacfwd(residuals))(x, problem)
    np.testing.assert_allclose(jax.jit(jacobian)(x, problem), exact, rtol=1e-4, atol=1e-3)


def test_residuals_square_to_the_energy_of_eq_3():
    x, problem = small_problem(np.random.default_rng(8))
    error = reprojection(x, problem)
    energy = jnp.sum(problem.weight * jnp.sum(error**2, axis=1))
    energy += jnp.sum(problem.prior_weight * (x - problem.prior_mean) ** 2)
    energy += jnp.sum((problem.prior_rows @ x) ** 2)
    np.testing.assert_allclose(jnp.sum(residuals(x, problem) ** 2), energy, rtol=1e-5)


def test_reprojection_is_the_projection_of_the_camera_module():
    x, problem = small_problem(np.random.default_rng(9))
    params = unflatten(x, 4)
    points = problem.mean_mm + problem.basis_mm @ x[N_POSE:]
    seen = project(Camera(params.focal_px, CENTRE), to_camera(params, points))
    np.testing.assert_allclose(reprojection(x, problem), problem.points_px - seen, atol=1e-3)


def test_flatten_inverts_unflatten():
    x, _ = small_problem(np.random.default_rng(10))
    np.testing.assert_allclose(flatten(unflatten(x, 4)), x, rtol=1e-4, atol=1e-5)
