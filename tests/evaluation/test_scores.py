"""The scores of a set put together what its faces have: points, poses, profiles, masks."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photographs import points_in_box

from dfc_jax.crops import Crop
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.evaluation.dense import DenseErrors
from dfc_jax.evaluation.predictions import Predictions
from dfc_jax.evaluation.protocols import READINGS, read, stacked
from dfc_jax.evaluation.scores import ScoreSettings, evaluation, set_scores
from dfc_jax.evaluation.tables import set_text
from dfc_jax.evaluation.trials import PROTOCOLS, Visibility, face_scales

POINTS = points_in_box()
NOWHERE = np.full((68, 2), np.nan)


def annotated(points: np.ndarray = POINTS, **fields) -> AnnotatedFace:
    return AnnotatedFace(Path("a.jpg"), points, "a", **fields)


def given(face: AnnotatedFace, **fields) -> AnnotatedFace:
    """The face with fields that its class may not have."""
    for name, value in fields.items():
        object.__setattr__(face, name, value)
    return face


def turned(yaw: float) -> AnnotatedFace:
    return annotated(pose_deg=np.array([yaw, 0.0, 0.0]))


def found(*points: np.ndarray, yaw: tuple[float, ...] | None = None, **fields) -> Predictions:
    angles = None if yaw is None else np.array([[each, 1.0, 2.0] for each in yaw])
    names = tuple(map(str, range(len(points))))
    return Predictions("mine", names, np.stack(points), angles, **fields)


def scored(faces, predictions, **keywords) -> dict:
    scores = set_scores(faces, predictions, **keywords)
    json.dumps(scores, allow_nan=False)
    return scores


def aligner_of(face: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(
        flow_landmarks=lambda face: (face.landmarks + 1.0, None),
        blended_landmarks=lambda face: face.landmarks + 2.0,
    )


def test_a_known_shift_gives_known_scores():
    # 5 px are 5 % of sqrt(200 * 50).
    jaw, inner = POINTS.copy(), POINTS.copy()
    jaw[:17] += [0.0, 40.0]
    inner[17:] += [0.0, 9.0]
    scores = scored([annotated()] * 4, found(POINTS + [3.0, 4.0], jaw, inner, NOWHERE))
    assert (scores["n"], scores["no_output"]) == (4, 1)
    protocol = scores["protocols"]["inner"]
    assert (protocol["n"], protocol["no_output"]) == (4, 1)
    assert protocol["mean"] == pytest.approx((5.0 + 0.0 + 9.0) / 3)
    assert protocol["median"] == pytest.approx(5.0)
    # One at 9 %, one missing; steps at 0 and 5 of 8.
    assert protocol["failure_8"] == 0.5
    assert protocol["auc_8"] == pytest.approx((1.0 + 3.0 / 8.0) / 4)
    at = dict(zip(protocol["curve"]["percent"], protocol["curve"]["share"], strict=True))
    assert (at[0.0], at[4.9], at[5.1], at[10.0]) == (0.25, 0.25, 0.5, 0.75)
    low, high = protocol["ci95"]
    assert 0.0 <= low < protocol["mean"] < high <= 9.0
    assert protocol["median_ci95"] == pytest.approx([0.0, 9.0])
    all68 = [5.0, 40.0 * 17 / 68, 9.0 * 51 / 68]
    assert scores["protocols"]["all68"]["mean"] == pytest.approx(np.mean(all68))
    assert [face["errors"]["inner"] for face in scores["faces"]] == [
        pytest.approx(5.0),
        0.0,
        pytest.approx(9.0),
        None,
    ]
    assert [face["output"] for face in scores["faces"]] == [True, True, True, False]
    assert scores["faces"][3]["predicted"] is None


def test_without_any_output_all_faces_fail_and_there_is_no_mean():
    protocol = scored([annotated()], found(NOWHERE))["protocols"]["inner"]
    assert protocol["mean"] is protocol["ci95"] is protocol["median"] is None
    assert (protocol["failure_8"], protocol["auc_8"]) == (1.0, 0.0)
    assert protocol["points"] == "51 inner of 68"


def test_points_that_a_system_never_gives_do_not_count_and_the_label_says_so():
    one = POINTS + [3.0, 4.0]
    one[[48, 54]] = np.nan
    two = one.copy()
    two[30] = np.nan
    protocols = scored([annotated()] * 2, found(one, two))["protocols"]
    assert protocols["inner"]["points"] == "49 inner of 68"
    assert protocols["all68"]["points"] == "66 of 68"
    assert protocols["inner"]["mean"] == pytest.approx(5.0)
    # The second lacks a point that the system gives elsewhere.
    assert protocols["inner"]["no_output"] == 1 and protocols["inner"]["failure_8"] == 0.5


def test_errors_are_divided_by_the_length_that_is_asked_for():
    eyes = np.linalg.norm(POINTS[36] - POINTS[45])
    for name, length in (("box-diagonal", np.hypot(200.0, 50.0)), ("inter-ocular", eyes)):
        scores = scored(
            [annotated()], found(POINTS + [3.0, 4.0]), settings=ScoreSettings(normalised_by=name)
        )
        assert scores["protocols"]["inner"]["mean"] == pytest.approx(500.0 / length)
        assert scores["protocols"]["inner"]["normalised_by"] == name
        assert scores["faces"][0]["scale_px"][name] == pytest.approx(length)
    hidden = POINTS.copy()
    hidden[45] = np.nan
    settings = ScoreSettings(normalised_by="inter-ocular")
    scores = scored([annotated(hidden)], found(POINTS), settings=settings)
    assert scores["protocols"] == {} and scores["faces"][0]["scale_px"]["inter-ocular"] is None


def test_visible_points_are_those_of_a_mask_or_of_a_set_that_annotates_no_others():
    off = POINTS.copy()
    off[17:40] += [3.0, 4.0]
    mask = np.ones((2, 68), bool)
    mask[0, 40:] = False
    mask[1, :40] = False
    visibility = Visibility(mask, "fitted mesh")
    protocols = scored([annotated()] * 2, found(off, off), visibility=visibility)["protocols"]
    assert protocols["visible-inner"]["visible"] == "fitted mesh"
    assert protocols["visible-inner"]["mean"] == pytest.approx((5.0 + 0.0) / 2)
    assert protocols["inner"]["visible"] is None
    assert protocols["inner"]["mean"] == pytest.approx(5.0 * 23 / 51)
    assert "visible-inner" not in scored([annotated()], found(off))["protocols"]
    half = POINTS.copy()
    half[40:] = np.nan
    protocols = scored([annotated(half), annotated()], found(off, off))["protocols"]
    assert protocols["visible-inner"]["visible"] == "annotated"


def test_the_label_says_how_many_points_count_where_it_is_not_all_of_them():
    half = POINTS.copy()
    half[40:] = np.nan
    # 23 of 51 in one face and all in the other; a face without any takes no part.
    faces = [annotated(half), annotated(), annotated(NOWHERE, box=np.ones(4))]
    protocols = scored(faces, found(POINTS, POINTS, POINTS))["protocols"]
    assert protocols["inner"]["points"] == "51 inner of 68, 37.0 in a face on average"
    assert protocols["all68"]["points"] == "68 of 68, 54.0 in a face on average"
    # No hidden point counts in any of them.
    assert [each["visible"] for each in protocols.values()] == ["annotated"] * 3
    mask = np.ones((1, 68), bool)
    mask[0, 30:40] = False
    seen = scored([annotated()], found(POINTS), visibility=Visibility(mask, "fitted mesh"))
    assert seen["protocols"]["inner"]["points"] == "51 inner of 68"
    label = seen["protocols"]["visible-inner"]["points"]
    assert label == "51 inner of 68, 41.0 in a face on average"


def test_21_points_are_scored_against_the_box_without_those_that_are_not_given():
    truth = np.random.default_rng(0).uniform(0.0, 100.0, (21, 2))
    truth[6], truth[11] = [0.0, 0.0], [0.0, 50.0]
    hidden = truth.copy()
    hidden[0] = np.nan
    box = np.array([10.0, 20.0, 40.0, 90.0])
    faces = [given(annotated(NOWHERE, box=box), points21=points) for points in (truth, hidden)]
    off = truth + [3.0, 4.0]
    off[[12, 16]] = np.nan
    scores = scored(faces, found(NOWHERE, NOWHERE, points21=np.stack([off, off])))
    assert set(scores["protocols"]) == {"points21", "visible21"}
    assert scores["protocols"]["points21"]["points"] == "19 of 21"
    assert scores["protocols"]["points21"]["visible"] is None
    assert scores["protocols"]["visible21"]["visible"] == "annotated"
    assert scores["protocols"]["visible21"]["mean"] == pytest.approx(500.0 / np.sqrt(40.0 * 90.0))
    assert face_scales(faces)["inter-ocular"].tolist() == [50.0, 50.0]
    assert face_scales(faces)["box-diagonal"] == pytest.approx(np.hypot(40.0, 90.0))
    assert scores["faces"][0]["true"] is None
    scores = scored(faces[:1], found(NOWHERE, points21=off[None]))
    assert set(scores["protocols"]) == {"points21"}


def test_bins_of_the_yaw_have_means_of_their_own():
    faces = [turned(yaw) for yaw in (10.0, -20.0, -80.0, 85.0)]
    points = (POINTS, POINTS + [3.0, 4.0], POINTS + [0.0, 10.0], NOWHERE)
    scores = scored(faces, found(*points))
    bins = scores["protocols"]["inner"]["bins"]
    assert [(bins[b]["n"], bins[b]["no_output"]) for b in ("0-30", "30-60", "60-90")] == [
        (2, 0),
        (0, 0),
        (2, 1),
    ]
    assert bins["0-30"]["mean"] == pytest.approx(2.5)
    assert bins["0-30"]["ci95"] == pytest.approx([0.0, 5.0])
    assert bins["30-60"]["mean"] is bins["30-60"]["ci95"] is None
    assert bins["60-90"]["mean"] == pytest.approx(10.0)
    assert [face["yaw_deg"] for face in scores["faces"]] == [10.0, -20.0, -80.0, 85.0]
    assert scored([annotated()], found(POINTS))["protocols"]["inner"]["bins"] is None


def test_balanced_scores_are_of_as_many_faces_of_each_bin():
    yaws = [0.0] * 6 + [40.0] * 3 + [70.0] * 2
    faces = [turned(yaw) for yaw in yaws]
    points = [POINTS + [0.0, each / 10.0] for each in yaws]
    settings = ScoreSettings(balanced=True, seed=3)
    scores = scored(faces, found(*points), settings=settings)
    protocol = scores["protocols"]["inner"]
    assert protocol["balanced"] and protocol["n"] == 6
    assert protocol["mean"] == pytest.approx((0.0 + 4.0 + 7.0) / 3)
    assert sum(face["errors"]["inner"] is not None for face in scores["faces"]) == 6
    assert scored(faces, found(*points), settings=settings) == scores
    unknown = scored([annotated()] * 2, found(POINTS, POINTS), settings=settings)
    assert not unknown["protocols"]["inner"]["balanced"]
    assert unknown["protocols"]["inner"]["n"] == 2


def test_only_the_protocols_that_are_asked_for_are_scored():
    settings = ScoreSettings(protocols=("all68", "visible21"))
    scores = scored([turned(0.0)], found(POINTS + [3.0, 4.0]), settings=settings)
    assert set(scores["protocols"]) == set(scores["faces"][0]["errors"]) == {"all68"}
    assert scores["abs_yaw"]["0-30"] == {"n": 1, "mean": pytest.approx(5.0)}


def test_the_own_aligner_has_other_landmarks_and_masks_scored_too():
    reading = {
        **{"points": POINTS, "flow": POINTS + [3.0, 4.0], "blend": POINTS},
        **{"angles_deg": np.zeros(3), "blink": np.zeros(2), "jaw_open": np.array(0.2)},
    }
    reading |= dict.fromkeys(("dense_flow_px", "dense_mesh_px"), np.array(np.nan))
    own = stacked([{**reading, "mask_iou": np.array(iou)} for iou in (0.5, 0.9, np.nan)])
    scores = scored([annotated()] * 3, found(*own["points"]), own=own)
    assert scores["flow"]["inner"]["mean"] == pytest.approx(5.0)
    assert scores["blend"]["all68"]["mean"] == 0.0
    assert scores["mask_iou"] == {
        "n": 2,
        "mean": pytest.approx(0.7),
        "median": pytest.approx(0.7),
    }
    scores = scored([annotated()], found(POINTS))
    assert scores["flow"] is scores["blend"] is scores["mask_iou"] is None


def test_dense_errors_are_over_the_faces_whose_correspondence_is_known():
    dense = lambda: pytest.fail("is read before it is scored")  # noqa: E731
    faces = [annotated(dense=dense) for _ in range(3)] + [annotated()]
    own = {
        "dense_flow_px": np.array([1.0, 3.0, np.nan, 99.0]),
        "dense_mesh_px": np.array([2.0, 4.0, np.nan, 99.0]),
    }
    predictions = found(POINTS, POINTS, NOWHERE, POINTS)
    scores = scored(faces, predictions, own=own)["dense"]
    scale = face_scales(faces)["box"][0]
    assert (scores["n"], scores["no_output"], scores["normalised_by"]) == (3, 1, "box")
    assert scores["epe"] == 2.0 and scores["epe_ci95"] == [1.0, 3.0]
    assert scores["nme"] == scores["nme_median"] == pytest.approx(300.0 / scale)
    assert scored(faces, predictions)["dense"] is None
    assert scored(faces[3:], found(POINTS), own=own)["dense"] is None


def test_the_true_flow_is_read_and_compared_where_there_is_one(monkeypatch):
    truth, template = object(), object()
    face = SimpleNamespace(
        landmarks=POINTS, angles_deg=dict.fromkeys(("yaw", "pitch", "roll"), 0.0), expression={}
    )
    aligner = aligner_of(face)
    aligner.template = template
    given_to = []

    def errors(*arguments):
        given_to.append(arguments)
        return DenseErrors(0.5, 2.0)

    monkeypatch.setattr("dfc_jax.evaluation.dense.dense_errors", errors)
    reading = read(aligner, face, annotated(dense=lambda: truth))
    assert given_to == [(truth, face, template)]
    assert reading["dense_flow_px"] == 0.5 and reading["dense_mesh_px"] == 2.0


def test_a_record_names_schema_system_labels_and_photographs(tmp_path):
    face = AnnotatedFace(tmp_path / "deep" / "b.jpg", POINTS, "deep/b")
    scores = scored([given(face, labels="reannotated")], found(POINTS), folder=tmp_path)
    assert scores["labels"] == "reannotated"
    assert scores["faces"][0]["photo"] == "deep/b.jpg" and scores["faces"][0]["name"] == "deep/b"
    hidden = POINTS.copy()
    hidden[3] = np.nan
    face = scored([annotated(hidden)], found(POINTS + 0.123456))["faces"][0]
    assert face["true"][3] is None and face["true"][4] == POINTS[4].round(2).tolist()
    assert face["predicted"][3] == (POINTS[3] + 0.123456).round(2).tolist()
    whole = evaluation("mine", [scores], seed=7, versions={"weights": "w"}, boxes="gt")
    assert whole["schema"] == "dfc-evaluation/1.0" and whole["seed"] == 7
    assert whole["system"] == {"name": "mine", "versions": {"weights": "w"}, "boxes": "gt"}
    assert whole["runtime"] is None and PROTOCOLS[0] == "all68"


def test_a_face_is_read_as_it_is_and_a_missing_one_is_nan():
    face = SimpleNamespace(
        landmarks=POINTS,
        angles_deg={"yaw": 1.0, "pitch": 2.0, "roll": 3.0},
        expression={"eyeBlinkLeft": 0.2, "eyeBlinkRight": 0.4, "jawOpen": 0.5, "jawLeft": 0.9},
    )
    reading = read(aligner_of(face), face, annotated())
    np.testing.assert_array_equal(reading["blend"], POINTS + 2.0)
    np.testing.assert_array_equal(reading["angles_deg"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(reading["blink"], [0.4, 0.2])
    assert reading["jaw_open"] == 0.5
    missing = read(aligner_of(face), None, annotated())
    for name, shape in READINGS.items():
        assert reading[name].shape == missing[name].shape == shape
        assert np.isnan(missing[name]).all()
    face.expression = {"smile": 1.0}
    assert np.isnan(read(aligner_of(face), face, annotated())["blink"]).all()


def test_the_mask_is_compared_in_the_photograph_where_it_counts():
    matchability = np.zeros((4, 4))
    matchability[:2] = 0.9  # the upper half of the square: rows 10 to 13 of the photograph
    face = SimpleNamespace(
        landmarks=POINTS,
        angles_deg={"yaw": 1.0, "pitch": 2.0, "roll": 3.0},
        expression={},
        matchability=matchability,
        crop=Crop(np.array([13.5, 13.5]), 8.0, size=4),
    )
    true, counted = np.zeros((20, 30), bool), np.ones((20, 30), bool)
    true[10:16, 10:18] = True
    example = given(annotated(), mask=lambda: (true, counted))
    iou = read(aligner_of(face), face, example)["mask_iou"]
    assert iou == pytest.approx(4 / 6, abs=0.1)
    counted[13:] = False
    assert read(aligner_of(face), face, example)["mask_iou"] == pytest.approx(1.0, abs=0.05)


def test_only_annotated_points_are_scored_and_faces_without_points_do_not_count():
    half = POINTS.copy()
    half[40:] = np.nan
    off = np.where(np.isfinite(half), half + [3.0, 4.0], 999.0)
    scores = scored([annotated(half), annotated(NOWHERE, box=np.ones(4))], found(off, off))
    assert scores["n"] == 2 and scores["protocols"]["inner"]["n"] == 1
    assert scores["protocols"]["inner"]["median"] == pytest.approx(5.0)
    assert scores["protocols"]["inner"]["failure_8"] == 0.0


def test_a_set_without_points_has_poses_alone():
    box = np.array([0.0, 0.0, 10.0, 10.0])
    faces = [
        annotated(NOWHERE, pose_deg=np.array([yaw, 0.0, np.nan]), box=box)
        for yaw in (-90.0, 0.0, 60.0)
    ]
    scores = scored(faces, found(POINTS, POINTS, POINTS, yaw=(-45.0, 0.0, 30.0)))
    assert scores["protocols"] == {} and scores["no_output"] == 0
    assert scores["pose"]["yaw"]["slope"] == pytest.approx(0.5)
    assert scores["pose"]["pitch"]["bias"] == 1.0 and scores["pose"]["roll"]["n"] == 0
    assert {bin: each["found"] for bin, each in scores["yaw"].items()} == {
        "-90": -45.0,
        "0": 0.0,
        "60": 30.0,
    }
    assert scores["abs_yaw"]["60-90"] == {"n": 0, "mean": None}
    assert scores["profiles"] == {"n": 2, "median_abs_yaw": 37.5}


def test_yaws_beyond_90_degrees_are_named_alike_everywhere():
    face = annotated(pose_deg=np.array([95.0, 0.0, 0.0]))
    predictions = Predictions("mine", ("0",), POINTS[None], np.array([[85.0, 180.0, 180.0]]))
    scores = scored([face], predictions)
    assert scores["yaw"]["90"]["found"] == scores["profiles"]["median_abs_yaw"] == 95.0


def test_the_text_of_a_set_tells_what_there_is():
    def told(predictions, **keywords):
        scores = scored([turned(20.0)], predictions, **keywords)
        return set_text({"name": "a/b", "layout": "ibug", **scores}).splitlines()

    own = {"dense_flow_px": np.array([1.5]), "dense_mesh_px": np.array([np.nan])}
    lines = told(found(POINTS, yaw=(21.0,)), own=own)
    assert lines[0] == "a/b (ibug, original labels): 1 face, 0 without output"
    assert lines[-1] == "mean absolute error of the pose, degrees: yaw 1.00, pitch 1.00, roll 2.00"
    assert not any("of the pose" in line for line in told(found(POINTS)))
    face = annotated(dense=lambda: pytest.fail("is read before it is scored"))
    own = {"dense_flow_px": np.array([1.5, 2.5]), "dense_mesh_px": np.array([0.0, 0.0])}
    scores = scored([face, face], found(POINTS, POINTS), own=own)
    assert set_text({"name": "a/b", "layout": "ibug", **scores}).splitlines()[-1] == (
        "dense: 2 faces, flow off by 2.00 [1.50, 2.50] template pixels, "
        "mesh off by 0.00 [0.00, 0.00] % of the box length"
    )


def test_without_true_poses_the_profiles_still_have_a_median_yaw():
    faces = [annotated(profile=True), annotated(profile=True), annotated()]
    scores = scored(faces, found(POINTS, POINTS, POINTS, yaw=(-50.0, 70.0, 3.0)))
    assert scores["pose"] is scores["yaw"] is scores["abs_yaw"] is None
    assert scores["profiles"] == {"n": 2, "median_abs_yaw": 60.0}
    assert scored([annotated()], found(POINTS))["profiles"] is None
