"""The detectors find the face of a portrait, once, and their boxes become landmark boxes."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from paths import ASTRONAUT, shared_data

from dfc_jax.crops import apply_affine, crop_of_box
from dfc_jax.evaluation.protocols import intersection_over_union
from dfc_jax.inference import detect
from dfc_jax.inference.detect import (
    Detection,
    Detector,
    HaarDetector,
    WholeImage,
    landmark_box,
    merge_overlaps,
)
from dfc_jax.inference.detectors import make_detector
from dfc_jax.photo import read_photo

# Brows to chin, cheek to cheek, read off the picture.
ASTRONAUT_BOX = np.array([180.0, 82.0, 84.0, 86.0])


def made(kind: str) -> Detector:
    files = [shared_data("detectors/yunet_n_320_320.onnx")] if kind == "yunet" else []
    return make_detector(kind, *files)


@pytest.fixture(scope="module")
def haar():
    return HaarDetector()


@pytest.fixture(scope="module")
def portrait():
    return read_photo(ASTRONAUT)


def test_haar_finds_the_portrait_once(haar, portrait):
    (found,) = haar(portrait)
    assert intersection_over_union(found.landmark_box, ASTRONAUT_BOX) > 0.7


def test_boxes_come_back_in_photo_pixels(haar, portrait):
    large = np.kron(portrait, np.ones((3, 3, 1), np.uint8))
    (found,) = haar(large)
    assert intersection_over_union(found.landmark_box / 3.0, ASTRONAUT_BOX) > 0.7


def test_several_faces_come_largest_first(haar, portrait):
    face = portrait[:260, 90:350]
    small = face[::2, ::2]
    scene = np.zeros((260, 420, 3), np.uint8)
    scene[:130, :130], scene[:, 160:] = small, face
    first, second = haar(scene)
    assert first.box[0] > 160 > second.box[0]


def test_a_profile_attempt_on_the_mirror_image_mirrors_the_box(portrait):
    attempt = detect.HAAR_ROUNDS[0][0]
    (plain,) = HaarDetector(rounds=((attempt,),))(portrait)
    mirror = HaarDetector(rounds=((attempt._replace(mirrored=True),),))
    (mirrored,) = mirror(np.ascontiguousarray(portrait[:, ::-1]))
    x, y, width, height = plain.box
    assert np.allclose(mirrored.box, [512 - x - width, y, width, height])


@pytest.mark.parametrize("roll", [28.0, -28.0])
def test_a_tilted_head_is_found_where_it_is(haar, portrait, roll):
    centre = ASTRONAUT_BOX[:2] + ASTRONAUT_BOX[2:] / 2
    turn = cv2.getRotationMatrix2D(tuple(centre), roll, 1.0)
    tilted = cv2.warpAffine(portrait, turn, (512, 512))
    found = max(haar(tilted), key=lambda d: d.score)
    assert intersection_over_union(found.landmark_box, ASTRONAUT_BOX) > 0.5


@pytest.mark.parametrize("turn_deg", [90.0, 180.0, 270.0, 45.0])
def test_a_face_is_found_in_the_turned_picture_where_it_lies_in_the_picture(
    haar, portrait, turn_deg
):
    portrait = portrait[:330, :400]
    height, width = portrait.shape[:2]
    (upright,) = haar(portrait)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -turn_deg, 1.0)
    turn[:, 2] += 100.0
    tilted = cv2.warpAffine(portrait, turn, (width + 200, height + 200))
    found = max(detect.detect_turned(haar, tilted, turn_deg), key=lambda d: d.score)
    assert found.roll_deg == turn_deg
    corners = np.array([[0.0, 0.0], [127.0, 0.0], [0.0, 127.0]])
    wanted = apply_affine(turn, apply_affine(upright.crop.to_photo, corners))
    placed = apply_affine(found.crop.to_photo, corners)
    assert np.abs(placed - wanted).max() < 0.1 * upright.crop.side_px


def test_nothing_is_found_on_an_empty_or_tiny_picture(haar):
    assert haar(np.full((200, 300, 3), 128, np.uint8)) == []
    assert haar(np.zeros((1, 1, 3), np.uint8)) == []
    assert haar(np.zeros((1, 5000, 3), np.uint8)) == []


def said(found: list[Detection]) -> list[tuple]:
    return [(d.kind, d.score, d.box.tolist()) for d in found]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["haar", "yunet"])
def test_eight_threads_find_what_one_finds(kind, portrait):
    detector = made(kind)
    sizes = [(320, 320), (240, 320), (300, 200), (150, 150)]
    pictures = [cv2.resize(portrait, size) for size in sizes]
    wanted = [said(detector(picture)) for picture in pictures]
    assert any(wanted)
    with ThreadPoolExecutor(8) as pool:
        found = [said(each) for each in pool.map(detector, pictures * 8)]
    assert found == wanted * 8


@pytest.mark.parametrize("kind", ["haar", "none", "yunet"])
def test_a_pickled_detector_finds_what_the_original_finds(kind, portrait):
    detector = made(kind)
    assert said(pickle.loads(pickle.dumps(detector))(portrait)) == said(detector(portrait))


def test_whole_image_makes_the_crop_cover_the_picture():
    (found,) = WholeImage()(np.zeros((100, 140, 3), np.uint8))
    crop = crop_of_box(found.landmark_box)
    assert np.allclose(crop.centre, [69.5, 49.5])
    assert np.isclose(crop.side_px, 140.0)


def test_overlapping_boxes_are_one_face():
    def at(x, edge, score):
        return Detection(np.array([x, 0.0, edge, edge]), score, "haar-alt2")

    merged = merge_overlaps([at(0, 100, 5), at(10, 90, 9), at(30, 40, 3), at(90, 100, 2)])
    assert [d.box[0] for d in merged] == [90, 10]


def test_landmark_boxes_follow_the_calibration():
    scale, dx, dy = detect.CALIBRATIONS["haar-profile"]
    box = landmark_box("haar-profile", np.array([100.0, 50.0, 40.0, 40.0]))
    assert np.allclose(box[2:], scale * 40.0)
    assert np.allclose(box[:2] + box[2:] / 2, [120.0 + 40.0 * dx, 70.0 + 40.0 * dy])
    given = np.array([1.0, 2.0, 30.0, 40.0])
    assert np.array_equal(landmark_box("given", given), given)
    kinds = {a.kind for attempts in detect.HAAR_ROUNDS for a in attempts} | {"yunet"}
    assert kinds == set(detect.CALIBRATIONS)
