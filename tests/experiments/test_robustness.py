"""The robustness program: what it disturbs, how it scores, what it writes."""

import dataclasses
import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from dataset_layouts import write_fasseg
from faces import mean_aligner
from paths import ASTRONAUT
from PIL import Image
from quick import quick_compilation  # noqa: F401

import dfc_jax
from dfc_jax.crops import box_of_points
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import N_JAW
from dfc_jax.morphable.file import load_face_model
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.ops.sampling import bilinear_sample
from dfc_jax.systems.dfc.template import frontal_params
from experiments import robustness
from experiments.robustness import errors, misplaced, rotated, score, view_of


@pytest.fixture
def view():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :200]
    image = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    return view_of(image, rng.uniform(70.0, 130.0, (68, 2)))


def test_wrong_boxes_stay_within_their_bounds_and_their_shape(view) -> None:
    rng = np.random.default_rng(1)
    edge, middle = max(view.box[2:]), view.box[:2] + view.box[2:] / 2
    boxes = np.array([misplaced(view, rng, 0.15).box for _ in range(500)])
    growth = boxes[:, 2:] / view.box[2:]
    moved = boxes[:, :2] + boxes[:, 2:] / 2 - middle
    np.testing.assert_allclose(growth[:, 0], growth[:, 1])
    for values in (growth - 1.0, moved / edge):
        assert 0.14 < np.abs(values).max() <= 0.15 and np.abs(values.mean()) < 0.02


@pytest.mark.parametrize("angle", [0, 30, 90, 180])
def test_points_turn_with_the_picture(view, angle: int) -> None:
    turned = rotated(view, angle)
    # Red and green say where a pixel was before.
    before = bilinear_sample(turned.image.astype(np.float32), turned.points.astype(np.float32))[
        :, :2
    ]
    np.testing.assert_allclose(before, view.points, atol=1.0)
    np.testing.assert_array_equal(turned.box, box_of_points(turned.points))
    if angle == 0:
        np.testing.assert_allclose(turned.points, view.points)


def test_errors_count_what_is_visible_and_what_is_missing(view) -> None:
    seen = np.arange(68) % 2 == 0
    half = view_of(view.image, view.points, seen)
    assert half.counts.sum() == (68 - N_JAW) // 2 and not half.counts[:N_JAW].any()
    off = np.where(half.counts[:, None], [3.0, 4.0], [50.0, 0.0])
    face = SimpleNamespace(landmarks=view.points + off)
    found = errors([half, half], [face, None])
    expected = 100.0 * 5.0 / np.sqrt(np.prod(view.box[2:]))
    np.testing.assert_allclose(found, [expected, np.inf])
    scores = score(found)
    assert scores["mean"] == pytest.approx(expected)
    assert scores["over_8"] == np.mean([expected > 8.0, True])
    assert score(np.array([np.inf]))["mean"] is None


