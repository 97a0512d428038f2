"""Points, poses, weights and cameras as other programs read them."""

import csv
import json

import numpy as np
import pytest
from faces import posed
from PIL import Image
from scipy.io import loadmat
from scipy.spatial.transform import Rotation

from dfc_jax.data.ibug import read_pts
from dfc_jax.data.lp import aflw2000
from dfc_jax.export.aflw2000 import write_aflw2000
from dfc_jax.export.camera import camera_record
from dfc_jax.export.livelink import COLUMNS, SHAPES, timecode, write_livelink
from dfc_jax.export.pts import write_pts
from dfc_jax.inference.draw import projected
from dfc_jax.inference.scene import make_scene
from dfc_jax.ops.rotations import angles_to_matrix

SIZE = (300, 200)
MIDDLE = (np.array(SIZE) - 1.0) / 2.0


@pytest.fixture(scope="module")
def face(aligner):
    (found,) = aligner(np.zeros((300, 200, 3), np.uint8))
    return posed(found, aligner.model, (30.0, -10.0, 15.0), (20.0, -30.0, 900.0), 450.0, MIDDLE)


def test_pts_are_read_by_the_reader_of_300w_and_count_from_1(tmp_path, face):
    write_pts(tmp_path / "a.pts", face.landmarks)
    assert np.allclose(read_pts(tmp_path / "a.pts"), face.landmarks, atol=1e-4)
    lines = (tmp_path / "a.pts").read_text().splitlines()
    assert lines[:3] == ["version: 1", "n_points: 68", "{"]
    assert np.allclose(np.array(lines[3].split(), float), face.landmarks[0] + 1.0, atol=1e-4)


def test_a_mat_is_read_by_the_reader_of_aflw2000(tmp_path, face):
    write_aflw2000(tmp_path / "image00001.mat", face, SIZE[1])
    Image.new("RGB", SIZE).save(tmp_path / "image00001.jpg")
    (read,) = aflw2000(tmp_path)
    assert np.allclose(read.points, face.landmarks, atol=1e-3)
    assert np.allclose(read.pose_deg, [30.0, -10.0, 15.0], atol=1e-4)
    # Towards the viewer: the tip of the nose before the ears.
    assert read.depth_px[30] > read.depth_px[[0, 16]].max()


def test_the_pose_of_a_mat_is_a_weak_perspective_of_the_face(tmp_path, face):
    """``f Rx Ry Rz vertex + t``, y up from 1, as its authors draw it."""
    write_aflw2000(tmp_path / "a.mat", face, SIZE[1])
    stored = loadmat(tmp_path / "a.mat")
    pitch, yaw, roll, *moved, scale = stored["Pose_Para"][0].astype(float)
    turned = np.diag([1.0, -1.0, -1.0]) @ np.asarray(
        angles_to_matrix(np.rad2deg(np.array([yaw, pitch, roll], np.float32)))
    )
    origin = projected(face, face.translation_mm[None])[0]
    assert np.allclose([moved[0] - 1.0, SIZE[1] - moved[1]], origin, atol=1e-3)
    landmarks = (face.landmarks3d_mm - face.translation_mm) @ face.rotation
    drawn = scale * 1000.0 * landmarks @ turned.T + moved
    drawn[:, 1] = SIZE[1] + 1.0 - drawn[:, 1]
    # Perspective makes what is nearer larger: a tenth at the nose.
    edge = np.ptp(face.landmarks, axis=0).max()
    assert np.abs(drawn[:, :2] - stored["pt3d_68"][:2].T).max() < 0.06 * edge
    assert np.abs(drawn[:, 2] - stored["pt3d_68"][2]).max() < 0.01 * edge


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_live_link_has_its_columns_and_our_weights(tmp_path, model):
    names = model.expression_names
    weights = np.random.default_rng(0).uniform(size=(2, len(names)))
    angles = np.array([[10.0, 20.0, 30.0], [-5.0, 0.0, 1.0]])
    write_livelink(tmp_path / "a.csv", names, weights, angles, np.array([0.0, 1.5]), fps=30.0)
    rows = rows_of(tmp_path / "a.csv")
    assert tuple(rows[0]) == COLUMNS
    assert len(COLUMNS) == 2 + 52 + 9
    assert len(set(SHAPES)) == 52
    assert [row["Timecode"] for row in rows] == ["00:00:00:00.000", "00:00:01:15.000"]
    for row, own in zip(rows, weights, strict=True):
        assert row["BlendShapeCount"] == "61"
        by_name = dict(zip(names, own, strict=True))
        for name, weight in by_name.items():
            capital = name[0].upper() + name[1:]
            if capital in COLUMNS:
                assert float(row[capital]) == pytest.approx(weight, abs=1e-6)
        for name in ("browInnerUp", "cheekPuff"):
            mean = (by_name[f"{name}Left"] + by_name[f"{name}Right"]) / 2.0
            assert float(row[name[0].upper() + name[1:]]) == pytest.approx(mean, abs=1e-6)
        assert float(row["TongueOut"]) == 0.0
        assert float(row["LeftEyeYaw"]) == 0.0
    head = [float(rows[0][f"Head{name}"]) for name in ("Yaw", "Pitch", "Roll")]
    assert np.allclose(np.rad2deg(head), [10.0, 20.0, -30.0], atol=1e-3)
    covered = {name[0].upper() + name[1:] for name in names}
    assert set(SHAPES) - covered == {"BrowInnerUp", "CheekPuff", "TongueOut"}


@pytest.mark.parametrize(
    ("time", "fps", "text"),
    [
        (0.0, 60.0, "00:00:00:00.000"),
        (3723.5, 60.0, "01:02:03:30.000"),
        (1.0 / 3.0, 30.0, "00:00:00:10.000"),
        (0.01, 60.0, "00:00:00:00.600"),
        (0.99999999, 60.0, "00:00:01:00.000"),
    ],
)
def test_timecodes_count_frames(time, fps, text):
    assert timecode(time, fps) == text


def test_the_camera_record_projects_each_face(aligner, face):
    other = posed(face, aligner.model, (-20.0, 0.0, 0.0), (-90.0, 10.0, 1100.0), 450.0, MIDDLE)
    scene = make_scene([face, other], SIZE)
    record = json.loads(json.dumps(camera_record(scene), allow_nan=False))
    assert record["model"] == "PINHOLE"
    assert (record["width"], record["height"]) == SIZE
    fx, fy, cx, cy = record["params"]
    assert (fx, cx, cy) == (fy, 150.0, 100.0)
    for entry, own in zip(record["faces"], (face, other), strict=True):
        points = (own.landmarks3d_mm - own.translation_mm) @ own.rotation
        w, x, y, z = entry["qvec"]
        seen = points @ Rotation.from_quat([x, y, z, w]).as_matrix().T + entry["tvec"]
        # COLMAP's pixels: the middle of the first is 0.5.
        pixels = fx * seen[:, :2] / seen[:, 2:] + [cx, cy] - 0.5
        assert np.abs(pixels - projected(own, own.landmarks3d_mm)).max() < 0.1
