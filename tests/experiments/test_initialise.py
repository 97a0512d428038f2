"""The program that starts another aligner: what is run from where, counted, scored and written."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from absl import flags
from faces import mean_aligner
from PIL import Image
from quick import quick_compilation  # noqa: F401

import dfc_jax
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.errors import DatasetError, ExportError, OptionError
from dfc_jax.evaluation.predictions import read_predictions
from dfc_jax.inference.detect import Detection
from experiments import initialise
from experiments.initialise import STARTS, Group, Results, measure, run, scored, tile
from experiments.starts import LANDMARKS, box_start, extent

EDGE = 300
# 68 points in a box of 120 x 120 pixels around (150, 150).
POINTS = 90.0 + 120.0 * np.stack([np.arange(68) % 17 / 16.0, np.arange(68) // 17 / 3.0], axis=1)
BOX = np.array([90.0, 90.0, 120.0, 120.0])
RIGHT = 12.0
# Of the start in the annotated box.
RECTANGLE = box_start(np.zeros((1, 1, 3), np.uint8), BOX).rectangle


class Peer:
    """Finds the true points, as far beside them as its rectangle is beside the annotated one."""

    def __init__(self, *rectangles):
        self.found = [np.array(each, float) for each in rectangles]

    def rectangles(self, image):
        return self.found

    def points(self, image, rectangle):
        return POINTS + (rectangle - RECTANGLE)[:2]


def face(name: str, yaw: float = 0.0) -> AnnotatedFace:
    """A grey photograph with `POINTS`."""
    png = cv2.imencode(".png", np.full((EDGE, EDGE, 3), 90, np.uint8))[1].tobytes()
    pose = np.array([yaw, 0.0, 0.0])
    return AnnotatedFace(Path("a.png"), POINTS, name, encoded=png, pose_deg=pose)


def beside(pixels: float) -> np.ndarray:
    """Its own detector's rectangle, so far to the right of where the annotated box would be."""
    return RECTANGLE + [pixels, 0.0, 0.0, 0.0]


class Nowhere:
    """A detector that finds nothing."""

    def __call__(self, image) -> list[Detection]:
        return []


def test_all_starts_are_run_and_their_points_are_of_the_photograph() -> None:
    group = Group("set", "ibug", [face("a"), face("b")])
    results = run(Peer(beside(RIGHT)), mean_aligner(), group, "gt")
    assert set(results.points) == set(results.corners) == set(STARTS)
    assert {array.shape for array in results.points.values()} == {(2, 68, 2)}
    np.testing.assert_allclose(results.points["annotated"][1], POINTS)
    np.testing.assert_allclose(results.points["own"][1], POINTS + [RIGHT, 0.0])
    np.testing.assert_allclose(results.corners["own"][0][0], beside(RIGHT)[:2])
    # The aligner finds the mean face in its box, and its landmarks are where the other one starts.
    ours = mean_aligner()(group.faces[0].image(), boxes=[BOX])[0]
    np.testing.assert_allclose(results.points["alone"][0], ours.landmarks)
    edge = extent(ours.landmarks)[1] / LANDMARKS.scale
    sides = np.linalg.norm(np.diff(results.corners["ours"][0], axis=0), axis=1)
    np.testing.assert_allclose(sides, edge, rtol=1e-3)
    assert np.isnan(results.corners["alone"]).all()


def test_a_face_that_a_detector_misses_has_no_output_and_is_counted() -> None:
    group = Group("set", "ibug", [face("a"), face("b", 50.0), face("c", 50.0)])
    results = run(Peer(), mean_aligner(detector=Nowhere()), group)
    for name in ("own", "ours", "alone"):
        assert np.isnan(results.points[name]).all()
        frontal, turned = scored(results, name)
        assert (frontal["name"], turned["name"]) == ("set 0-30", "set 30-60")
        assert (frontal["n"], turned["n"], turned["no_output"]) == (1, 2, 2)
        assert turned["protocols"]["inner"]["failure_8"] == 1.0
    frontal, turned = scored(results, "annotated")
    assert turned["no_output"] == 0 and turned["protocols"]["inner"]["mean"] == pytest.approx(0.0)


def test_errors_are_over_the_box_and_of_the_visible_points_alone_where_they_are_known() -> None:
    points = np.stack([POINTS + [RIGHT, 0.0]])
    visible = np.zeros((1, 68), bool)
    visible[0, 20] = True
    # 12 of 120 pixels; the other points are not asked for.
    points[0, 21:] += 500.0
    for seen, protocol in ((visible, "visible-inner"), (None, "inner")):
        given = {name: points for name in STARTS}
        results = Results(Group("set", "render", [face("a")], seen), given, {})
        (record,) = scored(results, "own")
        assert list(record["protocols"]) == [protocol]
        mean = record["protocols"][protocol]["mean"]
        assert mean == pytest.approx(10.0) if seen is not None else mean > 100.0


def test_faces_are_sorted_by_their_yaw_to_either_side() -> None:
    yaws = (-29.0, 31.0, -59.0, 61.0, 100.0, 3.0)
    group = Group("set", "ibug", [face(str(yaw), yaw) for yaw in yaws], np.eye(6, 68, dtype=bool))
    assert group.by_yaw() == {"0-30": [0, 5], "30-60": [1, 2], "60-90": [3, 4]}
    some = group.some([5, 1])
    assert [each.name for each in some.faces] == ["3.0", "31.0"]
    assert some.visible is not None and some.visible.argmax(axis=1).tolist() == [5, 1]


