"""Readers return what the files of each data set mean, in our pixels, and name what is broken."""

import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from dataset_layouts import (
    Sample,
    picture,
    sample,
    tfds_record,
    write_300w_lp,
    write_aflw2000,
    write_cfp,
    write_facesynthetics,
    write_fasseg,
    write_ibug,
    write_jpeg,
    write_tfds,
)
from paths import extra_module, shared_data
from PIL import Image
from scipy.io import savemat

from data_pipelines.photos.sets import open_sets
from data_pipelines.photos.squares import read_square
from data_pipelines.sources import tfds
from data_pipelines.sources.layouts import open_faces
from data_pipelines.sources.tfds import tfds_faces
from dfc_jax.commands.evaluate import LAYOUTS
from dfc_jax.data import layouts
from dfc_jax.data.cfp import cfp
from dfc_jax.data.faces import AnnotatedFace, FaceSet, collect
from dfc_jax.data.facesynthetics import facesynthetics
from dfc_jax.data.fasseg import fasseg
from dfc_jax.data.ibug import ibug, read_ibug
from dfc_jax.data.layouts import all_readers
from dfc_jax.data.lp import LP_EDGE_PX, aflw2000, w300lp
from dfc_jax.data.masks import box_of_mask, read_mask
from dfc_jax.errors import DatasetError
from dfc_jax.evaluation.protocols import intersection_over_union
from dfc_jax.landmarks68 import MIRROR
from dfc_jax.morphable.linear import landmarks3d
from dfc_jax.ops.rotations import angles_to_matrix, matrix_to_angles

RIGHT_EYE, LEFT_EYE, NOSE_TIP, RIGHT_EAR, LEFT_EAR = 36, 45, 30, 0, 16
LP_FACES = {
    "HELEN/HELEN_2_1": sample(2),
    "AFW/AFW_1_0": sample(0),
    "AFW/AFW_1_10": sample(1),
}
AFLW_FACES = {"image00050": sample(3), "image00002": sample(4)}


@pytest.fixture(scope="module")
def w300lp_folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("300W_LP")
    write_300w_lp(root, LP_FACES, flipped=["AFW/AFW_1_0"])
    return root


@pytest.fixture(scope="module")
def aflw_folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("AFLW2000")
    write_aflw2000(root, AFLW_FACES)
    return root


def check_parameters(face: AnnotatedFace, truth: Sample) -> None:
    assert face.parameters is not None and face.pose_deg is not None
    pitch, yaw, roll = np.rad2deg(truth.pose[:3])
    np.testing.assert_allclose(face.pose_deg, [yaw, pitch, roll], rtol=1e-5)
    # Pose_Para is stored in single precision.
    np.testing.assert_allclose(face.parameters.pose, truth.pose, rtol=1e-6)
    np.testing.assert_allclose(face.parameters.shape, truth.shape, rtol=1e-6)
    np.testing.assert_allclose(face.parameters.expression, truth.expression, rtol=1e-6)


def test_a_folder_among_others_names_its_layout(w300lp_folder, tmp_path):
    folder = tmp_path / "a=b"
    folder.mkdir()
    rows = "\n".join(f"{10 + n} 20" for n in range(68))
    (folder / "a.pts").write_text(f"{{\n{rows}\n}}")
    write_jpeg(folder / "a.jpg", picture(0, 60))
    faces = open_sets([str(folder), f"300w-lp={w300lp_folder}"], "ibug")
    assert [face.name for face in faces] == ["a", *sorted(LP_FACES)]


def test_ibug_faces_are_those_of_read_ibug(tmp_path):
    rows = "\n".join("10 20" for _ in range(67))
    for name in ("b", "a"):
        (tmp_path / f"{name}.pts").write_text(f"{{\n{rows}\n31 42\n}}")
        write_jpeg(tmp_path / f"{name}.jpg", picture(0, 60))
    faces, examples = list(ibug(tmp_path)), read_ibug(tmp_path)
    assert [face.name for face in faces] == ["a", "b"]
    assert [face.photo for face in faces] == [example.photo for example in examples]
    np.testing.assert_array_equal(faces[0].points, examples[0].points)
    np.testing.assert_array_equal(faces[0].points[-1], [30.0, 41.0])


def test_300w_lp_is_read_set_by_set_in_order_with_points_from_zero(w300lp_folder):
    faces = w300lp(w300lp_folder)
    assert [face.name for face in faces] == sorted(LP_FACES)
    for face in faces:
        np.testing.assert_allclose(face.points, LP_FACES[face.name].pt2d - 1.0)
        check_parameters(face, LP_FACES[face.name])
        assert face.jaw == "contour"
        assert face.image().shape == (LP_EDGE_PX, LP_EDGE_PX, 3)


