"""Every form of the linear model solves the same damped problem, with unknowns held or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.fitting.linearized import ArrowEquations, ArrowJacobian, NormalEquations, StackedQR
from dfc_jax.types import ByValue

FRAMES, ROWS, SHARED, OWN = 3, 9, 4, 2
N = SHARED + FRAMES * OWN


def arrow() -> tuple[ArrowJacobian, np.ndarray]:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(FRAMES, ROWS, SHARED))
    own = rng.normal(size=(FRAMES, ROWS, OWN))
    own[1, :, 1] = 0.0  # without effect
    return ArrowJacobian(jnp.asarray(shared), jnp.asarray(own)), rng.normal(size=(FRAMES, ROWS))


def dense(jacobian: ArrowJacobian) -> np.ndarray:
    rows = np.zeros((FRAMES, ROWS, N))
    rows[..., :SHARED] = jacobian.shared
    for frame in range(FRAMES):
        start = SHARED + frame * OWN
        rows[frame, :, start : start + OWN] = jacobian.own[frame]
    return rows.reshape(-1, N)


def forms() -> dict[str, ByValue]:
    jacobian, residual = arrow()
    matrix, flat = jnp.asarray(dense(jacobian)), jnp.asarray(residual.ravel())
    return {
        "normal": NormalEquations.of(matrix, flat),
        "qr": StackedQR.of(matrix, flat),
        "arrow": ArrowEquations.of(jacobian, jnp.asarray(residual)),
    }


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", ["normal", "qr", "arrow"])
def test_gradient_diagonal_and_curvature_are_those_of_the_jacobian(name) -> None:
    (jacobian, residual), linear = arrow(), forms()[name]
    matrix, step = dense(jacobian), np.random.default_rng(1).normal(size=N)
    np.testing.assert_allclose(linear.gradient, matrix.T @ residual.ravel(), rtol=1e-12)
    np.testing.assert_allclose(linear.diagonal, np.sum(matrix**2, axis=0), rtol=1e-12)
    np.testing.assert_allclose(linear.curvature(jnp.asarray(step)), np.sum((matrix @ step) ** 2))


@pytest.mark.parametrize("held", [(), (1, 5), (0, 1, 2, 3), tuple(range(N))])
@pytest.mark.parametrize("name", ["normal", "qr", "arrow"])
def test_the_damped_step_is_the_best_with_what_is_held_in_place(name, held) -> None:
    (jacobian, residual), linear = arrow(), forms()[name]
    rng = np.random.default_rng(2)
    damping = rng.uniform(0.1, 2.0, N)
    fixed = np.isin(np.arange(N), held)
    step = np.where(fixed, rng.normal(size=N), 0.0)
    rows = np.concatenate([dense(jacobian), np.diag(np.sqrt(damping))])
    right = -(np.concatenate([residual.ravel(), np.zeros(N)]) + rows @ step)
    expected = step.copy()
    expected[~fixed] = np.linalg.lstsq(rows[:, ~fixed], right, rcond=None)[0]
    found, _ = linear.solve(jnp.asarray(damping), jnp.asarray(fixed), jnp.asarray(step))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["normal", "qr", "arrow"])
def test_without_damping_what_has_no_effect_does_not_move(name) -> None:
    found, _ = forms()[name].solve(jnp.zeros(N), jnp.zeros(N, bool), jnp.zeros(N))
    assert np.all(np.isfinite(found)) and found[SHARED + OWN + 1] == 0.0


def test_qr_keeps_what_normal_equations_lose() -> None:
    # Two columns that differ by 1e-4: beyond the root of float32's rounding when squared.
    rng = np.random.default_rng(3)
    first = rng.normal(size=(50, 1))
    matrix = np.concatenate([first, first + 1e-4 * rng.normal(size=(50, 1))], axis=1)
    residual = -matrix @ np.array([2.0, -1.0])
    single = jnp.asarray(matrix, jnp.float32), jnp.asarray(residual, jnp.float32)
    nothing = jnp.zeros(2, jnp.float32), jnp.zeros(2, bool), jnp.zeros(2, jnp.float32)
    errors = {}
    for form in (NormalEquations, StackedQR):
        step = np.nan_to_num(np.asarray(form.of(*single).solve(*nothing)[0]), nan=np.inf)
        errors[form] = np.abs(step - [2.0, -1.0]).max()
    assert errors[StackedQR] < 0.02 < 0.1 < errors[NormalEquations]


@pytest.mark.parametrize("form", [NormalEquations, StackedQR])
def test_the_least_pivot_is_that_of_the_column_that_others_explain_best(form) -> None:
    matrix = jnp.eye(5)[:, :3]
    nothing = jnp.zeros(3), jnp.zeros(3, bool), jnp.zeros(3)
    assert form.of(matrix, jnp.ones(5)).solve(*nothing)[1] == pytest.approx(1.0)
    # The last is the first but for a right angle of 0.1.
    leaning = matrix.at[0, 2].set(10.0)
    assert form.of(leaning, jnp.ones(5)).solve(*nothing)[1] == pytest.approx(1 / 101, rel=1e-6)


def test_the_least_pivot_of_an_arrow_is_in_a_frame_or_between_frames() -> None:
    nothing = jnp.zeros(2), jnp.zeros(2, bool), jnp.zeros(2)
    for slope in (0.0, 2.0):
        shared, own = jnp.array([[[1.0], [slope]]]), jnp.array([[[0.0], [1.0]]])
        linear = ArrowEquations.of(ArrowJacobian(shared, own), jnp.ones((1, 2)))
        assert linear.solve(*nothing)[1] == pytest.approx(1.0 / (1.0 + slope**2))
