"""Faces are pasted where the boxes say, and a detector's boxes are counted against its scores."""

import json
import types

import cv2
import numpy as np
import pytest
from photographs import points_in_box
from squares import BOX, portrait, red_squares

from dfc_jax.errors import DatasetError
from dfc_jax.inference.detect import Detection
from experiments.tools import precision_recall as tool


class Drawn:
    """A photograph of a red square, its face."""

    landmark_box = BOX

    def image(self) -> np.ndarray:
        return portrait()


def wrong_too(image: np.ndarray) -> list[Detection]:
    """Sees each square twice, the second time less surely, and a corner, more surely."""
    found = red_squares(image)
    again = [Detection(one.box, 0.5, "given") for one in found]
    return [*again, *found, Detection(np.array([0.0, 0.0, 9.0, 9.0]), 0.95, "given")]


@pytest.fixture
def backgrounds():
    return np.full((3, 40, 40, 3), 120, np.uint8)


def test_every_face_is_pasted_once_where_its_box_says(backgrounds) -> None:
    shown = list(tool.pictures([Drawn()] * 30, backgrounds, np.random.default_rng(0)))
    assert sum(len(picture.boxes) for picture in shown) == 30
    for picture in shown:
        assert picture.image.shape == (tool.HEIGHT, tool.WIDTH, 3)
        found = red_squares(picture.image)
        assert len(found) == len(picture.boxes)
        for box in picture.boxes:
            middle = box[:2] + box[2:] / 2
            near = min(found, key=lambda one: np.abs(one.box[:2] + one.box[2:] / 2 - middle).max())
            assert np.abs(near.box[:2] + near.box[2:] / 2 - middle).max() < 1.5
            assert near.box[2] == pytest.approx(box[2], rel=0.1, abs=1.5)
            assert tool.EDGES_PX[0] <= box[2] <= tool.EDGES_PX[1]


def test_a_face_counts_once_and_the_surest_boxes_come_first(backgrounds) -> None:
    shown = list(tool.pictures([Drawn()] * 10, backgrounds, np.random.default_rng(0)))
    scores, right, ratio = tool.found_in(wrong_too, shown)
    np.testing.assert_allclose(ratio[right], 0.0, atol=0.1)
    assert np.isnan(ratio[~right]).all()
    assert scores.tolist() == sorted(scores, reverse=True)
    assert right[scores == 0.9].all() and (scores == 0.9).sum() == 10
    assert not right[scores != 0.9].any()


def test_a_curve_is_that_of_its_definition() -> None:
    scores, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    found = tool.curve(scores, right, 4)
    assert found["recall"] == [0.25, 0.25, 0.5, 0.5]
    assert found["precision"] == pytest.approx([1.0, 0.5, 2 / 3, 0.5], abs=1e-4)
    assert found["average_precision"] == pytest.approx(0.25 + 0.25 * 2 / 3, abs=1e-4)
    assert tool.curve(np.zeros(0), np.zeros(0, bool), 4)["average_precision"] == 0.0


def test_the_share_of_right_boxes_stands_beside_their_scores() -> None:
    rows = tool.calibration(np.array([1.0, 0.92, 0.31]), np.array([True, False, False]))
    assert rows == [
        {"boxes": 1, "score": 0.31, "right": 0.0},
        {"boxes": 2, "score": 0.96, "right": 0.5},
    ]


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What the command line says, for a folder of one photograph."""
    folder, behind = tmp_path / "set", tmp_path / "behind"
    folder.mkdir()
    behind.mkdir()
    lines = "\n".join(f"{x} {y}" for x, y in BOX[:2] + points_in_box(*BOX[2:]) + 1.0)
    (folder / "one.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    cv2.imwrite(str(folder / "one.png"), portrait()[..., ::-1])
    cv2.imwrite(str(behind / "one.png"), np.full((40, 40, 3), 120, np.uint8))
    made = {"dfc": red_squares, "haar": lambda _: [], "yunet": wrong_too}
    monkeypatch.setattr(tool, "make_detector", lambda name, *_, **__: made[name])
    return types.SimpleNamespace(
        photos=[str(folder)],
        backgrounds=str(behind),
        detector_model=None,
        yunet="file",
        out=str(tmp_path / "out"),
    )


def test_the_command_writes_its_report_and_its_pictures(told, tmp_path, capsys) -> None:
    tool.compare_as_told(told)
    report = json.loads((tmp_path / "out" / "detectors.json").read_text())
    areas = {name: found["average_precision"] for name, found in report["detectors"].items()}
    assert areas == {"dfc": 1.0, "haar": 0.0, "yunet": 0.5}
    assert report["faces"] == report["pictures"] == 1
    assert report["detectors"]["dfc"]["calibration"] == [{"boxes": 1, "score": 0.9, "right": 1.0}]
    for name in ("detectors.png", "scenes.png"):
        assert cv2.imread(str(tmp_path / "out" / name)) is not None
    assert report["detectors"]["yunet"]["ms_640"] > report["detectors"]["haar"]["ms_640"] >= 0.0
    assert {key for key in report["detectors"]["dfc"] if key.startswith("ms_")} == {
        f"ms_{width}" for width in tool.TIMED_WIDTHS
    }
    assert "yunet: average precision 0.500, " in capsys.readouterr().out
    told.yunet = None
    tool.compare_as_told(told)
    report = json.loads((tmp_path / "out" / "detectors.json").read_text())
    assert report["detectors"].keys() == {"dfc", "haar"}


def test_a_folder_without_photographs_is_one_sentence(told, tmp_path) -> None:
    told.photos = [str(tmp_path / "behind")]
    with pytest.raises(DatasetError, match="behind"):
        tool.compare_as_told(told)
