"""Scores of poses on made-up angles."""

import numpy as np
import pytest

from dfc_jax.evaluation.pose import over_abs_yaw, pose_scores, profile_scores, yaw_curve

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


def test_angles_on_both_sides_of_half_a_turn_are_near():
    true, found = np.zeros((2, 3)), np.zeros((2, 3))
    true[:, 2], found[:, 2] = [179.0, 90.0], [-179.0, 92.0]
    roll = pose_scores(found, true)["roll"]
    assert roll["mean"] == pytest.approx(2.0) and roll["slope"] == pytest.approx(1.0)


def test_the_curve_has_the_median_found_in_each_bin_of_the_true_yaw():
    true = np.array([-90.0, -88.0, -84.0, 0.0, 7.4, 7.6, 30.0, NAN])
    found = np.array([-50.0, -40.0, -60.0, 1.0, 3.0, 9.0, NAN, 5.0])
    assert yaw_curve(found, true) == {
        "-90": {"n": 3, "true": -88.0, "found": -50.0},
        "0": {"n": 2, "true": 3.7, "found": 2.0},
        "15": {"n": 1, "true": 7.6, "found": 9.0},
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


def test_profiles_of_both_sides_are_one_median():
    found = np.array([-50.0, 60.0, NAN, 3.0])
    profile = np.array([True, True, True, False])
    assert profile_scores(found, profile) == {"n": 2, "median_abs_yaw": 55.0}
