"""The solver against closed-form minima and SciPy, and what it reports when it cannot solve.

Tables of problems are in `test_problem_tables`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices import printed_on_devices
from more_garbow_hillstrom import powell_singular, rosenbrock
from scipy import optimize

from dfc_jax.fitting.levenberg_marquardt import levenberg_marquardt
from dfc_jax.fitting.linearized import ArrowEquations, ArrowJacobian, NormalEquations, StackedQR
from dfc_jax.fitting.status import Status

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


@pytest.mark.parametrize("slots", [1, 3, 50])
def test_in_slots_every_problem_has_the_answer_that_it_has_alone(slots, observed):
    rng = np.random.default_rng(0)
    starts = jnp.asarray(rng.uniform(0.1, 3.0, (11, 3)), jnp.float32)
    noise = rng.normal(scale=0.05, size=(11, TIMES.size))
    many = jnp.asarray(observed + noise, jnp.float32).at[4].set(jnp.nan)
    options = {"lower": jnp.array([0.0, 0.0, -1.0]), "max_steps": 60}
    together = solve(exponential, starts, many, slots=slots, **options)
    for row, (start, seen) in enumerate(zip(starts, many, strict=True)):
        alone = solve(exponential, start, seen, **options)
        assert together.status[row] == alone.status and together.n_steps[row] == alone.n_steps
        np.testing.assert_allclose(together.x[row], alone.x, rtol=1e-4)
        np.testing.assert_allclose(together.history.cost[row], alone.history.cost, rtol=1e-4)
    assert together.status[4] == Status.NON_FINITE and len(set(together.n_steps.tolist())) > 3


def test_in_slots_a_problem_that_has_stopped_makes_room():
    """One slow problem and many that start at their minimum: rounds are counted by a callback."""
    rounds = []

    def counted(x):
        jax.debug.callback(lambda _: rounds.append(1), x[0])
        return rosenbrock(x)

    starts = jnp.array([[-1.2, 1.0]] + [[1.0, 1.0]] * 20)
    result = levenberg_marquardt(counted, starts, max_steps=60, slots=2)
    jax.effects_barrier()
    slowest, all_steps = int(result.n_steps.max()), int(result.n_steps.sum())
    assert all_steps == slowest and slowest > 10
    # Two at a time. One after the other would be all problems; under vmap the slowest for all.
    assert slowest <= len(rounds) / 2 / 2 <= slowest + 25, (len(rounds), slowest)


@pytest.mark.parametrize("form", [NormalEquations, StackedQR])
def test_both_forms_solve_what_is_bounded(form, observed):
    bounds = ([0.0, 0.0, 0.7], [2.0, 5.0, 1.0])
    start = np.array([1.0, 2.0, 0.8])
    result = solve(
        exponential,
        jnp.asarray(start, jnp.float32),
        observed,
        form=form,
        lower=jnp.array(bounds[0]),
        upper=jnp.array(bounds[1]),
    )
    np.testing.assert_allclose(result.x, scipy_solution(observed, start, bounds).x, rtol=5e-3)
    assert int(result.status) in CONVERGED


def test_frames_that_share_unknowns_are_solved_as_one_large_problem():
    """Curves with their own height and offset, and one decay for all."""
    rng = np.random.default_rng(0)
    heights, times = rng.uniform(1.0, 3.0, 5), jnp.asarray(TIMES, jnp.float32)
    seen = heights[:, None] * np.exp(-1.3 * TIMES) + rng.normal(scale=0.02, size=(5, TIMES.size))

    def residual(x, seen):
        own = x[1:].reshape(5, 2)
        return own[:, :1] * jnp.exp(-x[0] * times) + own[:, 1:] - seen

    def arrow(x, seen):
        own = x[1:].reshape(5, 2)
        decay = jnp.exp(-x[0] * times)
        by_own = jnp.stack([decay, jnp.ones_like(decay)], axis=-1)
        return ArrowJacobian(
            shared=(-times * own[:, :1] * decay)[..., None],
            own=jnp.broadcast_to(by_own, (5, *by_own.shape)),
        )

    start, seen = jnp.concatenate([jnp.array([0.2]), jnp.ones(10)]), jnp.asarray(seen, jnp.float32)
    options = {"lower": jnp.zeros(11).at[2].set(0.05)}
    together = solve(residual, start, seen, jacobian_fn=arrow, form=ArrowEquations, **options)
    plain = solve(lambda x, seen: residual(x, seen).ravel(), start, seen, **options)
    np.testing.assert_allclose(together.x, plain.x, atol=2e-4)
    np.testing.assert_allclose(together.cost, plain.cost, rtol=1e-4)
    assert float(together.x[0]) == pytest.approx(1.3, abs=0.08) and together.x[2] >= 0.05
    assert int(together.status) in CONVERGED


def test_the_norm_of_the_gradient_is_that_at_the_answer(observed):
    start = jnp.array([1.0, 0.2, 0.0])
    for options in ({"max_steps": 3}, {"lower": jnp.array([-jnp.inf, -jnp.inf, 0.7])}):
        result = solve(exponential, start, observed, **options)
        slope = jax.grad(lambda x: 0.5 * jnp.sum(exponential(x, observed) ** 2))(result.x)
        free = slope[:2] if "lower" in options else slope
        np.testing.assert_allclose(
            result.gradient_norm, jnp.linalg.norm(free), rtol=1e-3, atol=1e-4
        )


ON_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from dfc_jax.fitting.levenberg_marquardt import levenberg_marquardt
from dfc_jax.training import make_mesh

def rosenbrock(x):
    return jnp.array([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])

split = NamedSharding(make_mesh(), PartitionSpec("data"))
starts = jax.random.uniform(jax.random.key(0), (8, 2), minval=-2.0, maxval=2.0)
batch = jax.jit(jax.vmap(lambda x: levenberg_marquardt(rosenbrock, x, upper=1.5).x))
there = batch(jax.device_put(starts, split))
apart = len({shard.device for shard in there.addressable_shards})
print(jax.device_count(), apart, np.abs(there - batch(starts)).max() < 1e-3)
"""


