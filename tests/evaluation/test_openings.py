"""Openings of eyes and mouths of made-up faces."""

import numpy as np
import pytest

from dfc_jax.evaluation.openings import eye_openings, mouth_opening, opening_scores


def face(right: float, left: float, mouth: float, turn_deg: float = 0.0) -> np.ndarray:
    """68 points whose eyes and mouth are open as far, turned in the picture."""
    points = np.zeros((68, 2))
    for first, opening, x in ((36, right, 0.0), (42, left, 60.0)):
        lids = 10.0 * opening
        eye = points[first : first + 6]
        eye[:, 0] = np.array([0.0, 7.0, 13.0, 20.0, 13.0, 7.0]) + x
        eye[:, 1] = [0.0, -lids, -lids, 0.0, lids, lids]
    points[48], points[54] = [20.0, 60.0], [60.0, 60.0]
    points[62], points[66] = [40.0, 60.0], [40.0, 60.0 + 40.0 * mouth]
    turn = np.deg2rad(turn_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return 3.0 * points @ rotation.T + 100.0


@pytest.mark.parametrize("turn", [0.0, 40.0])
def test_openings_are_heights_over_widths_however_large_and_turned(turn: float):
    points = face(0.3, 0.05, 0.2, turn)
    np.testing.assert_allclose(eye_openings(points), [0.3, 0.05])
    np.testing.assert_allclose(mouth_opening(points), 0.2)
    assert eye_openings(np.stack([points] * 4)).shape == (4, 2)


def test_hidden_and_collapsed_parts_are_nan():
    points = face(0.3, 0.3, 0.2)
    points[43], points[54] = np.nan, points[48]
    np.testing.assert_allclose(eye_openings(points), [0.3, np.nan])
    assert np.isnan(mouth_opening(points))


def test_shrunk_openings_show_in_the_slope_and_weights_in_the_correlation():
    openings = np.array([[0.05, 0.1, 0.0], [0.2, 0.3, 0.1], [0.4, 0.4, 0.5]])
    true = np.stack([face(*each) for each in openings])
    predicted = np.stack([face(*(0.5 * each + 0.1)) for each in openings])
    true[0, 43] = np.nan  # one eye less
    # The weight of the eye that is not annotated does not count.
    blink = np.array([[0.9, 0.0], [0.8, 0.5], [0.1, 0.2]])
    scores = opening_scores(predicted, true, blink=blink, jaw_open=openings[:, 2])
    assert scores["eyes"] == {
        "n": 5,
        "slope": pytest.approx(0.5),
        "bias": pytest.approx(0.1),
        "correlation": pytest.approx(1.0),
        "blink_correlation": pytest.approx(
            np.corrcoef(np.delete(blink, 1), np.delete(openings[:, :2], 1))[0, 1]
        ),
    }
    assert scores["mouth"] == {
        "n": 3,
        "slope": pytest.approx(0.5),
        "bias": pytest.approx(0.1),
        "correlation": pytest.approx(1.0),
        "jaw_open_correlation": pytest.approx(1.0),
    }


def test_a_set_without_points_has_no_openings():
    nothing = np.full((3, 68, 2), np.nan)
    scores = opening_scores(
        np.stack([face(0.3, 0.3, 0.1)] * 3), nothing, np.ones((3, 2)), np.ones(3)
    )
    assert scores["eyes"]["n"] == scores["mouth"]["n"] == 0
    assert scores["eyes"]["slope"] is scores["mouth"]["jaw_open_correlation"] is None
