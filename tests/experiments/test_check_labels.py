"""The label check measures what it draws: exact labels score 0, a bad one comes first."""

import json

import basel_layouts as layouts
import jax.numpy as jnp
import numpy as np
import pytest
from dataset_layouts import EDGE, sample, write_300w_lp, write_ibug
from PIL import Image
from quick import quick_compilation  # noqa: F401

from data_pipelines.photos.parameters import posed_landmarks
from dfc_jax.camera import project, to_camera
from dfc_jax.data.faces import Parameters
from dfc_jax.data.lp_model import posed, read_lp_model
from dfc_jax.errors import DatasetError
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import landmarks3d
from dfc_jax.systems.dfc.template import frontal_params
from dfc_jax.types import Camera
from experiments.tools import check_labels

POSES = ([0.0, 0.1, 0.0, 225, 225, 0, 1.2e-3], [0.1, -0.5, 0.2, 240, 210, 0, 1e-3])


@pytest.fixture(scope="module")
def mean_face_points() -> np.ndarray:
    """The mean face in a photograph of 300 pixels."""
    model = load_face_model()
    params = frontal_params(model, 300)
    camera = Camera(params.focal_px, jnp.full(2, 149.5))
    return np.asarray(project(camera, to_camera(params, landmarks3d(model, model.mean_mm))))


def test_a_fit_reprojects_a_face_of_the_model_and_the_bad_one_comes_first(
    tmp_path, mean_face_points
):
    bad = mean_face_points.copy()
    bad[30:40] += [40.0, 0.0]
    for folder in ("one", "two"):
        write_ibug(tmp_path / folder, "good", mean_face_points)
    write_ibug(tmp_path / "two", "bad", bad)
    (tmp_path / "two" / "broken.pts").write_text("hello")
    folders = [str(tmp_path / name) for name in ("one", "two")]
    found = check_labels.check(folders, "ibug", tmp_path / "out")
    assert [found["sets"][folder]["n"] for folder in folders] == [1, 2]
    assert found["sets"][folders[0]]["inner"]["worst"] < 0.5
    assert found["sets"][folders[1]]["inner"]["worst"] > 3.0
    assert found["worst"][0]["name"] == "bad" and found["worst"][0]["set"] == folders[1]
    assert len(found["problems"]) == 1 and "broken.pts" in found["problems"][0]
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == found
    sheet = np.asarray(Image.open(tmp_path / "out" / "labels.png"))
    assert sheet.shape == (check_labels.TILE, 3 * check_labels.TILE, 3)


def test_sets_are_read_one_after_the_other_and_faces_taken_evenly(tmp_path):
    points = np.random.default_rng(0).uniform(50, 200, (68, 2))
    for folder in ("a", "b"):
        for n in range(7):
            write_ibug(tmp_path / folder, str(n), points)
    (tmp_path / "b" / "2.jpg").unlink()
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    names, squares, problems = check_labels.read_squares(folders, "ibug", 3)
    assert [square.face.name for square in squares] == ["0", "2", "4", "0", "4"]
    assert names == folders[:1] * 3 + folders[1:] * 2
    (problem,) = problems
    assert "2.pts: there is no photograph" in problem


def test_given_parameters_reproject_exactly(tmp_path):
    layouts.write_3ddfa(tmp_path, layouts.known_face(n_identity=199, n_expression=29))
    lp, faces = read_lp_model(tmp_path), {}
    for n, pose in enumerate(POSES):
        pose = np.asarray(pose, np.float32).astype(float)
        zero = {"shape": np.zeros(199), "expression": np.zeros(29)}
        points = posed_landmarks(lp.model, posed(lp, Parameters(pose, **zero)))
        faces[f"AFW/AFW_{n}_0"] = sample(n, pose=pose, pt2d=np.asarray(points) + 1.0, **zero)
    write_300w_lp(tmp_path / "300W_LP", faces)
    folder = str(tmp_path / "300W_LP")
    found = check_labels.check([folder], "300w-lp", tmp_path / "out", basel=str(tmp_path))
    scores = found["sets"][f"{folder}/AFW"]
    assert scores["n"] == 2 and scores["all68"]["worst"] < 0.01
    sheet = np.asarray(Image.open(tmp_path / "out" / "labels.png")).astype(int)
    assert (np.abs(sheet - check_labels.YELLOW).sum(axis=-1) < 60).sum() > EDGE


def test_nothing_usable_is_one_sentence(tmp_path):
    write_ibug(tmp_path, "one", np.zeros((68, 2)))
    with pytest.raises(DatasetError, match="nothing can be used.*one.jpg: its 68 points span"):
        check_labels.check([str(tmp_path)], "ibug", tmp_path / "out")
    assert not (tmp_path / "out").exists()
