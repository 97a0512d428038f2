"""Scores against small examples worked out by hand."""

import jax.numpy as jnp
import numpy as np

from dfc_jax.evaluation import metrics


def test_flow_metrics_count_only_matchable_pixels() -> None:
    errors = jnp.array([[0.5, 1.5, 3.0, 100.0]])
    flow = jnp.stack([0.6 * errors, 0.8 * errors], axis=-1)
    truth = jnp.zeros_like(flow).at[0, 3].set(jnp.nan)
    scores = metrics.flow_metrics(flow, truth, jnp.array([[True, True, True, False]]))
    np.testing.assert_allclose(scores["epe"], 5.0 / 3.0, rtol=1e-6)
    shares = [scores[f"under_{limit}px"] for limit in (1, 2, 5)]
    np.testing.assert_allclose(shares, [1 / 3, 2 / 3, 1.0], rtol=1e-6)


def test_flow_metrics_keep_the_batch_and_survive_empty_masks() -> None:
    flow = jnp.ones((2, 3, 3, 2))
    mask = jnp.stack([jnp.ones((3, 3)), jnp.zeros((3, 3))])
    scores = metrics.flow_metrics(flow, jnp.zeros_like(flow), mask)
    np.testing.assert_allclose(scores["epe"], [np.sqrt(2.0), 0.0], rtol=1e-6)
    np.testing.assert_allclose(scores["under_2px"], [1.0, 0.0])


def test_mask_iou() -> None:
    a = jnp.array([[[1, 1, 0]], [[0, 0, 0]], [[1, 0, 0]]], bool)
    b = jnp.array([[[0, 1, 1]], [[0, 0, 0]], [[0, 0, 0]]], bool)
    np.testing.assert_allclose(metrics.mask_iou(a, b), [1 / 3, 1.0, 0.0], rtol=1e-6)


def test_nme_is_in_percent_of_the_geometric_mean_of_the_box() -> None:
    truth = jnp.zeros((2, 3, 2))
    points = truth.at[:, 0].set(jnp.array([3.0, 4.0])).at[:, 2].set(jnp.array([0.0, 4.0]))
    box = jnp.array([[9.0, 9.0, 10.0, 40.0], [0.0, 0.0, 30.0, 30.0]])
    np.testing.assert_allclose(metrics.nme_percent(points, truth, box), [15.0, 10.0], rtol=1e-6)
    visible = jnp.array([[True, True, False], [False, False, False]])
    scores = metrics.nme_percent(points, truth, box, visible)
    np.testing.assert_allclose(scores, [12.5, 0.0], rtol=1e-6)
