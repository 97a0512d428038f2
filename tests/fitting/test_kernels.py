"""Kernels are what their formulas say, and the solver minimises what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from dfc_jax.fitting.kernels import Robust, cauchy, geman_mcclure, huber
from dfc_jax.fitting.levenberg_marquardt import levenberg_marquardt
from dfc_jax.fitting.status import Status

KERNELS = {"huber": huber, "cauchy": cauchy, "geman_mcclure": geman_mcclure}
CONVERGED = (Status.CONVERGED_FTOL, Status.CONVERGED_XTOL, Status.CONVERGED_GTOL)
SQUARED = np.array([0.0, 1e-4, 0.3, 1.0, 1.7, 40.0])


@pytest.mark.parametrize("name", KERNELS)
def test_the_weight_is_the_derivative_of_the_cost(name) -> None:
    with jax.enable_x64(True):
        cost, weight = KERNELS[name](jnp.asarray(SQUARED))
        slopes = jax.vmap(jax.grad(lambda s: KERNELS[name](s)[0]))(jnp.asarray(SQUARED))
        cost, weight, slopes = map(np.asarray, (cost, weight, slopes))
    np.testing.assert_allclose(weight, slopes, rtol=1e-12)
    assert cost[0] == 0.0 and weight[0] == 1.0
    assert np.all(np.diff(cost) > 0) and np.all(np.diff(weight) <= 0)


def test_the_costs_are_those_of_the_literature() -> None:
    expected = {
        "huber": np.where(SQUARED <= 1, SQUARED, 2 * np.sqrt(SQUARED) - 1),
        "cauchy": np.log(1 + SQUARED),
        "geman_mcclure": SQUARED / (1 + SQUARED),
    }
    for name, costs in expected.items():
        np.testing.assert_allclose(KERNELS[name](SQUARED)[0], costs, rtol=1e-5, atol=1e-7)


def test_an_infinite_residual_costs_no_more_than_an_outlier() -> None:
    cost, weight = geman_mcclure(jnp.array(jnp.inf))
    assert cost == 1.0 and weight == 0.0


def line(x, at, seen):
    return x[0] + x[1] * at - seen


@pytest.fixture(scope="module")
def scattered() -> tuple[np.ndarray, np.ndarray]:
    """A line with noise of 0.05, a fifth of the points far away."""
    rng = np.random.default_rng(0)
    at = np.linspace(-1.0, 1.0, 60)
    seen = 0.7 + 2.0 * at + 0.05 * rng.normal(size=60)
    seen[::5] += rng.uniform(2.0, 6.0, 12)
    return at, seen


@pytest.mark.parametrize("name", ["huber", "cauchy"])
def test_the_solver_agrees_with_scipy(name, scattered) -> None:
    with jax.enable_x64(True):
        result = levenberg_marquardt(
            line,
            jnp.zeros(2),
            *map(jnp.asarray, scattered),
            robust=Robust(KERNELS[name], 0.2),
            ftol=1e-12,
            max_steps=200,
        )
    reference = optimize.least_squares(
        line, np.zeros(2), args=scattered, loss=name, f_scale=0.2, ftol=1e-14, xtol=1e-14
    )
    assert int(result.status) in CONVERGED
    np.testing.assert_allclose(result.cost, reference.cost, rtol=1e-8)
    np.testing.assert_allclose(result.x, reference.x, atol=1e-4)


def test_outliers_do_not_move_the_answer(scattered) -> None:
    at, seen = (jnp.asarray(values, jnp.float32) for values in scattered)
    plain = levenberg_marquardt(line, jnp.zeros(2), at, seen)
    kept = levenberg_marquardt(
        line, plain.x, at, seen, robust=Robust(geman_mcclure, 0.2), max_steps=100
    )
    assert abs(plain.x[0] - 0.7) > 0.5
    np.testing.assert_allclose(kept.x, [0.7, 2.0], atol=0.05)
    assert np.all(np.diff(kept.history.cost) <= 0.0)


def test_blocks_share_a_weight_and_the_rest_stays_squares() -> None:
    residual = jnp.array([3.0, 4.0, 0.1, 0.0, 7.0])
    cost, weight = Robust(cauchy, 2.0, block=2, count=4)(residual)
    expected = 2.0**2 * (np.log(1 + 25 / 4) + np.log(1 + 0.01 / 4)) + 49.0
    np.testing.assert_allclose(2.0 * cost, expected, rtol=1e-6)
    shared = 1.0 / (1.0 + 25 / 4)
    np.testing.assert_allclose(weight, [shared, shared, 1 / 1.0025, 1 / 1.0025, 1.0], rtol=1e-6)


def test_each_block_may_have_its_own_scale() -> None:
    both = Robust(huber, jnp.array([1.0, 10.0]))(jnp.array([5.0, 5.0]))[1]
    np.testing.assert_allclose(both, [0.2, 1.0], rtol=1e-6)