def test_300w_lp_has_three_annotations_and_flipped_copies(w300lp_folder):
    flipped = [face.name for face in w300lp(w300lp_folder, flipped=True)]
    assert flipped == sorted([*LP_FACES, "AFW_Flip/AFW_1_0"])
    truth = LP_FACES["AFW/AFW_1_0"]
    for points, jaw in (("pts_2d", "contour"), ("pts_3d", "surface")):
        face = w300lp(w300lp_folder, points)[0]
        np.testing.assert_allclose(face.points, getattr(truth, points) - 1.0)
        assert face.jaw == jaw
    with pytest.raises(ValueError, match="no points 'pt3d'"):
        w300lp(w300lp_folder, "pt3d")


def test_aflw2000_has_points_and_depth_of_pt3d_68(aflw_folder):
    faces = aflw2000(aflw_folder)
    assert [face.name for face in faces] == sorted(AFLW_FACES)
    for face in faces:
        truth = AFLW_FACES[face.name]
        np.testing.assert_allclose(face.points, truth.pts_3d - 1.0, atol=1e-4)
        np.testing.assert_allclose(face.depth_px, truth.depth, atol=1e-4)
        check_parameters(face, truth)
        assert face.jaw == "surface"


def half_a_face() -> np.ndarray:
    """The points (68, 2) of a face, one half of it NaN."""
    points = np.random.default_rng(0).uniform([30.0, 30.0], [95.0, 170.0], (68, 2))
    return np.where((np.arange(68) <= MIRROR)[:, None], points, np.nan)


def test_cfp_has_the_profiles_and_not_the_frontal_faces(tmp_path):
    half = half_a_face()
    write_cfp(tmp_path / "train", {"001_01_frontal": half, "001_01_profile": half})
    (face,) = cfp(tmp_path / "train")
    assert face.name == "001_01_profile" and face.profile and face.jaw == "surface"
    np.testing.assert_allclose(face.points, half, rtol=1e-6)
    assert face.image().shape == (200, 200, 3) and face.pose_deg is None
    low, high = np.nanmin(half, axis=0), np.nanmax(half, axis=0)
    np.testing.assert_allclose(face.landmark_box, [*low, *(high - low)], rtol=1e-5)


def test_a_broken_table_of_cfp_is_named_and_faces_without_points_are_left_out(tmp_path):
    folder, table = tmp_path / "train", tmp_path / "train.npz"
    half = half_a_face()
    write_cfp(folder, {"a_profile": np.full((68, 2), np.nan), "b_profile": half})
    used, (problem,) = collect(cfp(f"{folder}/"))
    assert [face.name for face in used] == ["b_profile"] and "a_profile.jpg: too few" in problem
    for content, words in (
        ({"names": ["a"]}, "not a readable table"),
        ({"names": ["a"], "points": np.zeros((2, 68, 2))}, "no names and points"),
    ):
        np.savez(table, **content)
        with pytest.raises(DatasetError, match=f"{table}: .*{words}"):
            cfp(folder)
    table.unlink()
    with pytest.raises(DatasetError, match=r"train\.npz: there is no such file"):
        cfp(folder)


def test_fasseg_has_the_pose_of_the_name_and_the_box_of_the_mask(tmp_path):
    faces = {"p01140+0-90": (40, 150), "p01146-5+15": (100, 199), "test_1": (60, 80)}
    write_fasseg(tmp_path, faces)
    profile, oblique, frontal = fasseg(tmp_path)
    assert [face.name for face in (profile, oblique, frontal)] == list(faces)
    np.testing.assert_array_equal(profile.pose_deg, [-90.0, 0.0, np.nan])
    np.testing.assert_array_equal(oblique.pose_deg, [15.0, -5.0, np.nan])
    assert frontal.pose_deg is None and np.isnan(frontal.points).all()
    # 40 pixels from eyes to mouth are a box of 1.98 of that; wider skin is cut on its far side.
    edge = 1.98 * 40.0
    np.testing.assert_allclose(profile.landmark_box, [40 - edge / 2, 46, edge, edge], atol=0.5)
    np.testing.assert_allclose(frontal.landmark_box, [80 - edge, 46, edge, edge], atol=0.5)
    assert read_square(profile).image.shape == (192, 192, 3)