def test_problems_on_several_devices_are_solved_where_they_are():
    assert printed_on_devices(4, ON_DEVICES) == "4 4 True"


def counted_jacobians(observed, start, **options):
    """The result for the curve, and how many Jacobians were made."""
    made = []

    def jacobian(x, observed):
        jax.debug.callback(lambda _: made.append(1), x[0])
        return jax.jacfwd(exponential)(x, observed)

    found = solve(exponential, start, observed, jacobian_fn=jacobian, max_steps=60, **options)
    jax.block_until_ready(found.x)
    jax.effects_barrier()
    return found, len(made)


def test_steps_that_share_a_matrix_end_at_the_same_minimum(observed):
    start = jnp.array([2.5, 1.0, 0.3])
    plain, every = counted_jacobians(observed, start)
    shared, few = counted_jacobians(observed, start, refresh=3)
    np.testing.assert_allclose(shared.x, plain.x, rtol=2e-3)
    np.testing.assert_allclose(shared.cost, plain.cost, rtol=1e-4)
    assert int(shared.status) in CONVERGED
    # One more is for the norm of the gradient at the end.
    assert few - 1 < int(shared.n_steps) and every >= int(plain.n_steps)


def test_a_matrix_that_predicts_badly_is_made_anew_at_once():
    """Rosenbrock's valley turns: kept for long, the matrix would lead nowhere."""
    result = solve(rosenbrock, jnp.array([-1.2, 1.0]), refresh=1000, max_steps=100)
    np.testing.assert_allclose(result.x, [1.0, 1.0], atol=1e-3)
    assert np.all(np.diff(result.history.cost) <= 0.0)


def test_a_rejected_step_asks_for_no_new_jacobian(observed):
    start = jnp.array([-1.0, 3.0, 2.0])
    result, made = counted_jacobians(observed, start, initial_damping=1e-9)
    # One is made at the start, one for the gradient at the end, others after a step that was taken.
    accepted = np.asarray(result.history.gain_ratio)[1 : int(result.n_steps)] > 0.0
    assert not accepted.all() and made == 2 + accepted.sum()


def test_stacked_qr_cannot_share_a_matrix(observed):
    with pytest.raises(ValueError, match="use refresh=1"):
        solve(exponential, jnp.ones(3), observed, form=StackedQR, refresh=2)


def test_parallel_columns_are_no_proof_of_convergence():
    """In float32 the way to the minimum, along the difference of the unknowns, is hidden."""
    at = np.linspace(0.0, 1.0, 20)

    def residual(x):
        return x[0] + x[1] * (1.0 + 1e-8 * at) - at

    result = solve(residual, jnp.array([3.0, 1.0]), max_steps=100)
    assert int(result.status) == Status.STALLED
