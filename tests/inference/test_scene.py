"""Faces of one photograph stand beside each other before one camera."""

import dataclasses

import numpy as np
import pytest
from faces import posed
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from dfc_jax.inference.draw import projected
from dfc_jax.inference.scene import make_scene, shared_focal

SIZE = (1200, 800)
MIDDLE = (np.array(SIZE) - 1.0) / 2.0
FOCAL_PX = 1100.0
# yaw, pitch, roll and position of two heads, far from the optical axis.
TRUTH = (((25.0, 5.0, -8.0), (-260.0, -60.0, 1000.0)), ((-30.0, -4.0, 12.0), (230.0, 90.0, 1400.0)))


@pytest.fixture(scope="module")
def mean_face(aligner):
    (found,) = aligner(np.zeros((300, 200, 3), np.uint8))
    return found


@pytest.fixture(scope="module")
def truth(aligner, mean_face):
    return [posed(mean_face, aligner.model, *pose, FOCAL_PX, MIDDLE) for pose in TRUTH]


def with_own_camera(face, model, focal_px):
    """The face as a camera of another focal length sees it best that looks at it: SciPy's fit."""
    points = (face.vertices_mm - face.translation_mm)[::11] @ face.rotation
    pixels = projected(face, face.vertices_mm[::11])
    centre = projected(face, face.translation_mm[None])[0]

    def pose(x):
        return Rotation.from_rotvec(x[:3]).as_matrix() @ face.rotation, 1000.0 * x[3:]

    def residual(x):
        rotation, translation = pose(x)
        moved = points @ rotation.T + translation
        return (focal_px * moved[:, :2] / moved[:, 2:] + centre - pixels).ravel()

    start = [0.0, 0.0, 0.0, 0.0, 0.0, face.translation_mm[2] / 1000.0 * focal_px / face.focal_px]
    rotation, translation = pose(least_squares(residual, start).x)
    vertices = (face.vertices_mm - face.translation_mm) @ face.rotation @ rotation.T + translation
    return dataclasses.replace(
        face,
        rotation=rotation,
        translation_mm=translation,
        vertices_mm=vertices,
        focal_px=focal_px,
        principal_point=centre,
    )


def turned_deg(found, true):
    return np.rad2deg(Rotation.from_matrix(found @ true.T).magnitude())


def test_faces_that_were_fitted_by_cameras_of_their_own_stand_where_they_are(
    aligner, mean_face, truth
):
    found = [with_own_camera(face, aligner.model, FOCAL_PX) for face in truth]
    # Before their own cameras both are in the middle, and turned otherwise.
    assert all(np.abs(face.translation_mm[:2]).max() < 15.0 for face in found)
    assert all(turned_deg(a.rotation, b.rotation) > 5.0 for a, b in zip(found, truth, strict=True))
    scene = make_scene(found, SIZE)
    assert scene.focal_px == pytest.approx(FOCAL_PX)
    assert np.array_equal(scene.principal_point, MIDDLE)
    assert (scene.residual_px < 2.5).all()  # of 280 pixels
    for i, face in enumerate(truth):
        assert turned_deg(scene.rotation[i], face.rotation) < 1.0
        distance = np.linalg.norm(face.translation_mm)
        assert np.linalg.norm(scene.translation_mm[i] - face.translation_mm) < 0.02 * distance
        seen = FOCAL_PX * scene.vertices_mm[i, :, :2] / scene.vertices_mm[i, :, 2:] + MIDDLE
        off = np.linalg.norm(seen - projected(face, face.vertices_mm), axis=1)
        assert np.sqrt(np.mean(off**2)) < 2.5


def test_wrong_focal_lengths_become_one_and_the_heads_keep_their_order_and_ratio(
    aligner, mean_face, truth
):
    focals = (0.85 * FOCAL_PX, 1.2 * FOCAL_PX)
    pairs = zip(truth, focals, strict=True)
    scene = make_scene([with_own_camera(face, aligner.model, f) for face, f in pairs], SIZE)
    assert scene.focal_px == pytest.approx(np.sqrt(focals[0] * focals[1]))
    ratio = scene.translation_mm[1] / scene.translation_mm[0]
    true = truth[1].translation_mm / truth[0].translation_mm
    np.testing.assert_allclose(ratio, true, rtol=0.06)
    assert (scene.residual_px < 3.0).all()


def test_a_face_that_its_own_camera_sees_from_the_middle_stays_where_it_is(aligner, mean_face):
    face = posed(mean_face, aligner.model, (20.0, 0.0, 5.0), (10.0, 20.0, 900.0), 800.0, MIDDLE)
    scene = make_scene([face], SIZE)
    np.testing.assert_allclose(scene.vertices_mm[0], face.vertices_mm, atol=0.05)
    assert scene.residual_px[0] < 0.01


def test_sure_focal_lengths_count_more_and_unknown_ones_hardly(mean_face):
    def of(focal_px, deviation):
        sure = dataclasses.replace(mean_face.uncertainty, log_focal=np.asarray(deviation))
        return dataclasses.replace(mean_face, focal_px=focal_px, uncertainty=sure)

    assert shared_focal([of(500.0, 0.2), of(2000.0, 0.2)]) == pytest.approx(1000.0)
    assert shared_focal([of(500.0, 0.1), of(2000.0, 0.2)]) == pytest.approx(500.0 * 4.0**0.2)
    assert shared_focal([of(500.0, 0.2), of(2000.0, np.inf)]) == pytest.approx(500.0, rel=0.01)
    assert shared_focal([of(500.0, np.inf), of(2000.0, np.nan)]) == pytest.approx(1000.0)


def test_a_scene_needs_a_face():
    with pytest.raises(ValueError, match="at least one face"):
        make_scene([], SIZE)