def test_masks_without_a_face_and_of_colours_are_named(tmp_path):
    write_fasseg(tmp_path, {name: (60, 80) for name in ("a", "b", "p01146+0+0")})
    Image.fromarray(np.zeros((200, 200), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(tmp_path / "b.png")
    used, problems = collect(fasseg(tmp_path))
    assert [face.name for face in used] == ["p01146+0+0"]
    for problem, words in zip(problems, ("a.png: .*no eyes", "b.png: not a reada"), strict=True):
        with pytest.raises(DatasetError, match=words):
            raise DatasetError(problem)


def test_heads_of_fasseg_without_poses_have_masks(tmp_path):
    write_fasseg(tmp_path, {"test_1": (60, 80), "p01146+0+0": (60, 80)})
    posed, other = fasseg(tmp_path)
    assert other.pose_deg is None and other.mask is not None
    np.testing.assert_array_equal(posed.pose_deg[:2], [0.0, 0.0])


def test_some_persons_of_fasseg_are_those_of_a_pattern(tmp_path):
    write_fasseg(tmp_path, {f"p0{n}146+0+0": (60, 80) for n in (1, 2, 4)})
    some = fasseg(tmp_path / "p0[12]*")
    assert [face.name for face in some] == ["p01146+0+0", "p02146+0+0"]
    with pytest.raises(DatasetError, match=r"p09\*.png: holds no .png masks"):
        fasseg(tmp_path / "p09*.png")


def test_facesynthetics_has_the_68_points_of_its_70_from_zero(tmp_path):
    points = np.random.default_rng(0).uniform(50, 150, (70, 2)).round(3)
    write_facesynthetics(tmp_path, "000000", points)
    (face,) = facesynthetics(tmp_path)
    np.testing.assert_allclose(face.points, points[:68])
    assert face.jaw == "surface" and face.image().shape == (200, 200, 3)
    write_ibug(tmp_path, "000001", points[:68])
    with pytest.raises(DatasetError, match=r"000001\.pts: a \.pts file needs 70 points"):
        facesynthetics(tmp_path)[1]


def test_one_bad_file_does_not_stop_the_rest(tmp_path):
    names = [f"AFW/AFW_{n}_0" for n in range(6)]
    write_300w_lp(tmp_path, {name: sample(n) for n, name in enumerate(names)})
    good = sample(0)
    (tmp_path / f"{names[0]}.mat").write_bytes(b"MATLAB 5.0")
    savemat(tmp_path / f"{names[1]}.mat", {"pt2d": good.pt2d})
    savemat(tmp_path / f"{names[2]}.mat", {"pt2d": np.full((2, 68), np.nan)})
    (tmp_path / f"{names[3]}.jpg").unlink()
    (tmp_path / f"{names[4]}.jpg").write_bytes(b"\xff\xd8\xff")
    squares, problems = collect(w300lp(tmp_path), read_square)
    assert [square.face.name for square in squares] == [names[5]]
    expected = ("readable MATLAB", r"pt2d is \(68, 2\)", "not finite", "no photograph", "not an im")
    for problem, name, words in zip(problems, names, expected, strict=False):
        with pytest.raises(DatasetError, match=words):
            raise DatasetError(problem)
        assert name in problem and "\n" not in problem
    assert len(problems) == 5


@pytest.mark.parametrize("layout", tuple(layouts.READERS))
def test_an_empty_or_missing_folder_is_named(layout, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match=f"{folder}.*: .*"):
            open_faces(layout, folder)


def test_an_unknown_layout_lists_those_there_are(tmp_path):
    with pytest.raises(DatasetError, match="choose from ibug, 300w-lp, .*, tfds:the300w_lp"):
        open_faces("tfds:mnist", tmp_path)


def test_several_folders_open_as_one_set(tmp_path):
    points = np.random.default_rng(0).uniform(50, 200, (68, 2))
    for folder, names in (("b", "12"), ("a", "3")):
        for name in names:
            write_ibug(tmp_path / folder, name, points)
    (tmp_path / "b" / "1.jpg").unlink()
    faces = open_sets([tmp_path / "b", tmp_path / "a"], "ibug")
    assert len(faces) == 3 and [face.name for face in faces[1:]] == ["2", "3"]
    used, (problem,) = collect(faces)
    assert [face.name for face in used] == ["2", "3"] and "1.pts: there is no photo" in problem


# --- TFDS ---


def stub_tfds(monkeypatch, records: list[dict]) -> list[dict]:
    """A `tensorflow_datasets` with one prepared set; returns what it is asked for."""
    asked: list[dict] = []

    def data_source(name, **keywords):
        asked.append({"name": name, **keywords})
        return records

    decode = types.SimpleNamespace(SkipDecoding=lambda: "skip")
    stub = types.SimpleNamespace(data_source=data_source, decode=decode)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stub)
    monkeypatch.setitem(sys.modules, "array_record", types.SimpleNamespace())
    return asked


def check_the300w_lp(faces: FaceSet, folder: Path, order: list[str]) -> None:
    """TFDS' faces are those of the original folder; `order` says which is which."""
    originals = {face.name: face for face in w300lp(folder)}
    assert len(faces) == len(originals)
    for number, (face, name) in enumerate(zip(faces, order, strict=True)):
        assert face.name == f"the300w_lp/train/{number:06d}"
        np.testing.assert_allclose(face.points, originals[name].points, atol=1e-4)
        check_parameters(face, LP_FACES[name])
        difference = face.image().astype(float) - originals[name].image()
        assert np.abs(difference).mean() < 1.0  # two JPEG decoders


def test_tfds_faces_are_those_of_the_original_folder(monkeypatch, w300lp_folder):
    order = sorted(LP_FACES, reverse=True)
    records = [tfds_record(LP_FACES[name], "the300w_lp") for name in order]
    asked = stub_tfds(monkeypatch, records)
    check_the300w_lp(tfds_faces("the300w_lp", "data"), w300lp_folder, order)
    assert asked[0]["name"] == "the300w_lp" and asked[0]["split"] == "train"
    assert asked[0]["data_dir"] == "data" and asked[0]["download"] is False
    assert asked[0]["decoders"] == {"image": "skip"}
    for points in ("pts_2d", "pts_3d"):
        face, original = (
            tfds_faces("the300w_lp", points=points)[2],
            w300lp(w300lp_folder, points)[0],
        )
        np.testing.assert_allclose(face.points, original.points, atol=1e-4)
        assert face.jaw == original.jaw


def test_aflw2k3d_of_tfds_is_aflw2000(monkeypatch, aflw_folder):
    records = [tfds_record(AFLW_FACES[name], "aflw2k3d") for name in sorted(AFLW_FACES)]
    stub_tfds(monkeypatch, records)
    for face, original in zip(open_faces("tfds:aflw2k3d", "x"), aflw2000(aflw_folder), strict=True):
        np.testing.assert_allclose(face.points, original.points, atol=1e-4)
        np.testing.assert_allclose(face.depth_px, original.depth_px, atol=1e-4)
        assert face.jaw == "surface" and face.parameters is None


def test_dfc_evaluate_has_the_layouts_of_tfds():
    """They are named where the packages are installed."""
    assert all_readers() == {**tfds.READERS, **layouts.READERS}
    assert "tfds:aflw2k3d" in LAYOUTS and "tfds:mnist" not in LAYOUTS


def test_bad_tfds_records_are_named(monkeypatch):
    good = tfds_record(sample(0), "the300w_lp")
    nan = {**good, "pose_params": np.full(7, np.nan)}
    records = [{**good, "image": b""}, {"image": good["image"]}, nan, {**good, "image": None}, good]
    stub_tfds(monkeypatch, records)
    squares, problems = collect(tfds_faces("the300w_lp"), read_square)
    assert [square.face.name for square in squares] == ["the300w_lp/train/000004"]
    words = ("image is damaged", "landmarks_origin is", "pose_params holds", "no encoded image")
    for number, (problem, word) in enumerate(zip(problems, words, strict=True)):
        assert problem.startswith(f"the300w_lp/train/{number:06d}: ") and word in problem


@pytest.mark.parametrize("module", ["tensorflow_datasets", "array_record"])
def test_a_missing_module_is_named_with_the_extra(monkeypatch, module):
    stub_tfds(monkeypatch, [])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatasetError, match=rf"{module} is needed.*pip install 'dfc_jax\[tfds\]'"):
        tfds_faces("the300w_lp")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Both data sets, prepared by TFDS itself."""
    # importlib_resources is what TFDS' writer (not its reader) forgets to require.
    for module in ("tensorflow_datasets", "array_record", "importlib_resources"):
        extra_module(module, "tfds")
    root = tmp_path_factory.mktemp("tensorflow_datasets")
    write_tfds(root, "the300w_lp", LP_FACES)
    write_tfds(root, "aflw2k3d", AFLW_FACES)
    return root


def test_files_that_tfds_wrote_are_read_without_tensorflow(prepared, w300lp_folder):
    faces = tfds_faces("the300w_lp", prepared)
    originals = list(w300lp(w300lp_folder))

    def same(face: AnnotatedFace) -> str:
        return min(originals, key=lambda o: np.abs(o.points - face.points).max()).name

    check_the300w_lp(faces, w300lp_folder, [same(face) for face in faces])
    first = aflw2000_by_depth(tfds_faces("aflw2k3d", prepared)[0])
    np.testing.assert_allclose(first[0].points, first[1].pts_3d - 1.0, atol=1e-4)
    assert "tensorflow" not in sys.modules


def aflw2000_by_depth(face: AnnotatedFace) -> tuple[AnnotatedFace, Sample]:
    return face, min(AFLW_FACES.values(), key=lambda s: np.abs(s.depth - face.depth_px).max())


def test_a_set_that_is_not_prepared_says_how_to(prepared, tmp_path):
    with pytest.raises(DatasetError, match="tfds build the300w_lp --file_format array_record"):
        tfds_faces("the300w_lp", tmp_path)
    with pytest.raises(DatasetError, match="Unknown split 'test'"):
        tfds_faces("the300w_lp", prepared, split="test")


# --- real files ---


def test_poses_of_real_files_take_their_points_back_to_one_face():
    """`Pose_Para`'s angles, scale and translation undone: three people, one set of eye corners.

    Wrong signs, orders or directions put them tens of millimetres apart.
    """
    heads = []
    for face in aflw2000(shared_data("aflw2000")):
        pitch, yaw, roll, x, y, z, scale = face.parameters.pose
        rotation = np.asarray(angles_to_matrix(jnp.rad2deg(jnp.array([yaw, pitch, roll]))))
        camera_px = np.stack(
            [
                face.points[:, 0] - (x - 1.0),
                face.points[:, 1] - (LP_EDGE_PX - y),
                z - face.depth_px,
            ],
            axis=-1,
        )
        heads.append(camera_px @ rotation / (1000.0 * scale))
    heads_mm = np.stack(heads)
    eyes, ears = heads_mm[:, [RIGHT_EYE, LEFT_EYE]], heads_mm[:, [RIGHT_EAR, LEFT_EAR]]
    np.testing.assert_allclose(eyes, eyes.mean(axis=0) + 0 * eyes, atol=2.0)
    np.testing.assert_allclose(eyes[:, 0], eyes[:, 1] * [-1, 1, 1], atol=2.0)
    np.testing.assert_allclose(ears, ears.mean(axis=0) + 0 * ears, atol=2.5)
    # The subject's left is +x, and the nose is in front.
    assert (eyes[:, 1, 0] > 40.0).all()
    assert (heads_mm[:, NOSE_TIP, 2] > eyes[..., 2].max() + 35.0).all()


def rigid(model_mm: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) of the similarity that takes points (n, 3) nearest to others."""
    u, _, v = np.linalg.svd((camera - camera.mean(axis=0)).T @ (model_mm - model_mm.mean(axis=0)))
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v


