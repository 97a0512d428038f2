"""The angles of `dfc_jax.types` mean what they say: on renders, and as AFLW2000-3D counts them."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
from paths import shared_data

from dfc_jax.camera import project, to_camera
from dfc_jax.crops import apply_affine, box_of_points, crop_of_box
from dfc_jax.fitting import fit_landmarks
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import landmarks3d
from dfc_jax.ops.rotations import angles_to_rotvec, head_rotation, matrix_to_angles
from dfc_jax.systems.dfc.template import frontal_params
from dfc_jax.types import Camera

NOSE_TIP, NOSE_BRIDGE, CHIN, RIGHT_EYE, LEFT_EYE = 30, 27, 8, 36, 45


def landmarks_at(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    model = load_face_model()
    params = frontal_params(model)
    params = params.replace(rotation=angles_to_rotvec(jnp.array([yaw, pitch, roll])))
    camera = Camera(params.focal_px, jnp.full(2, 63.5))
    return np.asarray(project(camera, to_camera(params, landmarks3d(model, model.mean_mm))))


def test_the_subjects_left_eye_is_on_the_images_right():
    points = landmarks_at()
    assert points[LEFT_EYE, 0] > points[RIGHT_EYE, 0]
    assert points[CHIN, 1] > points[NOSE_TIP, 1]


def test_positive_yaw_turns_the_nose_to_the_images_left():
    points = landmarks_at(yaw=25.0)
    eyes = points[[LEFT_EYE, RIGHT_EYE], 0].mean()
    assert points[NOSE_TIP, 0] < eyes - 5.0


def test_positive_pitch_lifts_the_nose_towards_the_eyes():
    level, lifted = landmarks_at(), landmarks_at(pitch=20.0)

    def drop(points: np.ndarray) -> float:
        return points[NOSE_TIP, 1] - points[[LEFT_EYE, RIGHT_EYE], 1].mean()

    assert drop(lifted) < drop(level) - 5.0


def test_positive_roll_turns_the_head_clockwise():
    points = landmarks_at(roll=20.0)
    # The head's up axis leans to the image's right; the eye on the image's right goes down.
    assert points[NOSE_BRIDGE, 0] > points[CHIN, 0] + 10.0
    assert points[LEFT_EYE, 1] > points[RIGHT_EYE, 1] + 10.0


@pytest.mark.parametrize("name", ["image00050", "image02616", "image04331"])
def test_aflw2000_counts_angles_the_same_way(name: str):
    """Fits of our model to their 68 points against their `Pose_Para` (pitch, yaw, roll).

    The zero of the pitch belongs to a model: ours and Basel's differ by several degrees.
    """
    annotation = scipy.io.loadmat(shared_data(f"aflw2000/{name}.mat"))
    pitch, yaw, roll = np.rad2deg(annotation["Pose_Para"][0][:3])
    points = annotation["pt3d_68"][:2].T - 1.0
    crop = crop_of_box(box_of_points(points))
    fitted = fit_landmarks(
        load_face_model(),
        jnp.asarray(apply_affine(crop.to_crop, points), jnp.float32),
        jnp.full(2, 63.5),
    )
    ours = np.asarray(matrix_to_angles(head_rotation(fitted.params.rotation)))
    np.testing.assert_allclose(ours[[0, 2]], [yaw, roll], atol=8.0)
    assert abs(ours[1] - pitch) < 12.0
