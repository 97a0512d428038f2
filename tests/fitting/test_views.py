"""Several views of a person: one identity, closer to the truth than that of any view alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fit import CENTRE, N_IDENTITY, observe, random_params

from dfc_jax.fitting import DEFAULT, Status, fit, fit_views
from dfc_jax.morphable.linear import shape

VIEWS = 5
fit_all = jax.jit(jax.vmap(fit, (None, 0, None)))


@pytest.fixture(scope="module")
def person(model):
    """Five noisy views of one identity, with outliers, and its parameters in each."""
    rng = np.random.default_rng(3)
    identity = jnp.asarray(rng.standard_normal(N_IDENTITY), jnp.float32)
    params = [
        dataclasses.replace(random_params(rng, model), identity=identity) for _ in range(VIEWS)
    ]
    seen = [observe(rng, model, one, noise_px=1.0, outliers=0.1) for one in params]
    return params, jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)


@pytest.fixture(scope="module")
def together(model, person):
    return fit_views(model, person[1], jnp.tile(CENTRE, (VIEWS, 1)))


def shape_error_mm(model, identity, truth) -> float:
    """Mean distance of the vertices of two faces without expression."""
    still = jnp.zeros(model.n_expression)
    apart = shape(model, identity, still) - shape(model, truth, still)
    return float(jnp.mean(jnp.linalg.norm(apart, axis=-1)))


def test_identity_of_all_views_beats_those_of_each(model, person, together):
    params, seen = person
    truth = params[0].identity
    alone = fit_all(model, seen, CENTRE).params.identity
    errors = [shape_error_mm(model, one, truth) for one in alone]
    assert np.ptp(together.params.identity, axis=0).max() == 0.0
    assert shape_error_mm(model, together.params.identity[0], truth) < 0.75 * np.mean(errors)
    assert np.all(together.status == Status.CONVERGED_FTOL)


def test_each_view_has_its_own_pose_and_expression(person, together):
    params, _ = person
    wanted = jnp.stack([one.rotation for one in params])
    np.testing.assert_allclose(together.params.rotation, wanted, atol=0.04)
    np.testing.assert_allclose(together.noise_px, 1.0, rtol=0.1)


def test_view_without_points_has_the_face_of_the_others(model, person, together):
    _, seen = person
    blind = dataclasses.replace(seen, weight=seen.weight.at[2].set(0.0))
    found = fit_views(model, blind, jnp.tile(CENTRE, (VIEWS, 1)))
    assert found.status[2] == Status.NO_POINTS
    assert np.all(np.delete(found.status, 2) == Status.CONVERGED_FTOL)
    np.testing.assert_array_equal(found.params.identity[2], found.params.identity[0])
    apart = shape_error_mm(model, found.params.identity[0], together.params.identity[0])
    assert apart < 1.0


def test_single_view_is_fitted_as_alone_with_as_many_rounds(model, person):
    one = jax.tree.map(lambda leaf: leaf[0], person[1])
    rounds = DEFAULT.rounds + DEFAULT.view_rounds
    alone = fit(model, one, CENTRE, dataclasses.replace(DEFAULT, rounds=rounds))
    found = fit_views(model, jax.tree.map(lambda leaf: leaf[None], one), CENTRE[None])
    assert shape_error_mm(model, found.params.identity[0], alone.params.identity) < 0.05
    np.testing.assert_allclose(found.params.expression[0], alone.params.expression, atol=0.01)
    np.testing.assert_allclose(found.rms_px[0], alone.rms_px, rtol=1e-3)


def test_known_focal_lengths_stay(model, person):
    params, seen = person
    focal = jnp.stack([one.focal_px for one in params])
    found = fit_views(model, seen, jnp.tile(CENTRE, (VIEWS, 1)), focal_px=focal)
    np.testing.assert_allclose(found.params.focal_px, focal, rtol=1e-5)
    distance = jnp.stack([one.translation_mm[2] for one in params])
    np.testing.assert_allclose(found.params.translation_mm[:, 2], distance, rtol=0.05)


def test_frames_of_one_camera_share_an_unknown_focal_length(model, person):
    params, seen = person
    # As one camera sees the person, from different distances.
    focal = 700.0
    params = [dataclasses.replace(one, focal_px=jnp.float32(focal)) for one in params]
    rng = np.random.default_rng(5)
    seen = [observe(rng, model, one, noise_px=0.5) for one in params]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)
    centres = jnp.tile(CENTRE, (VIEWS, 1))
    found = fit_views(model, stacked, centres, one_camera=True)
    assert np.ptp(found.params.focal_px) == 0.0
    apart = fit_views(model, stacked, centres)
    assert np.ptp(apart.params.focal_px) > 1.0

    def errors(result):
        return np.abs(np.log(np.asarray(result.params.focal_px) / focal))

    assert errors(found)[0] < min(errors(apart).max(), 0.05)
    # Views that see nothing fill up, and count for nothing: neither does what they expect.
    blind = dataclasses.replace(stacked, weight=stacked.weight.at[3:].set(0.0))
    few = jax.tree.map(lambda leaf: leaf[:3], stacked)
    filled = fit_views(model, blind, centres, one_camera=True)
    alone = fit_views(model, few, centres[:3], one_camera=True)
    np.testing.assert_allclose(filled.params.focal_px, alone.params.focal_px[0], rtol=2e-3)
    assert shape_error_mm(model, filled.params.identity[0], alone.params.identity[0]) < 0.05
