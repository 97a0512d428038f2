"""The report of a set puts together what its faces have: points, poses, profiles."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photographs import points_in_box

from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.evaluation.report import SHAPES, read, report

POINTS = points_in_box()


def annotated(points: np.ndarray = POINTS, **fields) -> AnnotatedFace:
    return AnnotatedFace(Path("a.jpg"), points, "a", **fields)


def reading(points: np.ndarray = POINTS, yaw: float = 0.0) -> dict[str, np.ndarray]:
    return {
        **dict.fromkeys(("mesh", "flow", "blend"), points),
        "angles_deg": np.array([yaw, 1.0, 2.0]),
        "blink": np.array([0.1, 0.1]),
        "jaw_open": np.array(0.2),
    }


def aligner_of(face: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(
        flow_landmarks=lambda face: (face.landmarks + 1.0, None),
        blended_landmarks=lambda face: face.landmarks + 2.0,
    )


def test_a_face_is_read_as_it_is_and_a_missing_one_is_nan():
    face = SimpleNamespace(
        landmarks=POINTS,
        angles_deg={"yaw": 1.0, "pitch": 2.0, "roll": 3.0},
        expression={"eyeBlinkLeft": 0.2, "eyeBlinkRight": 0.4, "jawOpen": 0.5, "jawLeft": 0.9},
    )
    found = read(aligner_of(face), face)
    np.testing.assert_array_equal(found["blend"], POINTS + 2.0)
    np.testing.assert_array_equal(found["angles_deg"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(found["blink"], [0.4, 0.2])
    assert found["jaw_open"] == 0.5
    missing = read(aligner_of(face), None)
    for name, shape in SHAPES.items():
        assert found[name].shape == missing[name].shape == shape
        assert np.isnan(missing[name]).all()
    face.expression = {"smile": 1.0}
    assert np.isnan(read(aligner_of(face), face)["blink"]).all()


def test_only_visible_points_are_scored_and_faces_without_points_do_not_count():
    half = POINTS.copy()
    half[40:] = np.nan
    off = np.where(np.isfinite(half), half + [3.0, 4.0], 999.0)
    scores = report([annotated(half), annotated(np.full((68, 2), np.nan))], [reading(off)] * 2)
    assert scores["n"] == 2
    # 5 px in a box of sqrt(200 * 50) px.
    assert scores["inner"]["median"] == pytest.approx(5.0) and scores["inner"]["over_8"] == 0.0
    assert scores["flow"]["all68"]["mean"] == pytest.approx(5.0)


def test_a_set_without_points_has_poses_alone():
    faces = [
        annotated(np.full((68, 2), np.nan), pose_deg=np.array([yaw, 0.0, np.nan]))
        for yaw in (-90.0, 0.0, 60.0)
    ]
    scores = report(faces, [reading(yaw=yaw) for yaw in (-45.0, 0.0, 30.0)])
    assert scores["inner"] == {"mean": None, "median": None, "over_8": None}
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
    face = annotated(np.full((68, 2), np.nan), pose_deg=np.array([95.0, 0.0, 0.0]))
    found = {**reading(), "angles_deg": np.array([85.0, 180.0, 180.0])}
    scores = report([face], [found])
    assert scores["yaw"]["90"]["found"] == scores["profiles"]["median_abs_yaw"] == 95.0


def test_errors_are_sorted_by_the_true_yaw():
    faces = [annotated(pose_deg=np.array([yaw, 0.0, 0.0])) for yaw in (10.0, -80.0)]
    scores = report(faces, [reading(POINTS), reading(POINTS + [0.0, 10.0])])
    assert scores["abs_yaw"]["0-30"] == {"n": 1, "mean": 0.0}
    assert scores["abs_yaw"]["60-90"] == {"n": 1, "mean": pytest.approx(10.0)}


def test_without_true_poses_the_profiles_still_have_a_median_yaw():
    faces = [annotated(profile=True), annotated(profile=True), annotated()]
    scores = report(faces, [reading(yaw=yaw) for yaw in (-50.0, 70.0, 3.0)])
    assert scores["pose"] is scores["yaw"] is scores["abs_yaw"] is None
    assert scores["profiles"] == {"n": 2, "median_abs_yaw": 60.0}
    assert report([annotated()], [reading()])["profiles"] is None
