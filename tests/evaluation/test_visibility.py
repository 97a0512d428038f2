"""Which landmarks a face's own mesh hides, told by its parameters or by a fit to its points."""

import dataclasses
from pathlib import Path

import basel_layouts as layouts
import jax.numpy as jnp
import numpy as np
import pytest
from paths import shared_data
from quick import quick_compilation  # noqa: F401

from dfc_jax.camera import project, to_camera
from dfc_jax.data.faces import AnnotatedFace, Parameters
from dfc_jax.data.lp import aflw2000
from dfc_jax.data.lp_model import LPModel, read_lp_model
from dfc_jax.errors import DatasetError, FaceModelError
from dfc_jax.evaluation.visibility import visible_landmarks_of, visible_points
from dfc_jax.landmarks68 import INNER, JAW, MIRROR
from dfc_jax.morphable.linear import landmarks3d
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.types import Camera, FaceParams

# Brow, eye, wing of the nose and corner of the mouth of the subject's right half.
RIGHT_HALF = np.r_[17:22, 36:42, 31, 32, 48, 49, 59]
BASEL = layouts.known_face(n_identity=199, n_expression=29)


def turned(model, yaw_deg: float, **fields) -> AnnotatedFace:
    """The mean face with all its 68 surface points, turned and seen from a metre away."""
    params = FaceParams(
        focal_px=jnp.float32(1500.0),
        rotation=angles_to_rotvec(jnp.array([yaw_deg, 0.0, 0.0])),
        translation_mm=jnp.array([0.0, 0.0, 1000.0]),
        identity=jnp.zeros(0),
        expression=jnp.zeros(0),
    )
    points = to_camera(params, landmarks3d(model, model.mean_mm))
    found = project(Camera(params.focal_px, jnp.full(2, 200.0)), points)
    return AnnotatedFace(Path("a.jpg"), np.asarray(found, np.float64), "a", jaw="surface", **fields)


def test_a_frontal_face_shows_all_its_points(model):
    found = visible_landmarks_of(turned(model, 0.0), model)
    assert found.of == "fitted mesh" and found.visible.shape == (68,)
    assert found.visible[INNER].all()


@pytest.mark.parametrize(("yaw_deg", "far"), [(80.0, RIGHT_HALF), (-80.0, MIRROR[RIGHT_HALF])])
def test_a_face_turned_to_its_side_hides_the_far_half_and_shows_the_near_one(model, yaw_deg, far):
    visible = visible_landmarks_of(turned(model, yaw_deg), model).visible
    assert not visible[far].any()
    # The bridge of the nose hides the inner corner of the near eye as well.
    assert visible[np.setdiff1d(MIRROR[far], [39, 42])].all()
    # The jaw: of the far half it is behind the face, of the near one it is seen.
    jaw = slice(0, 7) if yaw_deg > 0 else slice(10, 17)
    assert not visible[jaw].any() and visible[MIRROR[jaw]].all()


def test_jaw_points_that_follow_the_contour_are_visible(model):
    face = dataclasses.replace(turned(model, 40.0), jaw="contour")
    assert visible_landmarks_of(face, model).visible[JAW].all()


def test_faces_without_enough_points_are_named(model):
    face = turned(model, 0.0)
    few = np.where((np.arange(68) < 20)[:, None], face.points, np.nan)
    with pytest.raises(DatasetError, match="a: has too few points"):
        visible_landmarks_of(dataclasses.replace(face, points=few), model)
    with pytest.raises(DatasetError, match="a: its points span no face"):
        visible_landmarks_of(dataclasses.replace(face, points=np.ones((68, 2))), model)


def test_a_point_behind_a_triangle_is_hidden_and_beside_it_is_not():
    """A triangle 100 mm from an orthographic camera of one pixel a millimetre."""
    vertices = jnp.array([[-10.0, -10.0, 100.0], [-10.0, 10.0, 100.0], [10.0, -10.0, 100.0]])
    behind = jnp.array([102.0, 104.0, 104.0, 90.0])
    xy = jnp.array([[-5.0, -5.0], [-5.0, -5.0], [9.0, 9.0], [-40.0, 0.0]])
    points = jnp.concatenate([xy, behind[:, None]], axis=-1)
    triangles = jnp.array([[0, 1, 2]])
    back = jnp.array([[5.0, 5.0, 104.0], [5.0, 15.0, 104.0], [15.0, 5.0, 104.0]])
    camera = Camera(jnp.float32(1.0), jnp.full(2, 31.5), "orthographic")
    both = jnp.concatenate([vertices, back]), jnp.concatenate([triangles, triangles + 3])
    visible = visible_points(points, *both, camera, 64)
    assert visible.tolist() == [True, False, True, False]


# --- ground-truth parameters ---


@pytest.fixture(scope="module")
def lp(tmp_path_factory) -> LPModel:
    folder = tmp_path_factory.mktemp("basel")
    layouts.write_3ddfa(folder, BASEL)
    return read_lp_model(folder)


def given(yaw: float) -> AnnotatedFace:
    """A face of Basel's mean shape, yaw in radians; its points say nothing but where it is."""
    pose = np.array([0.0, yaw, 0.0, 225.0, 225.0, -90.0, 1.5e-3])
    points = np.tile([[120.0, 90.0], [330.0, 360.0]], (34, 1))
    parameters = Parameters(pose, np.zeros(199), np.zeros(29))
    return AnnotatedFace(Path("b.jpg"), points, "b", jaw="surface", parameters=parameters)


@pytest.mark.parametrize("yaw", [0.0, 0.7, -1.4])
def test_parameters_show_what_of_a_cylinder_faces_the_camera(lp, model, yaw):
    """The generated face is a half cylinder about the y axis; its nose hides what is beside it."""
    found = visible_landmarks_of(given(yaw), model, lp)
    assert found.of == "ground-truth mesh"
    x, y, z = (BASEL.mean_mm + BASEL.mean_expression_mm)[BASEL.keypoints].T
    # A positive yaw turns the subject's left, which is +x, to the camera.
    facing = np.cos(np.arctan2(x, z) - yaw)
    no_nose = np.abs(y) > 60.0
    assert found.visible[no_nose & (facing > 0.3)].all()
    assert not found.visible[no_nose & (facing < -0.3)].any()
    assert (no_nose & (facing > 0.3)).sum() > 5


def test_without_their_model_the_points_say_what_is_visible(lp, model):
    face = dataclasses.replace(turned(model, 80.0), parameters=given(0.0).parameters)
    assert visible_landmarks_of(face, model).of == "fitted mesh"
    assert visible_landmarks_of(face, model, lp).of == "ground-truth mesh"


def test_a_model_with_other_coefficients_is_refused(lp, model):
    parameters = Parameters(given(0.0).parameters.pose, np.zeros(100), np.zeros(29))
    with pytest.raises(FaceModelError, match="199 and 29 coefficients, the annotation 100 and 29"):
        visible_landmarks_of(dataclasses.replace(given(0.0), parameters=parameters), model, lp)


def test_photographs_of_aflw2000_hide_the_half_that_is_turned_away(model):
    """Frontal, and turned by 38 and 45 degrees to the image's left."""
    faces = {face.name: face for face in aflw2000(shared_data("aflw2000"))}
    hidden = {
        name: np.flatnonzero(~visible_landmarks_of(face, model).visible).tolist()
        for name, face in faces.items()
    }
    assert hidden["image00050"] == []
    for name in ("image02616", "image04331"):
        assert faces[name].pose_deg[0] > 35.0
        assert set(range(7)) | {17} <= set(hidden[name]) and 7 < len(hidden[name]) < 15
