"""The fit to one half of a face: it finds the turn of simulated profiles, whatever is hidden."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from dfc_jax.camera import project, to_camera
from dfc_jax.fitting import ProfileSettings, fit_profile, profile_landmarks
from dfc_jax.fitting.profiles import HABIT_MM, JAW_BONE_MM, beyond_outline, turn_of
from dfc_jax.landmarks68 import LEFT, MIRROR, N_JAW, RIGHT
from dfc_jax.morphable.linear import FaceModel, shape, surface_positions
from dfc_jax.ops.rotations import (
    angles_to_rotvec,
    head_rotation,
    matrix_to_angles,
    matrix_to_rotvec,
)
from dfc_jax.types import Array, Camera, FaceParams

CENTRE = jnp.full(2, 95.5)
# About the size of a face in a stored square.
PX_PER_MM = 0.75
# Those that CFP annotates of a profile that shows the subject's right half.
OF_RIGHT = [*range(9), 17, 19, 21, *range(36, 42), *range(27, 34), 48, 51, 57, 62, 66]


def profile(key: Array, yaw_deg: float, model: FaceModel) -> FaceParams:
    """A random head, one to three metres away."""
    keys = jax.random.split(key, 4)
    distance = 1000.0 * jnp.exp(jax.random.uniform(keys[0], maxval=jnp.log(3.0)))
    spread = jnp.array([0.0, 10.0, 5.0]) * jax.random.normal(keys[1], (3,))
    return FaceParams(
        focal_px=PX_PER_MM * distance,
        rotation=angles_to_rotvec(jnp.array([yaw_deg, 0.0, 0.0]) + spread),
        translation_mm=distance * jnp.array([0.0, 0.0, 1.0]),
        identity=jax.random.normal(keys[2], (50,)),
        expression=jnp.zeros(model.n_expression).at[10].set(0.5 * jax.random.uniform(keys[3])),
    )


def seen(model: FaceModel, params: FaceParams) -> Array:
    """The points (68, 2) of a face, NaN in its far half."""
    vertices = shape(model, params.identity, params.expression)
    places = surface_positions(vertices, model.triangles, profile_landmarks(model))
    for number, (up, forward) in HABIT_MM.items():
        places = places.at[np.unique([number, MIRROR[number]])].add(jnp.array([0.0, up, forward]))
    points = project(Camera(params.focal_px, CENTRE), to_camera(params, places))
    yaw = matrix_to_angles(head_rotation(params.rotation))[0]
    near = jnp.zeros(68, bool).at[jnp.array(OF_RIGHT)].set(True)
    return jnp.where(jnp.where(yaw > 0, near[MIRROR], near)[:, None], points, jnp.nan)


def yaws_of(model: FaceModel, yaw_deg: float, count: int = 16) -> np.ndarray:
    """Yaws (count,) that the fit finds of heads at a yaw whose points are a pixel off."""
    keys = jax.random.split(jax.random.key(round(abs(yaw_deg))), count)
    heads = jax.vmap(partial(profile, yaw_deg=yaw_deg, model=model))(keys)
    points = jax.vmap(partial(seen, model))(heads)
    points += jax.random.normal(jax.random.key(1), points.shape)
    fitted = jax.vmap(lambda some: fit_profile(model, some, CENTRE))(points).params
    return np.asarray(jax.vmap(matrix_to_angles)(head_rotation(fitted.rotation))[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("yaw_deg", [-60.0, 75.0, -88.0])
def test_the_fit_of_half_a_face_finds_how_far_it_is_turned(model, yaw_deg: float) -> None:
    error = yaws_of(model, yaw_deg) - yaw_deg
    assert abs(error.mean()) < 6.0 and error.std() < 5.0


def test_every_landmark_is_of_one_half_or_in_the_middle() -> None:
    middle = np.arange(68) == MIRROR
    np.testing.assert_array_equal(LEFT.astype(int) + RIGHT + middle, 1)
    np.testing.assert_array_equal(LEFT[MIRROR], RIGHT)


def test_the_jaw_bone_lies_on_the_surface_from_the_ear_to_the_chin(model) -> None:
    points = profile_landmarks(model)
    places = np.asarray(surface_positions(model.mean_mm, model.triangles, points))
    np.testing.assert_allclose(places[:9], JAW_BONE_MM, atol=4.0)
    np.testing.assert_allclose(places[MIRROR[:9]] * [-1, 1, 1], places[:9], atol=1e-3)
    assert (np.diff(places[:9], axis=0)[:, 2] > 0).all(), "each is farther in front"
    np.testing.assert_array_equal(points.triangle[N_JAW:], model.landmarks.triangle[N_JAW:])


def test_the_turn_does_not_depend_on_how_the_picture_is_tilted() -> None:
    for tilt in (0.0, 0.6, -1.0):
        turned = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        yaw = head_rotation(angles_to_rotvec(jnp.array([75.0, 0.0, 0.0])))
        matrix = np.eye(3)
        matrix[:2, :2] = turned
        # Positive yaw looks to the left.
        rotation = jnp.asarray(matrix) @ yaw @ jnp.diag(jnp.array([1.0, -1.0, -1.0]))
        rotvec = matrix_to_rotvec(rotation)
        assert turn_of(rotvec, jnp.asarray(turned @ [-1.0, 0.0])) == pytest.approx(75.0, abs=1e-2)


def test_only_what_lies_outside_the_outline_is_pushed() -> None:
    outline = jnp.array([[10.0, 0.0], [20.0, 50.0], [10.0, 100.0]])
    places = jnp.array([[25.0, 50.0], [5.0, 50.0], [19.0, 25.0], [90.0, -1.0], [90.0, 101.0]])
    out = beyond_outline(places, outline, jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(out, [0.05, 0.0, 0.04, 0.0, 0.0], atol=1e-6)
    slopes = jax.grad(lambda some: beyond_outline(some, outline, jnp.array([1.0, 0.0])).sum())
    np.testing.assert_allclose(slopes(places)[:, 0], [0.01, 0.0, 0.01, 0.0, 0.0], atol=1e-6)


@pytest.mark.slow
def test_far_points_that_would_show_turn_the_head_further(model) -> None:
    """Of a head that is turned by 45 degrees, far brow and cheek would show."""
    points = seen(model, profile(jax.random.key(3), -45.0, model))
    loose = dataclasses.replace(ProfileSettings(), turn_sd_deg=100.0, outline_sd=jnp.inf)
    held = dataclasses.replace(loose, outline_sd=0.02)

    def yaw(settings) -> float:
        rotation = fit_profile(model, points, CENTRE, settings).params.rotation
        return float(matrix_to_angles(head_rotation(rotation))[0])

    assert yaw(held) < yaw(loose) - 4.0


def test_half_a_face_without_its_outline_or_without_points_gives_a_face(model) -> None:
    points = seen(model, profile(jax.random.key(3), -70.0, model))
    for hidden in (points.at[jnp.array([8, 30])].set(jnp.nan), jnp.full((68, 2), jnp.nan)):
        for leaf in jax.tree.leaves(fit_profile(model, hidden, CENTRE).params):
            assert jnp.isfinite(leaf).all()
