"""What a fit says of its errors is what they are."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fit import CENTRE, observe, random_params

from dfc_jax.fitting import fit, project_landmarks, uncertainty
from dfc_jax.fitting.uncertainty import UNEXPLAINED
from dfc_jax.ops.rotations import head_rotation

FACES, NOISE_PX = 40, 1.0


@pytest.fixture(scope="module")
def fitted(model):
    """Faces of the model seen with independent noise: the truth, the correspondences, the fits."""
    rng = np.random.default_rng(5)
    params = [random_params(rng, model) for _ in range(FACES)]
    seen = [observe(rng, model, one, noise_px=NOISE_PX) for one in params]
    params, seen = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *each) for each in (params, seen)
    )
    solve = jax.jit(lambda seen: jax.lax.map(lambda one: fit(model, one, CENTRE).params, seen))
    return params, seen, solve(seen)


@pytest.fixture(scope="module")
def sure(model, fitted):
    """For errors that are independent and of nothing but noise."""
    _, seen, found = fitted
    of_noise = partial(uncertainty, model, correlated=1.0, unexplained=0.0)
    return jax.lax.map(lambda one: of_noise(one[0], CENTRE, one[1]), (seen, found))


def spread(errors, covariance) -> float:
    """Root mean square of errors (n, k) in their standard deviations, all directions alike."""
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), np.asarray(errors)[..., None])
    return float(np.sqrt(np.mean(whitened**2)))


def test_landmarks_err_as_much_as_they_say(model, fitted, sure):
    truth, _, found = fitted
    pixels = jax.jit(jax.vmap(lambda params: project_landmarks(model, params, CENTRE)))
    inner = slice(17, 68)
    errors = (pixels(found) - pixels(truth))[:, inner]
    # A fit with robust weights errs by some percent more than least squares would.
    assert 0.8 < spread(errors, sure.landmarks_px[:, inner]) < 1.3


def test_pose_errs_as_much_as_it_says(fitted, sure):
    truth, _, found = fitted
    turn = np.asarray(
        head_rotation(found.rotation) @ head_rotation(truth.rotation).transpose(0, 2, 1)
    )
    about = np.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], axis=-1)
    assert 0.7 < spread(about, sure.rotation) < 1.3
    # The distance, whose errors are of the logarithm.
    apart = np.log(found.focal_px / truth.focal_px) / sure.log_focal
    assert 0.6 < np.sqrt(np.mean(apart**2)) < 1.4
    relative = np.sqrt(sure.translation_mm[:, 2, 2]) / found.translation_mm[:, 2]
    np.testing.assert_allclose(relative, sure.log_focal, rtol=0.3)


def test_identity_errs_as_much_as_it_says_and_never_more_than_the_model(fitted, sure):
    truth, _, found = fitted
    times = (found.identity - truth.identity) / sure.identity
    assert 0.7 < np.sqrt(np.mean(times**2)) < 1.3
    assert np.all(sure.identity < 1.01)
    assert np.all(sure.expression > 0.0)


def test_correlated_errors_and_the_unexplained_make_it_less_sure(model, fitted, sure):
    _, seen, found = fitted
    one = jax.tree.map(lambda leaf: leaf[0], (seen, found))
    less = uncertainty(model, one[0], CENTRE, one[1], correlated=4.0, unexplained=0.0)
    ratio = jnp.trace(less.landmarks_px, axis1=1, axis2=2) / jnp.trace(
        sure.landmarks_px[0], axis1=1, axis2=2
    )
    # Four times but for the prior, which alone says how far some lids are open.
    assert 1.0 < ratio.min() < ratio.max() < 4.01
    assert ratio[27:36].min() > 1.5
    unexplained = jnp.zeros(68).at[30].set(0.05)
    more = uncertainty(model, one[0], CENTRE, one[1], correlated=4.0, unexplained=unexplained)
    added = more.landmarks_px - less.landmarks_px
    size = jnp.sqrt(jnp.prod(jnp.ptp(project_landmarks(model, one[1], CENTRE), axis=0)))
    np.testing.assert_allclose(added[30], (0.05 * size) ** 2 * np.eye(2), rtol=1e-3, atol=1e-3)
    assert jnp.abs(added.at[30].set(0.0)).max() == 0.0
    usual = uncertainty(model, one[0], CENTRE, one[1])
    assert np.all(jnp.linalg.eigvalsh(usual.landmarks_px) > (size * UNEXPLAINED[:, None]) ** 2)


def test_without_points_nothing_is_known(model, fitted):
    _, seen, found = fitted
    one = jax.tree.map(lambda leaf: leaf[0], (seen, found))
    blind = dataclasses.replace(one[0], weight=jnp.zeros_like(one[0].weight))
    for leaf in jax.tree.leaves(uncertainty(model, blind, CENTRE, one[1])):
        assert np.all(np.isposinf(leaf))


def test_from_another_camera_it_is_the_same(sure):
    one = jax.tree.map(lambda leaf: np.asarray(leaf[0]), sure)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    other = one.seen_from(quarter, 3.0 * quarter[:2, :2])
    np.testing.assert_allclose(other.rotation[0, 0], one.rotation[1, 1], rtol=1e-5)
    np.testing.assert_allclose(other.translation_mm[0, 2], -one.translation_mm[1, 2], rtol=1e-5)
    np.testing.assert_allclose(
        other.landmarks_px[:, 0, 1], -9.0 * one.landmarks_px[:, 0, 1], rtol=1e-5
    )
    np.testing.assert_array_equal(other.identity, one.identity)
