"""Correspondences and landmarks together know more than either."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fit import CENTRE, observe, random_params

from dfc_jax.fitting import DEFAULT, Status, fit, fit_both, fit_landmarks, project_landmarks

FACES = 8


@pytest.fixture(scope="module")
def seen(model):
    """Faces whose lower half no correspondence shows, with landmarks that err by a pixel: the true
    landmarks, the correspondences, the landmarks."""
    rng = np.random.default_rng(2)
    faces = []
    for _ in range(FACES):
        params = random_params(rng, model)
        points = observe(rng, model, params, noise_px=0.3, outliers=0.1)
        truth = project_landmarks(model, params, CENTRE)
        upper = points.points_px[:, 1] < truth[30, 1]
        points = dataclasses.replace(points, weight=jnp.where(upper, points.weight, 0.0))
        faces.append((truth, points, truth + rng.standard_normal(truth.shape)))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *faces)


def error_px(model, result, truth) -> float:
    shown = jax.lax.map(lambda params: project_landmarks(model, params, CENTRE), result.params)
    return float(jnp.mean(jnp.linalg.norm(shown - truth, axis=-1)))


@pytest.fixture(scope="module")
def both(model, seen):
    solve = partial(fit_both, model)
    return jax.lax.map(lambda one: solve(one[1], one[2], CENTRE), seen)


def test_both_are_better_than_either(model, seen, both):
    truth, points, landmarks = seen
    dense = jax.lax.map(lambda one: fit(model, one, CENTRE), points)
    sparse = jax.lax.map(lambda one: fit_landmarks(model, one, CENTRE), landmarks)
    together = error_px(model, both, truth)
    assert together < 0.9 * error_px(model, sparse, truth)
    assert together < 0.6 * error_px(model, dense, truth)
    assert np.all(both.status == Status.CONVERGED_FTOL)
    np.testing.assert_allclose(both.noise_px, 0.3, rtol=0.15)


def test_landmarks_alone_do(model, seen):
    _, points, landmarks = jax.tree.map(lambda leaf: leaf[0], seen)
    blind = dataclasses.replace(points, weight=jnp.zeros_like(points.weight))
    found = fit_both(model, blind, landmarks, CENTRE)
    alone = fit_landmarks(model, landmarks, CENTRE)
    assert found.status < Status.NO_POINTS
    assert found.n_inliers == 0
    shown, wanted = (project_landmarks(model, one.params, CENTRE) for one in (found, alone))
    # Other priors: those of correspondences.
    assert jnp.max(jnp.abs(shown - wanted)) < 3.0


def test_correspondences_alone_do(model, seen):
    _, points, landmarks = jax.tree.map(lambda leaf: leaf[0], seen)
    found = fit_both(model, points, jnp.full_like(landmarks, jnp.nan), CENTRE)
    rounds = DEFAULT.rounds + DEFAULT.view_rounds
    alone = fit(model, points, CENTRE, dataclasses.replace(DEFAULT, rounds=rounds))
    np.testing.assert_allclose(found.rms_px, alone.rms_px, rtol=1e-2)
    shown, wanted = (project_landmarks(model, one.params, CENTRE) for one in (found, alone))
    np.testing.assert_allclose(shown, wanted, atol=0.5)


def test_without_anything_there_is_no_face(model, seen):
    _, points, landmarks = jax.tree.map(lambda leaf: leaf[0], seen)
    blind = dataclasses.replace(points, weight=jnp.zeros_like(points.weight))
    found = fit_both(model, blind, jnp.full_like(landmarks, jnp.nan), CENTRE)
    assert found.status == Status.NO_POINTS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))
