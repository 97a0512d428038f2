"""The solver against closed-form minima and SciPy, and what it reports when it cannot solve.

Tables of problems are in `test_problem_tables`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from more_garbow_hillstrom import powell_singular, rosenbrock
from scipy import optimize

from dfc_jax.fitting.levenberg_marquardt import Status, levenberg_marquardt

TIMES = np.linspace(0.0, 4.0, 30)
CONVERGED = (Status.CONVERGED_FTOL, Status.CONVERGED_XTOL, Status.CONVERGED_GTOL)


def solve(residual_fn, x0, *args, **options):
    """Under jit, so that the small operations around the loop are not compiled one by one."""
    return jax.jit(lambda x, *rest: levenberg_marquardt(residual_fn, x, *rest, **options))(
        x0, *args
    )


def exponential(x, observed):
    return x[0] * jnp.exp(-x[1] * jnp.asarray(TIMES, jnp.float32)) + x[2] - observed


@pytest.fixture(scope="module")
def observed():
    noise = 0.05 * np.random.default_rng(0).standard_normal(TIMES.size)
    return (3.0 * np.exp(-1.3 * TIMES) + 0.5 + noise).astype(np.float32)


def scipy_solution(observed, start, bounds=(-np.inf, np.inf)):
    def residual(x):
        return x[0] * np.exp(-x[1] * TIMES) + x[2] - observed

    return optimize.least_squares(residual, start, bounds=bounds, method="trf", xtol=1e-12)


def test_rosenbrock_reaches_its_minimum():
    result = solve(rosenbrock, jnp.array([-1.2, 1.0]), max_steps=60)
    np.testing.assert_allclose(result.x, [1.0, 1.0], atol=1e-4)
    assert int(result.status) in CONVERGED


def test_powell_singular_problem_reaches_zero():
    result = solve(powell_singular, jnp.array([3.0, -1.0, 0.0, 1.0]), max_steps=60)
    np.testing.assert_allclose(result.x, np.zeros(4), atol=2e-2)
    assert float(result.cost) < 1e-6


def test_curve_fit_agrees_with_scipy(observed):
    start = np.array([1.0, 0.2, 0.0])
    result = solve(exponential, jnp.asarray(start, jnp.float32), observed)
    reference = scipy_solution(observed, start)
    np.testing.assert_allclose(result.x, reference.x, rtol=2e-3)
    np.testing.assert_allclose(result.cost, reference.cost, rtol=1e-4)
    assert int(result.status) in CONVERGED


@pytest.mark.parametrize(
    ("lower", "upper"),
    [([0.0, 0.0, 0.7], [2.0, 5.0, 1.0]), ([-np.inf, 1.5, -np.inf], [np.inf, np.inf, np.inf])],
)
def test_bounded_curve_fit_agrees_with_scipy_trf(observed, lower, upper):
    start = np.array([1.0, 2.0, 0.8])
    result = solve(
        exponential,
        jnp.asarray(start, jnp.float32),
        observed,
        lower=jnp.array(lower),
        upper=jnp.array(upper),
    )
    reference = scipy_solution(observed, start, (lower, upper))
    np.testing.assert_allclose(result.x, reference.x, rtol=5e-3)
    np.testing.assert_allclose(result.cost, reference.cost, rtol=1e-4)
    assert np.all(np.asarray(result.x) >= np.float32(lower))
    assert np.all(np.asarray(result.x) <= np.float32(upper))


def test_many_bounds_are_solved_in_few_steps():
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((60, 20))
    target = rng.standard_normal(60)
    result = solve(
        lambda x: matrix @ x - target, jnp.full(20, 0.5), lower=0.0, upper=1.0, max_steps=10
    )
    reference = optimize.lsq_linear(matrix, target, (0.0, 1.0))
    np.testing.assert_allclose(result.x, reference.x, atol=1e-4)


def test_equal_bounds_fix_a_variable(observed):
    result = solve(
        exponential,
        jnp.array([1.0, 0.2, 0.0]),
        observed,
        lower=jnp.array([-jnp.inf, 0.9, -jnp.inf]),
        upper=jnp.array([jnp.inf, 0.9, jnp.inf]),
    )
    assert float(result.x[1]) == np.float32(0.9)
    assert int(result.status) in CONVERGED


def test_units_of_a_parameter_do_not_change_the_path(observed):
    units = jnp.array([1e-3, 1.0, 1e3])
    start = jnp.array([1.0, 0.2, 0.0])
    plain = solve(exponential, start, observed)
    scaled = solve(lambda x, y: exponential(x * units, y), start / units, observed)
    np.testing.assert_allclose(scaled.x * units, plain.x, rtol=1e-3)
    np.testing.assert_allclose(scaled.history.cost[:5], plain.history.cost[:5], rtol=1e-3)


def test_cost_never_increases_and_falls_where_the_gain_is_positive():
    history = solve(rosenbrock, jnp.array([-1.2, 1.0]), max_steps=40).history
    change = np.diff(history.cost)
    gain, steps = np.asarray(history.gain_ratio)[1:], np.flatnonzero(change)[-1] + 1
    assert np.all(change <= 0.0)
    assert np.all(gain[:steps][change[:steps] < 0] > 0)
    assert np.all(gain[:steps][change[:steps] == 0] <= 0), "a rejected step has no gain"
    assert np.any(gain[:steps] <= 0), "this start is known to need rejections"


def test_history_is_padded_with_its_last_entry():
    result = solve(rosenbrock, jnp.array([-1.2, 1.0]), max_steps=60)
    last = int(result.n_steps)
    assert last < 60
    assert np.all(np.asarray(result.history.cost)[last:] == float(result.cost))
    assert np.all(np.asarray(result.history.damping)[last:] == result.history.damping[last])


def test_non_finite_start_is_reported_and_kept():
    result = solve(lambda x: jnp.log(x), jnp.array([-1.0]))
    assert int(result.status) == Status.NON_FINITE
    assert float(result.x[0]) == -1.0 and int(result.n_steps) == 0


def test_non_finite_jacobian_is_reported():
    result = solve(lambda x: 1.0 + jnp.sqrt(x), jnp.array([0.0]))
    assert int(result.status) == Status.NON_FINITE
    assert float(result.x[0]) == 0.0


def test_non_finite_trials_are_rejected_and_damped():
    # The first Gauss-Newton step from 8 lands at a negative x, where the residual is NaN.
    result = solve(lambda x: jnp.log(x / 2.0), jnp.array([8.0]), max_steps=40)
    np.testing.assert_allclose(result.x, [2.0], rtol=1e-4)
    assert float(result.history.damping[1]) > float(result.history.damping[0])
    assert np.all(np.isfinite(result.history.cost))


def test_status_tells_the_tolerance_that_was_met():
    start = jnp.array([-1.2, 1.0])

    def status(**options):
        defaults = {"ftol": 0.0, "xtol": 0.0, "gtol": 0.0, "max_steps": 80}
        residual = options.pop("residual", rosenbrock)
        return int(solve(residual, start, **(defaults | options)).status)

    def offset(x):
        return jnp.concatenate([rosenbrock(x), jnp.ones(1)])

    assert status(max_steps=3) == Status.MAX_STEPS
    assert status(residual=offset, ftol=1e-4) == Status.CONVERGED_FTOL
    assert status(xtol=1e-2) == Status.CONVERGED_XTOL
    assert status(residual=offset, gtol=1e-3) == Status.CONVERGED_GTOL


def test_a_step_made_short_by_damping_is_not_convergence():
    def status(**options):
        result = solve(
            lambda x: x - 1.0, jnp.array([3.0]), initial_damping=1e4, max_steps=1, **options
        )
        return int(result.status)

    assert status(ftol=0.0, gtol=0.0, xtol=1e-3) == Status.MAX_STEPS
    assert status(ftol=1e-3, gtol=0.0, xtol=0.0) == Status.MAX_STEPS


def test_a_column_that_was_longer_before_does_not_make_a_gradient_small():
    """The cosine for gtol takes the columns' present norms, not the largest ones so far."""

    def residual(x):
        return jnp.stack([jnp.exp(x[0]), 0.1 + 1e-3 * x[0]])

    result = solve(residual, jnp.array([12.0]), gtol=1e-3, ftol=0.0, xtol=0.0, max_steps=80)
    slope = jax.grad(lambda x: 0.5 * jnp.sum(residual(x) ** 2))(result.x)
    column = jnp.linalg.norm(jax.jacfwd(residual)(result.x))
    cosine = abs(float(slope[0])) / float(column * jnp.sqrt(2.0 * result.cost))
    assert cosine <= 1e-3 or int(result.status) != Status.CONVERGED_GTOL


