"""300W's folders, frames of a video, Pointing'04, AFLW2000-3D annotated again, rendered pairs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from dataset_layouts import (
    picture,
    sample,
    write_aflw2000,
    write_ibug,
    write_jpeg,
    write_pointing04,
    write_reannotated,
)

from dfc_jax.data.faces import collect
from dfc_jax.data.frames import frames
from dfc_jax.data.lp import aflw2000, aflw2000_reannotated
from dfc_jax.data.pointing04 import pointing04, yaw_pitch_of
from dfc_jax.data.synth import synth
from dfc_jax.data.w300 import w300
from dfc_jax.errors import DatasetError
from dfc_jax.files import write_npz

POINTS = np.random.default_rng(0).uniform(50, 150, (68, 2)).round(3)


def test_300w_is_read_at_any_depth_and_without_mirrored_copies(tmp_path):
    for name in ("02_Outdoor/outdoor_001", "lfpw/testset/image_0001", "ibug/image_008 _1"):
        write_ibug((tmp_path / name).parent, Path(name).name, POINTS)
    write_ibug(tmp_path / "ibug", "image_008 _1_mirror", POINTS)
    (tmp_path / "ibug" / "._image_008 _1.pts").write_bytes(b"\0\5\26\7")
    faces = w300(tmp_path)
    names = ["02_Outdoor/outdoor_001", "ibug/image_008 _1", "lfpw/testset/image_0001"]
    assert [face.name for face in faces] == names
    np.testing.assert_allclose(faces[1].points, POINTS)
    assert faces[1].photo == tmp_path / "ibug/image_008 _1.jpg"


def test_300w_names_missing_photographs_and_double_annotations(tmp_path):
    write_ibug(tmp_path / "afw", "a", POINTS)
    write_ibug(tmp_path / "afw", "b", POINTS)
    (tmp_path / "afw/a.jpg").unlink()
    used, (problem,) = collect(w300(tmp_path))
    assert [face.name for face in used] == ["afw/b"] and "a.pts: there is no photo" in problem
    (tmp_path / "afw/b.PTS").write_text((tmp_path / "afw/b.pts").read_text())
    with pytest.raises(DatasetError, match=f"{tmp_path}: there are two faces afw/b"):
        w300(tmp_path)


def write_frames(folder: Path, numbers: list[int], inner: str = "") -> None:
    """Pictures ``f1.jpg`` and annotations ``v1.pts`` whose points lie in as many pixels."""
    for number in numbers:
        write_ibug(folder / inner, f"v{number}", np.full((68, 2), float(number)))
        (folder / inner / f"v{number}.jpg").unlink()
        write_jpeg(folder / f"f{number}.jpg", picture(number, 60))


@pytest.mark.parametrize("inner", ["", "annot"])
def test_frames_come_in_their_order_with_the_picture_of_their_number(tmp_path, inner):
    write_frames(tmp_path, [10, 9, 1], inner)
    write_jpeg(tmp_path / "f2.jpg", picture(0, 60))
    faces = list(frames(tmp_path))
    assert [face.photo.name for face in faces] == ["f1.jpg", "f9.jpg", "f10.jpg"]
    assert [face.points[0, 0] for face in faces] == [1.0, 9.0, 10.0]
    assert [face.name for face in faces] == ["v1", "v9", "v10"]


def test_frames_without_a_picture_or_twice_are_named(tmp_path):
    write_frames(tmp_path, [1, 2])
    (tmp_path / "f1.jpg").unlink()
    used, (problem,) = collect(frames(tmp_path))
    assert [face.name for face in used] == ["v2"]
    assert "v1.pts: there is no picture of frame 1" in problem
    write_ibug(tmp_path, "000002", POINTS)
    with pytest.raises(DatasetError, match=f"{tmp_path}: there are two faces of frame 2"):
        frames(tmp_path)
    (tmp_path / "000002.pts").rename(tmp_path / "none.pts")
    with pytest.raises(DatasetError, match="none.pts: its name has no number"):
        frames(tmp_path)


# --- Pointing'04 ---


def test_pointing04_has_angles_of_the_name_and_the_annotated_box(tmp_path):
    write_pointing04(
        tmp_path, {"personne02141-15+0": (90, 80, 61, 70), "personne01146+0-75": (100, 90, 60, 70)}
    )
    write_jpeg(tmp_path / "Front/personne01146+0+0.jpg", picture(0, 60))
    first, second = pointing04(tmp_path)
    assert (first.name, second.name) == ("personne01146+0-75", "personne02141-15+0")
    np.testing.assert_allclose(first.pose_deg, [-75.0, 0.0, np.nan], atol=1e-9)
    np.testing.assert_allclose(second.pose_deg, [0.0, -15.0, np.nan], atol=1e-6)
    np.testing.assert_array_equal(first.landmark_box, [70.0, 55.0, 60.0, 70.0])
    np.testing.assert_array_equal(second.landmark_box, [59.5, 45.0, 61.0, 70.0])
    assert np.isnan(first.points).all() and first.image().shape == (200, 200, 3)


def test_marks_beside_the_axes_are_where_the_face_looks():
    # sin(yaw) = cos(60) sin(30) = 1/4, tan(pitch) = tan(60) / cos(30) = 2.
    expected = np.rad2deg([np.arcsin(0.25), np.arctan(2.0)])
    np.testing.assert_allclose(yaw_pitch_of(30.0, 60.0), expected)
    np.testing.assert_allclose(yaw_pitch_of(-90.0, 0.0), [-90.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(yaw_pitch_of(90.0, 30.0), [60.0, 90.0], atol=1e-6)
    np.testing.assert_allclose(yaw_pitch_of(0.0, -90.0), [0.0, -90.0], atol=1e-6)


def test_broken_files_of_pointing04_are_named(tmp_path):
    names = [f"personne0114{n}+0+0" for n in range(5)]
    write_pointing04(tmp_path, dict.fromkeys(names, (90, 80, 60, 70)))
    person = tmp_path / "Person01"
    (person / f"{names[0]}.jpg").unlink()
    (person / f"{names[1]}.txt").unlink()
    (person / f"{names[2]}.txt").write_text("person.jpg\n\nFace\n90\n80\n")
    text = person / f"{names[3]}.txt"
    text.write_text(text.read_text().replace("60", "0"))
    used, problems = collect(pointing04(tmp_path))
    assert [face.name for face in used] == names[4:]
    words = ("no photograph", "cannot be read", "does not say where", "its box is empty")
    for name, word, problem in zip(names, words, problems, strict=False):
        assert name in problem and word in problem
    write_pointing04(tmp_path / "more", {names[4]: (90, 80, 60, 70)})
    (tmp_path / "more/Person01").rename(tmp_path / "Person02")
    with pytest.raises(DatasetError, match=r": there are two faces personne01144\+0\+0"):
        pointing04(tmp_path)


# --- AFLW2000-3D annotated again ---


@pytest.mark.parametrize("rows", [2, 3])
def test_reannotated_points_come_in_the_order_of_the_list(tmp_path, rows):
    write_aflw2000(tmp_path, {"image00002": sample(1), "image00004": sample(2)})
    points = np.random.default_rng(0).uniform(50, 150, (2, rows, 68))
    write_reannotated(tmp_path, points, ["image00004", "image00002"])
    faces = aflw2000_reannotated(tmp_path)
    assert [face.name for face in faces] == ["image00004", "image00002"]
    face, original = faces[0], aflw2000(tmp_path)[1]
    np.testing.assert_allclose(face.points, points[0, :2].T - 1.0, rtol=1e-6)
    same = dataclasses.replace(original, points=face.points, depth_px=None, labels="reannotated")
    assert face == same
    (tmp_path / "AFLW2000-3D_crop.list").unlink()
    np.testing.assert_allclose(
        aflw2000_reannotated(tmp_path)[0].points, points[0, :2].T - 1.0, rtol=1e-6
    )
    assert aflw2000_reannotated(tmp_path)[0].name == "image00002"


def test_broken_reannotations_are_named(tmp_path):
    write_aflw2000(tmp_path, {"image00002": sample(1), "image00004": sample(2)})
    stored = tmp_path / "AFLW2000-3D-Reannotated.pts68.npy"
    with pytest.raises(DatasetError, match=f"{stored}: there is no such file"):
        aflw2000_reannotated(tmp_path)
    points = np.full((2, 2, 68), 50.0)
    points[1, 0, 5] = np.nan
    write_reannotated(tmp_path, points)
    used, (problem,) = collect(aflw2000_reannotated(tmp_path))
    assert [face.name for face in used] == ["image00002"] and "image00004 are not" in problem
    for broken, words in (
        ((points[:1], None), "has points of 1 faces, but there are 2"),
        ((points, ["image00002"] * 2), "there are two faces image00002"),
        ((points[..., :60], None), r"is \(2, 2, 60\)"),
    ):
        write_reannotated(tmp_path, *broken)
        with pytest.raises(DatasetError, match=words):
            aflw2000_reannotated(tmp_path)
    stored.write_bytes(stored.read_bytes()[:200])
    with pytest.raises(DatasetError, match=f"{stored}: not a readable .npy file"):
        aflw2000_reannotated(tmp_path)


# --- dfc synth ---


def write_pair(path: Path, **given: np.ndarray) -> dict[str, np.ndarray]:
    """A file as ``dfc synth`` writes it; its face fills the left half, covered in the first row."""
    face = np.zeros((8, 8), bool)
    face[:, :4] = True
    occluded = np.zeros((8, 8), bool)
    occluded[0] = True
    arrays: dict[str, np.ndarray] = {
        "source": picture(0, 8),
        "target": picture(1, 8),
        "flow": np.zeros((8, 8, 2), np.float32),
        "matchable": face,
        "occluded": occluded,
        "points": np.full((68, 2), 3.0, np.float32),
        "angles_deg": np.array([30.0, 5.0, -4.0], np.float32),
        "face": face,
        "template_flow": np.ones((8, 8, 2), np.float32),
        "template_matchable": face,
    }
    arrays |= given
    write_npz(path, **arrays)
    return arrays


def test_rendered_pairs_have_everything_of_their_source(tmp_path):
    written = write_pair(tmp_path / "pair_00000.npz")
    (face,) = synth(tmp_path)
    assert face.name == "pair_00000" and face.jaw == "surface"
    np.testing.assert_array_equal(face.image(), written["source"])
    np.testing.assert_array_equal(face.points, written["points"])
    np.testing.assert_array_equal(face.pose_deg, [30.0, 5.0, -4.0])
    assert face.mask is not None
    mask, counted = face.mask()
    assert mask[1:, :4].all() and mask.sum() == 28 and counted.all()
    truth = face.dense()
    np.testing.assert_array_equal(truth.matchable, mask)
    np.testing.assert_array_equal(truth.flow, written["template_flow"])


def test_broken_pairs_are_named(tmp_path):
    write_pair(tmp_path / "pair_00000.npz", points=np.zeros((21, 2)))
    write_npz(tmp_path / "pair_00001.npz", source=picture(0, 8))
    write_pair(tmp_path / "pair_00002.npz")
    (tmp_path / "pair_00003.npz").write_bytes((tmp_path / "pair_00002.npz").read_bytes()[:500])
    used, problems = collect(synth(tmp_path))
    assert [face.name for face in used] == ["pair_00002"]
    for word, problem in zip(("points is", "has no points", "not a read"), problems, strict=True):
        assert word in problem
