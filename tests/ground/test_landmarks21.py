"""AFLW's 21 landmarks are the means of iBUG points that its names say."""

import re

import numpy as np

from dfc_jax.landmarks21 import N_LANDMARKS21, NAMES21, landmarks21
from dfc_jax.landmarks68 import MIRROR

LEFT_EAR, RIGHT_EAR = NAMES21.index("LeftEar"), NAMES21.index("RightEar")


def numbered() -> np.ndarray:
    """Points (68, 2) whose x is the number of the point, and y its square."""
    return np.stack([np.arange(68.0), np.arange(68.0) ** 2], axis=-1)


def test_landmarks_are_means_of_the_points_that_are_called_so():
    found = dict(zip(NAMES21, landmarks21(numbered()).tolist(), strict=True))
    assert len(found) == N_LANDMARKS21 == 21
    assert found["LeftBrowLeftCorner"] == [17.0, 289.0]
    assert found["LeftBrowCenter"] == [19.0, 361.0]
    assert found["LeftBrowRightCorner"] == [21.0, 441.0]
    assert found["RightBrowLeftCorner"] == [22.0, 484.0]
    assert found["RightBrowRightCorner"] == [26.0, 676.0]
    assert found["LeftEyeLeftCorner"] == [36.0, 1296.0]
    # (36 + ... + 41) / 6, and the mean of their squares.
    np.testing.assert_allclose(found["LeftEyeCenter"], [38.5, 1485.1666666], rtol=1e-6)
    assert found["LeftEyeRightCorner"] == [39.0, 1521.0]
    assert found["RightEyeCenter"][0] == 44.5
    assert found["RightEyeRightCorner"] == [45.0, 2025.0]
    assert [found[n][0] for n in ("NoseLeft", "NoseCenter", "NoseRight")] == [31.0, 30.0, 35.0]
    assert [found[n][0] for n in ("MouthLeftCorner", "MouthRightCorner")] == [48.0, 54.0]
    # (60 + ... + 67) / 8.
    assert found["MouthCenter"][0] == 63.5
    assert found["ChinCenter"] == [8.0, 64.0]


def test_the_ears_and_what_is_not_annotated_are_nan():
    points = np.stack([numbered(), numbered()])
    points[1, 40] = np.nan
    found = landmarks21(points)
    missing = np.isnan(found).any(axis=-1)
    assert found.shape == (2, 21, 2)
    assert np.flatnonzero(missing[0]).tolist() == [LEFT_EAR, RIGHT_EAR]
    eye = NAMES21.index("LeftEyeCenter")
    assert np.flatnonzero(missing[1]).tolist() == [eye, LEFT_EAR, RIGHT_EAR]


def in_mirror(name: str) -> str:
    """The name of the landmark that one becomes in a mirror image."""
    return re.sub("Left|Right", lambda side: "Right" if side[0] == "Left" else "Left", name)


def test_left_becomes_right_in_a_mirror():
    points = np.random.default_rng(0).uniform(size=(68, 2))
    here = dict(zip(NAMES21, landmarks21(points), strict=True))
    for name, point in zip(NAMES21, landmarks21(points[MIRROR]), strict=True):
        np.testing.assert_allclose(point, here[in_mirror(name)])
