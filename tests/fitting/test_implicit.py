"""Derivatives of a solution against finite differences of solving again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.fitting.implicit import implicit_minimum
from dfc_jax.fitting.kernels import Robust, geman_mcclure
from dfc_jax.fitting.levenberg_marquardt import levenberg_marquardt

TIMES = np.linspace(0.0, 4.0, 30)
OBSERVED = 3.0 * np.exp(-1.3 * TIMES) + 0.5 + 0.05 * np.random.default_rng(0).normal(size=30)
OBSERVED[7] += 2.0
START = (1.0, 0.2, 0.0)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def exponential(x, observed, decay):
    return x[0] * jnp.exp(-decay * x[1] * TIMES) + x[2] - observed


def solution(observed, decay=1.0, scale=None, **bounds):
    robust = None if scale is None else Robust(geman_mcclure, scale)
    start = jnp.array(START)
    options = {"robust": robust, **bounds}
    tight = {"ftol": 0.0, "xtol": 1e-14, "gtol": 1e-14, "max_steps": 200}
    x = levenberg_marquardt(exponential, start, observed, decay, **options, **tight).x
    return implicit_minimum(exponential, x, observed, decay, **options)


def slope(function, at, direction, step=1e-3):
    """Central differences, right to 1e-6: solutions are right to 1e-9, where rounding hides the
    rest of the way."""
    ends = [function(at + sign * step * direction) for sign in (1.0, -1.0)]
    return (np.asarray(ends[0]) - np.asarray(ends[1])) / (2.0 * step)


CASES = {
    "free": {},
    "robust": {"scale": 0.3},
    "at a bound": {"lower": jnp.array([-jnp.inf, -jnp.inf, 0.7])},
}


@pytest.mark.parametrize("case", CASES)
def test_both_modes_agree_with_finite_differences(case) -> None:
    solve = jax.jit(lambda observed: solution(observed, **CASES[case]))
    direction = np.random.default_rng(1).normal(size=30)
    expected = slope(solve, jnp.asarray(OBSERVED), direction)
    _, forward = jax.jvp(solve, (jnp.asarray(OBSERVED),), (jnp.asarray(direction),))
    reverse = jax.jacrev(solve)(jnp.asarray(OBSERVED)) @ direction
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(forward, expected, rtol=1e-4, atol=5e-6)
    np.testing.assert_allclose(reverse, expected, rtol=1e-4, atol=5e-6)


def test_the_residual_is_large_here_and_its_second_derivatives_count() -> None:
    """Gauss-Newton's matrix alone would be wrong by a part that this test sees."""
    solve = jax.jit(lambda decay: solution(jnp.asarray(OBSERVED), decay))
    expected = slope(solve, 1.0, 1.0)
    np.testing.assert_allclose(jax.jacfwd(solve)(1.0), expected, rtol=1e-4, atol=5e-6)
    direction = np.random.default_rng(1).normal(size=30)
    x = solution(jnp.asarray(OBSERVED))
    jacobian = jax.jacfwd(exponential)(x, OBSERVED, 1.0)
    gauss_newton = np.linalg.solve(jacobian.T @ jacobian, jacobian.T @ direction)
    exact = slope(jax.jit(solution), jnp.asarray(OBSERVED), direction)
    assert np.abs(gauss_newton - exact).max() > 1e-3


def test_a_variable_at_its_bound_moves_with_it_and_takes_the_others_along() -> None:
    def bounded(bound):
        lower = jnp.array([-jnp.inf, -jnp.inf, bound])
        return solution(jnp.asarray(OBSERVED), lower=lower)

    solve = jax.jit(bounded)
    found = jax.jacrev(solve)(0.7)
    assert found[2] == 1.0
    np.testing.assert_allclose(found, slope(solve, 0.7, 1.0), rtol=1e-4)


def test_the_scale_of_a_kernel_has_a_derivative() -> None:
    solve = jax.jit(lambda scale: solution(jnp.asarray(OBSERVED), scale=scale))
    found = jax.jacfwd(solve)(0.3)
    np.testing.assert_allclose(found, slope(solve, 0.3, 1.0), rtol=1e-3)
    assert np.abs(found).max() > 1e-4


def test_batches_under_vmap() -> None:
    many = jnp.asarray(np.stack([OBSERVED, 1.1 * OBSERVED]))
    one = jax.jit(jax.jacrev(solution))
    both = jax.jit(jax.vmap(jax.jacrev(solution)))(many)
    np.testing.assert_allclose(both, np.stack([one(row) for row in many]), rtol=1e-6, atol=1e-10)