def test_a_start_that_is_not_finite_costs_infinitely_much_and_nothing_is_nan():
    result = solve(lambda x: jnp.log(x), jnp.array([-1.0]))
    assert np.isposinf(result.cost) and np.all(np.isposinf(result.history.cost))
    assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(result))


def test_a_wrong_jacobian_stalls():
    result = solve(
        lambda x: x + 1.0,
        jnp.array([3.0]),
        jacobian_fn=lambda x: -jnp.ones((1, 1)),
        max_steps=100,
    )
    assert int(result.status) == Status.STALLED
    assert float(result.x[0]) == 3.0


def test_a_parameter_without_effect_stays():
    result = solve(lambda x: x[:1] - 2.0, jnp.array([0.0, 5.0]))
    np.testing.assert_allclose(result.x, [2.0, 5.0], atol=1e-5)


def test_vmap_equals_a_loop_and_jit_equals_eager():
    starts = jnp.array([[-1.2, 1.0], [0.0, 0.0], [2.0, -1.0], [1.0, 1.0]])

    def bounded(x):
        return levenberg_marquardt(rosenbrock, x, lower=-1.5, upper=1.8, max_steps=30)

    batched = jax.jit(jax.vmap(bounded))(starts)
    for row, start in enumerate(starts):
        single = bounded(start)
        np.testing.assert_allclose(batched.x[row], single.x, atol=1e-3)
        assert int(batched.status[row]) in CONVERGED and int(single.status) in CONVERGED
    assert int(batched.n_steps[3]) < int(batched.n_steps[0]), "rows stop on their own"