@pytest.mark.slow
def test_a_yaw_that_is_not_known_is_that_of_the_points(model) -> None:
    one = initialise.turntable(model, 1).faces[2]
    assert one.pose_deg.tolist() == [30.0, 0.0, 0.0]
    unknown = dataclasses.replace(one, pose_deg=None)
    known = face("known", 7.0)
    fitted, kept = initialise.with_poses([unknown, known], model)
    assert fitted.pose_deg[0] == pytest.approx(30.0, abs=6.0) and fitted.name == one.name
    assert kept is known


@pytest.mark.slow
def test_a_turntable_knows_its_yaws_and_what_is_visible(model) -> None:
    group = initialise.turntable(model, 2)
    assert [each.name for each in group.faces][:3] == ["0_0", "1_0", "0_15"]
    assert {yaws: len(index) for yaws, index in group.by_yaw().items()} == {
        "0-30": 4,
        "30-60": 4,
        "60-90": 6,
    }
    first, last = group.faces[0], group.faces[-1]
    assert first.image().shape == last.image().shape and first.image().std() > 20
    # Persons turn to either side, where their noses then point to.
    assert last.pose_deg.tolist() == [-90.0, 0.0, 0.0]
    assert last.points[30, 0] > last.points[36:48, 0].mean()
    assert group.visible[0].sum() > 40 > group.visible[-1].sum()


def test_a_tile_shows_the_start_and_the_points() -> None:
    points, corners = np.full((1, 68, 2), np.nan), np.full((1, 4, 2), np.nan)
    group = Group("set", "ibug", [face("a")])
    plain = tile(Results(group, {"own": points}, {"own": corners}), 0, "own")
    found = POINTS[None] + [RIGHT, 0.0]
    outline = np.array([[[80.0, 80.0], [220.0, 80.0], [220.0, 220.0], [80.0, 220.0]]])
    drawn = tile(Results(group, {"own": found}, {"own": outline}), 0, "own")
    assert plain.shape == drawn.shape == (initialise.TILE, initialise.TILE, 3)
    red = (drawn[..., 0] > 200) & (drawn[..., 1] < 150)
    assert red.sum() > 100 and not ((plain[..., 0] > 200) & (plain[..., 1] < 150)).any()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "testset"
    folder.mkdir(parents=True)
    rows = "\n".join(f"{x + 1:.5f} {y + 1:.5f}" for x, y in POINTS)
    for name in ("a", "b"):
        Image.new("RGB", (EDGE, EDGE), (90, 90, 90)).save(folder / f"{name}.jpg")
        (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    (folder / "broken.pts").write_text("no points")
    return folder


def test_the_program_writes_scores_predictions_and_pictures(tmp_path, monkeypatch, photos, capsys):
    monkeypatch.setattr(dfc_jax, "load", lambda weights: mean_aligner())
    monkeypatch.setattr(initialise, "Dlib", lambda: Peer(beside(RIGHT)))
    frontal = [face("a", 5.0), face("b", 40.0)]
    monkeypatch.setattr(initialise, "with_poses", lambda faces, model: frontal)
    out = tmp_path / "out"
    values = flags.FlagValues()
    flags.DEFINE_multi_string("set", [f"ibug={photos}"], "", flag_values=values)
    for name, value in {"out": str(out), "weights": None, "boxes": "gt"}.items():
        flags.DEFINE_string(name, value, "", flag_values=values)
    flags.DEFINE_integer("turntable", 0, "", flag_values=values)
    values.mark_as_parsed()
    initialise.as_told(values)
    printed, complained = capsys.readouterr()
    assert "broken" in complained
    assert "photos/testset 0-30" in printed and "photos/testset 30-60" in printed
    assert "faces that differ most" not in printed
    compared = json.loads((out / "comparison.json").read_text())
    assert compared["systems"] == list(STARTS.values())
    for record in compared["sets"]:
        own, annotated = record["protocols"]["inner"]["systems"][:2]
        assert own["mean"] == pytest.approx(10.0) and annotated["mean"] == pytest.approx(0.0)
    for name, system in STARTS.items():
        scores = json.loads((out / f"{name}.json").read_text())
        assert scores["system"]["name"] == system and scores["system"]["boxes"] == "gt"
        assert [each["unusable"] for each in scores["sets"]] == [["broken.pts"]] * 2
        found = read_predictions(out / f"photos_testset_{name}.npz")
        assert found.names == ("a", "b") and found.system == system
    np.testing.assert_allclose(
        read_predictions(out / "photos_testset_own.npz").points[0], POINTS + [RIGHT, 0.0]
    )
    assert np.asarray(Image.open(out / "photos_testset.png")).std() > 10


def test_what_cannot_be_measured_is_one_sentence(tmp_path, monkeypatch, photos) -> None:
    monkeypatch.setattr(dfc_jax, "load", lambda weights: mean_aligner())
    rest = 0, None, "gt"
    with pytest.raises(OptionError, match="give --set LAYOUT=DIR or --turntable"):
        measure(Peer(), [], tmp_path / "out", *rest)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="this folder cannot be made"):
        measure(Peer(), [f"ibug={photos}"], tmp_path / "file" / "out", *rest)
    monkeypatch.setattr(AnnotatedFace, "landmark_box", BOX)
    monkeypatch.setattr(
        initialise,
        "read_faces",
        lambda folder: ([AnnotatedFace(Path("a.png"), np.full((68, 2), np.nan), "a")], []),
    )
    with pytest.raises(DatasetError, match="faces without points to score"):
        measure(Peer(), [f"ibug={photos}"], tmp_path / "out", *rest)
