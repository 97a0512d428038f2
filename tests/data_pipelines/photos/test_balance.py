"""Profiles are drawn as often as frontal faces, if one asks for it."""

import numpy as np
import pytest

from data_pipelines.photos.balance import MOST, draw_weights, drawn, shared, yaw_weights

# 400 squares: |yaw| in 0..15, 15..30, 45..60 and beyond 75 degrees, on both sides.
YAWS = np.repeat([5.0, -20.0, 50.0, -104.0], [240, 80, 60, 20])
BINS = np.repeat([0, 1, 2, 3], [240, 80, 60, 20])


def shares(weights: np.ndarray) -> np.ndarray:
    return np.bincount(BINS, weights) / weights.sum()


def test_without_balance_every_square_is_drawn_once_in_its_place() -> None:
    weights = yaw_weights(YAWS, 0.0)
    np.testing.assert_array_equal(weights, 1.0)
    for start in (0.0, 0.3, 0.999999):
        np.testing.assert_array_equal(drawn(weights, start), np.arange(len(YAWS)))


def test_with_full_balance_every_bin_has_an_equal_share_but_for_the_cap() -> None:
    weights = yaw_weights(np.abs(YAWS[:380]), 1.0)
    np.testing.assert_allclose(np.bincount(BINS[:380], weights), 380 / 3)
    # Twenty squares of 400 would have to be drawn five times; four is the most.
    weights = yaw_weights(YAWS, 1.0)
    assert weights.max() == MOST and weights.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(shares(weights), [0.8 / 3, 0.8 / 3, 0.8 / 3, 0.2])


def test_between_them_the_shares_lie_between() -> None:
    none, half, full = (shares(yaw_weights(YAWS, balance)) for balance in (0.0, 0.5, 1.0))
    assert ((half > np.minimum(none, full)) & (half < np.maximum(none, full))).all()
    assert yaw_weights(YAWS, 0.5).mean() == pytest.approx(1.0)


def test_squares_taken_over_by_the_cap_are_capped_too() -> None:
    yaws = np.repeat([0.0, 20.0, 35.0, 50.0], [1000, 60, 30, 1])
    weights = yaw_weights(yaws, 1.0)
    assert weights.max() <= MOST + 1e-9 and weights.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(weights[1000:], MOST)


def test_an_epoch_has_as_many_squares_and_each_as_often_as_it_weighs() -> None:
    weights = yaw_weights(YAWS, 1.0)
    times = np.zeros(len(YAWS))
    starts = np.random.default_rng(0).random(2000)
    for start in starts:
        index = drawn(weights, start)
        assert len(index) == len(YAWS)
        found = np.bincount(index, minlength=len(YAWS))
        assert (np.abs(found - weights) < 1.0 + 1e-9).all()
        times += found
    np.testing.assert_allclose(times / len(starts), weights, atol=0.05)


def test_copies_are_drawn_as_often_as_their_share_says() -> None:
    weights = np.array([1.0, 3.0, 2.0, 2.0, 2.0])
    is_copy = np.arange(5) >= 2
    found = shared(weights, is_copy, 0.2)
    np.testing.assert_allclose(found, [1.0, 3.0, 1 / 3, 1 / 3, 1 / 3])
    assert shared(weights, np.zeros(5, bool), 0.2) is weights
    assert shared(weights, np.ones(5, bool), 0.2) is weights


def test_yaws_are_balanced_among_photographs_and_among_copies() -> None:
    own, copied = np.repeat([5.0, 80.0], [300, 100]), np.repeat([20.0, 50.0], [60, 20])
    weights = draw_weights(np.concatenate([own, copied]), len(own), 1.0, 0.25)
    assert weights.mean() == pytest.approx(1.0)
    parts = np.split(weights, [300, 400, 460])
    shares = [part.sum() / weights.sum() for part in parts]
    np.testing.assert_allclose(shares, [0.375, 0.375, 0.125, 0.125])
    np.testing.assert_allclose(draw_weights(own, len(own), 0.0, 0.25), 1.0)
