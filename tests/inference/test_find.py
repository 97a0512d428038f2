"""The package's own detector finds a portrait's face however it is turned, moved and resized."""

import cv2
import numpy as np
import pytest
from paths import ASTRONAUT

from dfc_jax.crops import Crop, apply_affine
from dfc_jax.evaluation.protocols import intersection_over_union
from dfc_jax.inference.find import FACE_PX, WHOLE_EDGE, FaceDetector, merge
from dfc_jax.photo import read_photo
from dfc_jax.systems.detector.scenes import Boxes

# Brows to chin, cheek to cheek, read off the picture; the head's roll as the aligner finds it.
BOX = np.array([180.0, 82.0, 84.0, 86.0])
MIDDLE, EDGE, ROLL = BOX[:2] + BOX[2:] / 2, 86.0, -4.0


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return read_photo(ASTRONAUT)


def assert_found(found, middle, edge, roll=None) -> None:
    """That a detection is this face: as near as the aligner needs it."""
    own = found.box[:2] + found.box[2:] / 2
    assert np.linalg.norm(own - middle) < 0.15 * edge
    assert 0.8 < found.box[2] / edge < 1.25
    if roll is not None:
        assert abs((found.roll_deg - roll + 180.0) % 360.0 - 180.0) < 12.0


def test_the_portrait_is_found_once_and_surely(detector, portrait):
    (found,) = detector(portrait)
    assert_found(found, MIDDLE, EDGE, ROLL)
    assert found.score > 0.9 and found.kind == "dfc"
    assert intersection_over_union(found.landmark_box, BOX) > 0.7


@pytest.mark.parametrize("roll", [45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0])
def test_a_turned_face_is_found_where_it_lies_and_stands_upright_in_its_crop(
    detector, portrait, roll
):
    turn = Crop(np.zeros(2), 1.0, roll).rotation
    matrix = np.concatenate([turn, ([300.0, 300.0] - turn @ MIDDLE)[:, None]], axis=1)
    turned = cv2.warpAffine(portrait, matrix, (600, 600), borderMode=cv2.BORDER_REPLICATE)
    found = max(detector(turned), key=lambda d: d.score)
    assert_found(found, [300.0, 300.0], EDGE, ROLL + roll)
    upright = apply_affine(
        found.crop.to_crop, apply_affine(matrix, MIDDLE + [[0.0, 0.0], [0.0, 30.0]])
    )
    down = upright[1] - upright[0]
    assert down[1] > 0.9 * np.linalg.norm(down)


@pytest.mark.parametrize("edge", [18.0, 30.0, 60.0, 170.0, 400.0])
def test_a_face_of_any_size_is_found(detector, portrait, edge):
    scale = edge / EDGE
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=interpolation)
    found = max(detector(resized), key=lambda d: d.score)
    assert_found(found, scale * MIDDLE, edge)


def test_a_face_that_fills_the_picture_is_found(detector, portrait):
    x, y, width, height = BOX.astype(int)
    found = max(detector(portrait[y : y + height, x : x + width]), key=lambda d: d.score)
    assert_found(found, BOX[2:] / 2, EDGE)


def test_small_faces_of_large_pictures_lie_on_tiles(detector, portrait):
    """One lies across the border of two tiles."""
    head = cv2.resize(portrait[40:220, 130:310], (90, 90), interpolation=cv2.INTER_AREA)
    picture = np.full((2400, 3600, 3), 110, np.uint8)
    places = [(300, 400), (1175, 900), (3400, 2200)]
    for x, y in places:
        picture[y : y + 90, x : x + 90] = head
    found = detector(picture)
    assert len(found) == len(places)
    for x, y in places:
        middle = (MIDDLE - [130, 40]) / 2 + [x, y]
        nearest = min(found, key=lambda d: np.linalg.norm(d.box[:2] + d.box[2:] / 2 - middle))
        assert_found(nearest, middle, EDGE / 2)


def test_several_faces_come_largest_first_and_only_as_many_as_asked_for(portrait):
    face = portrait[:260, 90:350]
    scene = np.full((260, 420, 3), 90, np.uint8)
    scene[:130, :130], scene[:, 160:] = face[::2, ::2], face
    first, second = FaceDetector()(scene)
    assert first.box[0] > 160 > second.box[0] and first.box[2] > second.box[2]
    (only,) = FaceDetector(max_faces=1)(scene)
    assert only.score == max(first.score, second.score)


def test_faces_smaller_than_asked_for_are_not_looked_for(portrait):
    small = cv2.resize(portrait, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    assert FaceDetector()(small)
    assert not FaceDetector(min_face_px=60.0)(small)
    assert FaceDetector(min_face_px=60.0)(portrait)


def test_less_sure_faces_are_left_out(portrait):
    (found,) = FaceDetector()(portrait)
    assert FaceDetector(min_score=found.score - 1e-4)(portrait)
    assert not FaceDetector(min_score=found.score + 1e-4)(portrait)


def test_nothing_is_found_on_an_empty_or_tiny_picture(detector):
    for shape in ((200, 300), (1, 1), (1, 5000), (3000, 3)):
        assert detector(np.full((*shape, 3), 128, np.uint8)) == []
    assert detector(np.zeros((40, 40, 3), np.uint8)) == []


def test_a_large_picture_is_searched_for_larger_faces():
    def first_edge(width, height, **options):
        tiles = FaceDetector(**options)._plan(width, height)
        return max(tile.x + tile.width for tile in tiles)

    assert first_edge(640, 480) == 640
    assert first_edge(6000, 4000) == round(np.sqrt(WHOLE_EDGE * 6000))
    assert first_edge(6000, 4000, min_face_px=4 * FACE_PX) == 1500
    # A square of 640 pixels would just not fit one canvas.
    assert 450 < first_edge(640, 640) < 640
    assert first_edge(640, 640, min_face_px=FACE_PX) == 640
    # However small the faces: no more than the most canvases.
    assert first_edge(20_000, 20_000, min_face_px=1.0) < 4000


def test_cells_of_one_face_are_averaged_and_others_are_faces_of_their_own():
    middle = np.array([[10.0, 10.0], [12.0, 10.0], [100.0, 10.0], [11.0, 10.0]])
    boxes = Boxes(middle, np.array([20.0, 20.0, 20.0, 60.0]), np.array([170.0, -170.0, 0.0, 90.0]))
    first, second = merge(boxes, np.array([0.9, 0.9, 0.8, 0.5]))
    np.testing.assert_allclose(first.box, [1.0, 0.0, 20.0, 20.0], atol=1e-9)
    assert abs(first.roll_deg) == pytest.approx(180.0) and first.score == 0.9
    np.testing.assert_allclose(second.box, [90.0, 0.0, 20.0, 20.0], atol=1e-9)
    assert merge(Boxes(np.zeros((0, 2)), np.zeros(0), np.zeros(0)), np.zeros(0)) == []