def test_true_poses_of_aflw2000_are_those_of_its_points_in_space(model):
    """Our mean face laid onto `pt3d_68` without any projection; brows, nose and eyes, which the
    expression hardly moves. The zero of the pitch is a few degrees from Basel's."""
    some = slice(17, 48)
    mean_mm = np.asarray(landmarks3d(model, model.mean_mm))[some]
    for face in aflw2000(shared_data("aflw2000")):
        camera = np.concatenate([face.points, -face.depth_px[:, None]], axis=1)[some]
        angles = np.asarray(matrix_to_angles(jnp.asarray(rigid(mean_mm, camera))))
        np.testing.assert_allclose(angles, face.pose_deg, atol=2.5)


def test_boxes_of_masks_are_near_those_of_the_points_where_a_set_has_both():
    folder, near = shared_data("facesynthetics"), []
    for face in facesynthetics(folder):
        mask = read_mask(folder / f"{face.name}_seg.png")
        eyes, mouth = np.isin(mask, (3, 4)), np.isin(mask, (9, 10, 11))
        skin = eyes | mouth | np.isin(mask, (1, 2, 7, 8, 12, 14))
        box = box_of_mask(eyes, mouth, skin)
        if np.isfinite(box).all():
            near.append(intersection_over_union(box, face.landmark_box))
    assert len(near) > 40 and np.median(near) > 0.8 and np.mean(np.array(near) > 0.6) > 0.9
