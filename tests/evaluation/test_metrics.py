"""Scores against small examples worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.evaluation import metrics
from dfc_jax.landmarks68 import INNER


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


@pytest.mark.parametrize("array", [np.array, jnp.array], ids=["numpy", "jax"])
def test_nme_is_in_percent_of_the_geometric_mean_of_the_true_points_box(array) -> None:
    truth = array([[[0.0, 0.0], [10.0, 0.0], [0.0, 40.0]], [[5.0, 5.0], [35.0, 5.0], [5.0, 35.0]]])
    points = truth + array([[3.0, 4.0], [0.0, 0.0], [0.0, 4.0]])
    scores = metrics.nme_percent(points, truth)
    assert isinstance(scores, jax.Array) == (array is jnp.array)
    np.testing.assert_allclose(scores, [15.0, 10.0], rtol=1e-6)
    np.testing.assert_allclose(metrics.nme_percent(points, truth, slice(1, 3)), [10.0, 20 / 3])
    counted = array([[True, True, False], [False, False, False]])
    np.testing.assert_allclose(metrics.nme_percent(points, truth, counted), [12.5, 0.0], rtol=1e-6)
    missing = points.at[1, 1].set(jnp.nan) if array is jnp.array else points.copy()
    if array is np.array:
        missing[1, 1] = np.nan
    scores = metrics.nme_percent(missing, truth)
    assert np.isnan(scores[1]) and np.isfinite(scores[0])
    assert np.isfinite(metrics.nme_percent(missing, truth, array([True, False, True]))).all()


@pytest.mark.parametrize("array", [np.array, jnp.array], ids=["numpy", "jax"])
def test_points_without_a_truth_neither_count_nor_widen_the_box(array) -> None:
    truth = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 40.0]])
    points = truth + [[3.0, 4.0], [0.0, 0.0], [0.0, 4.0]]
    more = np.concatenate([truth, np.full((2, 2), np.nan)])
    found = np.concatenate([points, [[500.0, 500.0], [np.nan, 0.0]]])
    given = array(np.stack([found] * 2)), array(np.stack([more, np.full((5, 2), np.nan)]))
    np.testing.assert_allclose(metrics.nme_percent(*given), [15.0, 0.0], rtol=1e-6)


def test_nme_runs_under_jit_and_vmap() -> None:
    rng = np.random.default_rng(0)
    points, truth = rng.normal(size=(2, 4, 68, 2)).astype(np.float32)
    found = jax.jit(jax.vmap(lambda a, b: metrics.nme_percent(a, b, INNER)))(points, truth)
    np.testing.assert_allclose(found, metrics.nme_percent(points, truth, INNER), rtol=1e-5)


@pytest.mark.parametrize("array", [np.array, jnp.array], ids=["numpy", "jax"])
def test_each_normaliser_is_a_length_of_the_true_points(array) -> None:
    truth = np.full((68, 2), 10.0)
    truth[0], truth[1] = [0.0, 0.0], [30.0, 40.0]
    truth[36], truth[45], truth[5] = [5.0, 8.0], [8.0, 12.0], np.nan
    points = array(truth + [0.0, 1.0])
    lengths = {"box": np.sqrt(30.0 * 40.0), "box-diagonal": 50.0, "inter-ocular": 5.0}
    assert set(lengths) == set(metrics.NORMALISERS)
    for name, length in lengths.items():
        found = metrics.nme_percent(points, array(truth), normalised_by=name)
        np.testing.assert_allclose(found, 100.0 / length, rtol=1e-5)
    truth[45] = np.nan
    assert np.isnan(metrics.inter_ocular_px(array(truth)))
