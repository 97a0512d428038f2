"""AFLW and AFLW-PIFA: points in the order of their names, boxes, poses in our signs."""

import sqlite3
from contextlib import closing
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from dataset_layouts import AflwFace, write_aflw, write_pifa

from dfc_jax.data.aflw import aflw, angles_of_aflw
from dfc_jax.data.faces import collect, read_usable
from dfc_jax.data.pifa import aflw_pifa
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks21 import NAMES21
from dfc_jax.ops.rotations import angles_to_matrix

# The database has more features than the 21, and numbers them as it likes.
FEATURES = ("LeftTemple", *reversed(NAMES21))
FACE = AflwFace("0/image00002.jpg", (10, 20, 100, 90), (0.1, 0.2, -0.3), {"NoseCenter": (60, 70)})


def execute(root: Path, statement: str) -> None:
    with closing(sqlite3.connect(root / "aflw.sqlite")) as opened, opened:
        opened.execute(statement)


def test_aflw_has_named_points_boxes_and_names_with_numbers(tmp_path):
    points = {"LeftBrowLeftCorner": (30.5, 41.0), "ChinCenter": (60.0, 99.5), "LeftEar": (-1, -1)}
    second = AflwFace("2/image00430.jpg", (1, 2, 30, 40), None, {**points, "LeftTemple": (5, 5)})
    write_aflw(tmp_path, FEATURES, {39342: second, 39341: FACE})
    faces = list(aflw(tmp_path))
    assert [face.name for face in faces] == ["0/image00002_39341", "2/image00430_39342"]
    face = faces[1]
    assert face.points21 is not None and face.points21.shape == (21, 2)
    shown = np.flatnonzero(np.isfinite(face.points21).all(axis=-1))
    assert [NAMES21[n] for n in shown] == ["LeftBrowLeftCorner", "ChinCenter"]
    np.testing.assert_array_equal(face.points21[shown], [[30.5, 41.0], [60.0, 99.5]])
    np.testing.assert_array_equal(face.landmark_box, [1.0, 2.0, 30.0, 40.0])
    assert np.isnan(face.points).all() and face.pose_deg is None and face.labels == "original"
    assert face.image().shape == (200, 200, 3)
    np.testing.assert_allclose(faces[0].pose_deg, angles_of_aflw(0.1, 0.2, -0.3))


@pytest.mark.parametrize(
    ("roll_pitch_yaw", "expected"),
    [
        ([0.0, 0.0, 30.0], [30.0, 0.0, 0.0]),
        ([0.0, 20.0, 0.0], [0.0, 20.0, 0.0]),
        ([10.0, 0.0, 0.0], [0.0, 0.0, -10.0]),
    ],
)
def test_one_angle_of_aflw_is_ours_but_for_the_sign_of_roll(roll_pitch_yaw, expected):
    angles = angles_of_aflw(*np.deg2rad(roll_pitch_yaw))
    np.testing.assert_allclose(angles, expected, atol=1e-4)


def test_three_angles_of_aflw_are_the_same_rotation_in_ours():
    """Where the nose points, by hand: first roll, then pitch, then yaw, about axes that stay."""
    pitch, yaw = 0.4, 0.9
    matrix = np.asarray(angles_to_matrix(jnp.asarray(angles_of_aflw(0.7, pitch, yaw))))
    # In the camera: x right, y down, z forward.
    left, up, near = np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)
    np.testing.assert_allclose(matrix[:, 2], [-left, -up, -near], atol=1e-5)


def test_broken_faces_of_aflw_are_named_and_left_out(tmp_path):
    broken = {
        1: FACE,
        2: AflwFace("0/a.jpg", None, None, FACE.points),
        3: AflwFace("0/b.jpg", (1, 1, 9, 9), None, {}),
        4: AflwFace("0/c.jpg", (1, 1, 9, 9), None, FACE.points),
    }
    write_aflw(tmp_path, FEATURES, broken)
    (tmp_path / "flickr/0/c.jpg").unlink()
    execute(tmp_path, "INSERT INTO Faces VALUES (5, 'none.jpg', 'flickr')")
    used, problems = read_usable(aflw(tmp_path))
    assert [face.name for face in used] == ["0/image00002_1"]
    words = {2: "face 2 has no box", 3: "face 3 has none of the 21 points", 4: "c.jpg: there is no"}
    words[5] = "face 5 has no photograph"
    assert problems.keys() == words.keys()
    assert all(words[face] in problems[face] for face in words)


def test_a_broken_database_is_named(tmp_path):
    database = tmp_path / "aflw.sqlite"
    with pytest.raises(DatasetError, match=f"{database}: there is no such file"):
        aflw(tmp_path)
    write_aflw(tmp_path, FEATURES, {1: FACE})
    execute(tmp_path, "INSERT INTO Faces VALUES (1, 'image00002.jpg', 'flickr')")
    with pytest.raises(DatasetError, match=f"{database}: there are two faces 1"):
        aflw(tmp_path)
    execute(tmp_path, "DELETE FROM Faces")
    with pytest.raises(DatasetError, match=f"{database}: has no faces"):
        aflw(tmp_path)
    execute(tmp_path, "DROP TABLE FacePose")
    with pytest.raises(DatasetError, match=f"{database}: not a database .*FacePose"):
        aflw(tmp_path)
    database.write_bytes(database.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=f"{database}: not a database of AFLW"):
        aflw(tmp_path)


# --- AFLW-PIFA ---


def test_pifa_has_visible_points_and_boxes_from_zero(tmp_path):
    points = np.random.default_rng(0).uniform(20.0, 90.0, (2, 21, 2))
    visible = np.ones((2, 21))
    visible[1, 5:] = 0.0
    points[1, 7] = np.nan
    write_pifa(tmp_path, np.array([[11.0, 21.0, 80.0, 70.0]] * 2), points, visible)
    first, second = aflw_pifa(tmp_path)
    assert (first.name, second.name) == ("1", "2")
    np.testing.assert_allclose(first.points21, points[0] - 1.0)
    np.testing.assert_allclose(second.points21[:5], points[1, :5] - 1.0)
    assert np.isnan(second.points21[5:]).all() and np.isnan(second.points).all()
    np.testing.assert_array_equal(first.landmark_box, [10.0, 20.0, 80.0, 70.0])
    assert second.image().shape == (200, 200, 3) and second.pose_deg is None


def test_broken_files_of_pifa_are_named(tmp_path):
    boxes = np.array([[11.0, 21.0, 80.0, 70.0]] * 4)
    boxes[3, 2] = 0.0
    points, visible = np.full((4, 21, 2), 50.0), np.ones((4, 21))
    visible[1] = 0.0
    write_pifa(tmp_path, boxes, points, visible)
    (tmp_path / "TestImages/3.jpg").unlink()
    used, problems = collect(aflw_pifa(tmp_path))
    assert [face.name for face in used] == ["1"]
    words = ("row 2 has no visible point", "3.jpg: there is no such", "box of row 4 is empty")
    for word, problem in zip(words, problems, strict=True):
        assert word in problem
    write_pifa(tmp_path, boxes, np.full((4, 34, 2), 50.0), np.ones((4, 34)))
    with pytest.raises(DatasetError, match=r"Landmark.mat: phisT has 102 columns"):
        aflw_pifa(tmp_path)
    landmarks = tmp_path / "Landmark.mat"
    landmarks.write_bytes(landmarks.read_bytes()[:300])
    with pytest.raises(DatasetError, match=f"{landmarks}: not a readable MATLAB file"):
        aflw_pifa(tmp_path)
