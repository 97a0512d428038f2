"""Scores of poses on made-up angles."""

import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.evaluation.pose import (
    abs_yaw_bins,
    nearest_angles,
    over_abs_yaw,
    pose_scores,
    profile_scores,
    yaw_curve,
)
from dfc_jax.ops.rotations import angles_to_matrix

NAN = np.nan


def test_errors_slope_and_bias_of_each_angle_over_the_faces_of_which_it_is_known():
    true = np.array([[-60.0, 10.0, NAN], [0.0, 10.0, NAN], [60.0, 10.0, NAN], [30.0, 10.0, 5.0]])
    found = np.array([[-40.0, 6.0, 1.0], [2.0, 6.0, 1.0], [44.0, 6.0, 1.0], [NAN, NAN, NAN]])
    scores = pose_scores(found, true)
    assert scores["yaw"] == {
        "n": 3,
        "slope": pytest.approx(0.7),
        "bias": pytest.approx(2.0),
        "mean": pytest.approx(38.0 / 3),
        "median": pytest.approx(16.0),
    }
    assert scores["pitch"] == {"n": 3, "slope": None, "bias": -4.0, "mean": 4.0, "median": 4.0}
    assert scores["roll"] == {"n": 0, "slope": None, "bias": None, "mean": None, "median": None}

    assert scores["rotation"] == {"n": 0, "mean": None, "median": None}


def test_the_rotation_between_found_and_true_is_one_angle_at_every_yaw():
    true = np.array([[0.0, 0.0, 0.0], [30.0, -20.0, 10.0], [89.9, 60.0, 0.0]])
    found = true + [[0.0, 0.0, 7.0], [0.0, 0.0, 4.0], [0.0, -40.0, -40.0]]
    scores = pose_scores(found, true)
    # Close to 90 degrees pitch and roll turn about the same axis.
    assert scores["rotation"]["n"] == 3
    assert scores["rotation"]["mean"] == pytest.approx((7.0 + 4.0 + 0.05) / 3, abs=0.05)
    assert scores["pitch"]["mean"] == pytest.approx(40.0 / 3)


def test_the_rotation_between_angles_is_that_of_the_matrices_of_the_convention():
    one, other = np.random.default_rng(0).uniform(-80.0, 80.0, (2, 1, 3))
    first, second = (np.asarray(angles_to_matrix(jnp.asarray(a[0]))) for a in (one, other))
    expected = np.rad2deg(np.arccos((np.trace(first.T @ second) - 1.0) / 2.0))
    assert pose_scores(one, other)["rotation"]["mean"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("known", [True, False])
def test_a_head_turned_beyond_the_profile_is_not_half_a_turn_away(known: bool):
    """A yaw of 95 degrees is found as one of 85, pitch and roll half a turn on."""
    true = np.array([[90.0, 5.0 if known else NAN, NAN], [-88.0, 0.0, 3.0]])
    found = np.array([[85.0, -176.0, 179.0], [-87.0, 2.0, 3.0]])
    nearest = nearest_angles(found, true)
    np.testing.assert_allclose(nearest[1], found[1])
    if known:
        np.testing.assert_allclose(nearest[0], [95.0, 4.0, 179.0])
        assert pose_scores(found, true)["pitch"]["mean"] == pytest.approx(1.5)
        assert yaw_curve(found, true)["90"]["found"] == pytest.approx(95.0)
    else:
        assert nearest[0, 0] in (85.0, 95.0)
    np.testing.assert_array_equal(nearest_angles(found, np.full((2, 3), NAN)), found)


def test_a_frontal_face_found_upside_down_stays_so():
    found, true = np.array([[20.0, 175.0, 175.0]]), np.array([[20.0, 0.0, 0.0]])
    np.testing.assert_allclose(nearest_angles(found, true), found)


def test_angles_on_both_sides_of_half_a_turn_are_near():
    true, found = np.zeros((2, 3)), np.zeros((2, 3))
    true[:, 2], found[:, 2] = [179.0, 90.0], [-179.0, 92.0]
    roll = pose_scores(found, true)["roll"]
    assert roll["mean"] == pytest.approx(2.0) and roll["slope"] == pytest.approx(1.0)


def test_the_curve_has_the_median_found_in_each_bin_of_the_true_yaw():
    true = np.array([-90.0, -88.0, -84.0, 0.0, 7.4, 7.6, 30.0, NAN])
    found = np.array([-50.0, -40.0, -60.0, 1.0, 3.0, 9.0, NAN, 5.0])
    true, found = (np.pad(yaw[:, None], ((0, 0), (0, 2))) for yaw in (true, found))
    assert yaw_curve(found, true) == {
        "-90": {"n": 3, "true": -88.0, "found": pytest.approx(-50.0)},
        "0": {"n": 2, "true": pytest.approx(3.7), "found": pytest.approx(2.0)},
        "15": {"n": 1, "true": 7.6, "found": pytest.approx(9.0)},
    }
    assert list(yaw_curve(found, true)) == ["-90", "0", "15"]


def test_means_over_the_absolute_yaw_take_each_face_once():
    true = np.array([-29.9, 10.0, 30.0, -59.0, 60.0, -90.0, 100.0, NAN])
    values = np.array([1.0, 3.0, 5.0, 7.0, 9.0, 10.0, 11.0, 99.0])
    assert over_abs_yaw(values, true) == {
        "0-30": {"n": 2, "mean": 2.0},
        "30-60": {"n": 2, "mean": 6.0},
        "60-90": {"n": 3, "mean": 10.0},
    }
    none = over_abs_yaw(np.full(8, NAN), true)
    assert none["60-90"] == {"n": 0, "mean": None}


def test_bins_hold_their_lower_edge_and_what_is_beyond_and_no_unknown_yaw():
    yaw = np.array([0.0, -29.9, 30.0, -60.0, 95.0, NAN])
    np.testing.assert_array_equal(abs_yaw_bins(yaw), [0, 0, 1, 2, 2, -1])


def test_profiles_of_both_sides_are_one_median():
    found = np.array([-50.0, 60.0, NAN, 3.0])
    profile = np.array([True, True, True, False])
    assert profile_scores(found, profile) == {"n": 2, "median_abs_yaw": 55.0}