@pytest.mark.slow
def test_program_writes_figures_and_pictures(tmp_path, monkeypatch) -> None:
    """With an aligner that finds the same face in every crop."""
    monkeypatch.setattr(dfc_jax, "load", lambda weights: mean_aligner())
    for name, value in {"YAWS_DEG": (60,), "ROTATIONS_DEG": (0, 90), "ROTATED": 1}.items():
        monkeypatch.setattr(robustness, name, value)
    render = view_of(np.zeros((128, 128, 3), np.uint8), np.indices((4, 17)).reshape(2, 68).T + 40.0)
    render = dataclasses.replace(render, pose_deg=np.array([60.0, 0.0, 0.0]))
    monkeypatch.setattr(robustness, "rendered", lambda aligner, count: {60: [render] * 3, 90: []})
    aligner, image = mean_aligner(), np.asarray(Image.open(ASTRONAUT))
    # The crop that shows the mean face, as its box is cut, where the astronaut's is.
    inside = aligner(image, boxes=[np.array([180.0, 60.0, 90.0, 110.0])])[0].landmarks
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(image).save(photos / "face.jpg")
    rows = "\n".join(f"{x + 1:.5f} {y + 1:.5f}" for x, y in inside)
    (photos / "face.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    found = robustness.measure(str(photos), tmp_path / "out")
    assert found["n"] == 1 and set(found["rotation"]) == {"0", "90"} and set(found["yaw"]) == {"60"}
    assert found["rotation"]["0"]["mean"] < found["rotation"]["90"]["mean"]
    assert found["boxes"]["true"]["mean"] < found["boxes"]["wrong"]["mean"]
    assert list(found["photographs"].values()) == [found["boxes"]["true_recropped"]["mean"]]
    assert set(found["rendered_yaw"]) == {"60"} and found["rendered_yaw"]["60"]["n"] == 3
    # The aligner says of every crop that it is frontal.
    assert found["pose"]["photographs"] is None
    assert found["pose"]["rendered"]["yaw"]["mean"] == pytest.approx(60.0, abs=0.5)
    assert found["pose"]["turned"]["yaw"]["mean"] == pytest.approx(60.0, abs=4.0)
    (turned_yaw,) = found["pose"]["turned"]["curve"].values()
    assert turned_yaw["n"] == 1 and turned_yaw["true"] == pytest.approx(60.0, abs=4.0)
    assert json.loads((tmp_path / "out" / "robustness.json").read_text()) == found
    tile = robustness.TILE
    for name in ("faces.png", "turned.png"):
        picture = np.asarray(Image.open(tmp_path / "out" / name))
        assert picture.shape == (tile, robustness.COLUMNS * tile, 3) and picture.std() > 10
        mesh, mask = picture[:, :tile].astype(int), picture[:, tile : 2 * tile].astype(int)
        assert np.abs(mesh - mask).max() > 100, "mesh and mask look alike"
    for name in ("robustness.png", "pose.png"):
        assert np.asarray(Image.open(tmp_path / "out" / name)).std() > 5


@pytest.mark.slow
def test_renders_are_sorted_by_yaw_and_hidden_points_do_not_count(monkeypatch) -> None:
    monkeypatch.setattr(robustness, "YAWS_DEG", (10, 80))
    views = robustness.rendered(mean_aligner(), 12)
    assert views[10] or views[80]
    for yaw, those in views.items():
        for view in those:
            # The nearer the profile, the nearer the eyes' outer corners to each other.
            apart = abs(view.points[45, 0] - view.points[36, 0]) / view.box[3]
            assert (apart > 0.5) == (yaw == 10)
            assert 0 < view.counts.sum() and not view.counts[:N_JAW].any()
            assert yaw == 10 or not (view.counts[36] and view.counts[45])
            # The nose points to where the true yaw says.
            nose, eyes = view.points[30, 0], view.points[[36, 45], 0].mean()
            assert abs(abs(view.pose_deg[0]) - yaw) <= robustness.YAW_WIDTH_DEG
            assert yaw == 10 or (view.pose_deg[0] > 0) == (nose < eyes)


def test_a_pose_is_that_for_a_camera_which_looks_at_the_face() -> None:
    """A face right of the picture's middle, turned to that middle, looks into the camera."""
    yaw = 12.0
    params = frontal_params(load_face_model()).replace(
        rotation=angles_to_rotvec(jnp.array([yaw, 0.0, 0.0])), focal_px=jnp.float32(300.0)
    )
    middle, at = jnp.array([63.5, 63.5]), 63.5 + 300.0 * np.tan(np.deg2rad(yaw))
    towards = robustness.angles_towards(jnp.array([at, 63.5]), params, middle)
    np.testing.assert_allclose(towards, 0.0, atol=1e-3)
    same = robustness.angles_towards(middle, params, middle)
    np.testing.assert_allclose(same, [yaw, 0.0, 0.0], atol=1e-3)


def test_a_known_pose_stays_with_the_picture_until_it_is_turned(tmp_path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "a.png")
    points, pose = np.random.default_rng(0).uniform(70.0, 130.0, (68, 2)), np.array([30.0, 5, 1])
    points[40:] = np.nan
    face = AnnotatedFace(tmp_path / "a.png", points, "a", pose_deg=pose, box=np.full(4, 50.0))
    view = robustness.wide(face)
    np.testing.assert_array_equal(view.pose_deg, pose)
    np.testing.assert_array_equal(misplaced(view, np.random.default_rng(0)).pose_deg, pose)
    assert np.isnan(rotated(view, 30.0).pose_deg).all()
    np.testing.assert_allclose(view.box[2:], robustness.WIDE_PX / robustness.WIDE_SCALE)
    assert view.counts.sum() == 40 - N_JAW


def test_a_set_without_points_is_one_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dfc_jax, "load", lambda weights: mean_aligner())
    write_fasseg(tmp_path / "masks", {"p01140+0-90": (40, 50)})
    with pytest.raises(DatasetError, match="no points to score"):
        robustness.measure(str(tmp_path / "masks"), tmp_path / "out", layout="fasseg")


def test_a_folder_without_photographs_is_one_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dfc_jax, "load", lambda weights: mean_aligner())
    with pytest.raises(DatasetError, match="there are no .pts files"):
        robustness.measure(str(tmp_path), tmp_path / "out")
