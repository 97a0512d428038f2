"""What is done to the pictures of a check keeps their boxes on the faces, and is counted."""

import dataclasses
import json
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from photographs import points_in_box
from squares import BOX, portrait, red_squares

from dfc_jax.crops import apply_affine
from dfc_jax.inference.detect import Detection
from dfc_jax.photo import read_photo
from experiments.robustness import view_of
from experiments.tools import check_detector as check


def nothing(image: np.ndarray) -> list[Detection]:
    return []


@pytest.mark.parametrize("deg", [0, 45, 60, 90, 180, 270])
def test_a_turned_picture_holds_all_of_the_picture_and_its_box(deg) -> None:
    image, box = check.turned_box(portrait(), BOX, deg)
    assert check.is_found(red_squares(image), box)
    assert (image[..., 0] > 180).sum() == pytest.approx(41 * 41, rel=0.05)
    # Clockwise: what was above the middle of the picture is to its right after a quarter.
    if deg == 90:
        assert box[0] + box[2] / 2 > image.shape[1] / 2


@pytest.mark.parametrize("margin", [0.0, -0.1, 0.25])
def test_a_cut_out_picture_ends_so_far_from_the_box(margin) -> None:
    image, box = check.cut_out(portrait(), BOX, margin)
    assert image.shape[:2] == (41 + round(80 * margin), 41 + round(80 * margin))
    np.testing.assert_allclose(box[:2] + box[2:] / 2, (np.array(image.shape[1::-1]) - 1) / 2)


def test_a_crowd_and_a_large_picture_hold_faces_where_their_boxes_say() -> None:
    picture, boxes = check.crowd([(portrait(), BOX)] * 7)
    assert picture.shape == (2000, 2000, 3) and len(boxes) == 7
    assert len(red_squares(picture)) == 7
    assert all(check.is_found(red_squares(picture), box) for box in boxes)
    large, box = check.in_large(portrait(), BOX, 20.0, np.random.default_rng(0))
    assert large.shape == (4000, 6000, 3) and max(box[2:]) == 20.0
    assert check.is_found(red_squares(large), box)


def test_a_box_has_to_have_about_the_place_and_size_of_the_face() -> None:
    def found(dx, scale):
        box = np.array([60.0 + dx, 40.0, 40.0, 40.0])
        box[:2] -= 20.0 * (scale - 1.0)
        box[2:] *= scale
        return check.is_found([Detection(box, 1.0, "given")], BOX)

    assert found(0, 1.0) and found(12, 1.0) and found(0, 1.9) and found(0, 0.55)
    assert not found(20, 1.0) and not found(0, 2.2) and not found(0, 0.45)
    assert not check.is_found([], BOX)


@pytest.fixture
def photos(tmp_path):
    """A folder of two photographs in iBUG's layout, one without its square, and backgrounds."""
    folder, backgrounds = tmp_path / "set", tmp_path / "backgrounds"
    folder.mkdir()
    backgrounds.mkdir()
    points = BOX[:2] + points_in_box(*BOX[2:]) + 1.0
    for name, value in (("one", 255), ("two", 90)):
        cv2.imwrite(str(folder / f"{name}.png"), portrait(value)[..., ::-1])
        lines = "\n".join(f"{x} {y}" for x, y in points)
        (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
        cv2.imwrite(str(backgrounds / f"{name}.png"), portrait(value)[..., ::-1])
    return folder, backgrounds


def test_the_report_counts_what_is_found(photos, monkeypatch) -> None:
    monkeypatch.setattr(check, "SIZES_PX", (20,))
    folder, backgrounds = photos
    report = check.check(red_squares, check.open_all([str(folder)]), backgrounds)
    assert report["faces_ibug_set"] == 2 and report["found_ibug_set"] == 1
    assert report["turned_90"] == report["tilted_45"] == report["crowd"] == "1 of 2"
    assert report["in_6000_of_20_px"] == report["margin_0"] == "1 of 2"
    assert report["backgrounds"] == 2 and report["false_alarms"] == 1
    assert report["ms_640"] > 0
    none = check.check(nothing, check.open_all([str(folder)]), None)
    assert none["found_ibug_set"] == 0 and none["turned_90"] == "0 of 2"
    assert "false_alarms" not in none


@dataclasses.dataclass
class Found:
    landmarks: np.ndarray
    status: str


def test_right_faces_and_wrong_ones_that_are_ok_are_counted(photos) -> None:
    """An aligner that lays the points into a red square, and their mirror image beside them."""
    folder, backgrounds = photos

    def align(image) -> list[Found]:
        image = read_photo(image) if isinstance(image, Path) else image
        boxes = [one.box + [0.5, 0.5, -1.0, -1.0] for one in red_squares(image)]
        # Upright only.
        boxes = [box for box in boxes if image.shape[0] <= image.shape[1]]
        right = [Found(box[:2] + points_in_box(*box[2:]), "ok") for box in boxes]
        beside = [Found(one.landmarks + 30.0, "ok") for one in right]
        return [*right, *beside, *(Found(one.landmarks, "uncertain") for one in beside)]

    sets = check.open_all([str(folder)])
    report = check.check_all_aligned(align, sets, backgrounds)
    assert report["aligned_ibug_set"] == {"right": 1, "wrong_and_ok": 1, "of": 2}
    assert report["aligned_turned_90"] == {"right": 0, "wrong_and_ok": 0, "of": 2}
    assert report["aligned_turned_180"] == {"right": 0, "wrong_and_ok": 1, "of": 2}
    assert report["aligned_tilted_45"]["of"] == 2
    assert report["aligned_backgrounds"] == {"a_face": 1, "an_ok": 1, "of": 2}


def test_points_turn_with_their_picture(photos) -> None:
    (face, _) = check.open_all([str(photos[0])])["ibug_set"]
    for deg in (45, 90, 180, 270):
        image, matrix = check.turned(face.image(), deg)
        view = view_of(image, apply_affine(matrix, face.points))
        _, box = check.turned_box(face.image(), face.landmark_box, deg)
        middle = view.box[:2] + view.box[2:] / 2
        np.testing.assert_allclose(box[:2] + box[2:] / 2, middle, atol=6.0)


def test_the_command_writes_its_report(photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(check, "SIZES_PX", ())
    monkeypatch.setattr(check, "make_detector", lambda *_, **__: red_squares)
    folder, _ = photos
    told = {"detector": "dfc", "detector_model": None, "min_score": None, "backgrounds": None}
    told["align"] = False
    told |= {"photos": [str(folder)], "json": str(tmp_path / "report.json")}
    values = types.SimpleNamespace(**told)
    check.check_as_told(values)
    assert json.loads((tmp_path / "report.json").read_text())["found_ibug_set"] == 1
