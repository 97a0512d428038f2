"""Rotation conversions against SciPy, and the signs that `dfc_jax.types` documents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dfc_jax.ops import rotations
from dfc_jax.ops.rotations import (
    FRONTAL,
    angles_to_matrix,
    angles_to_rotvec,
    head_rotation,
    matrix_to_angles,
    matrix_to_rotvec,
    rotvec_to_matrix,
)

to_matrix = jax.jit(rotvec_to_matrix)
to_rotvec = jax.jit(matrix_to_rotvec)
from_angles = jax.jit(angles_to_matrix)
to_angles = jax.jit(matrix_to_angles)
matrix_jacobian = jax.jit(jax.jacfwd(rotvec_to_matrix))
round_trip_jacobian = jax.jit(jax.jacrev(lambda r: matrix_to_rotvec(rotvec_to_matrix(r))))

directions = st.tuples(*[st.floats(-1, 1)] * 3)
# From far below float32's resolution of a matrix to half turns.
angles = st.one_of(
    st.floats(0, np.pi), st.sampled_from([0.0, 1e-12, 1e-6, 1e-3, np.pi - 1e-4, np.pi])
)


def rotation_vector(direction, angle):
    direction = np.array(direction)
    norm = np.linalg.norm(direction)
    assume(norm > 0.05)
    return (direction / norm * angle).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(directions, angles)
def test_rotvec_to_matrix_is_scipys_and_comes_back(direction, angle):
    rotvec = rotation_vector(direction, angle)
    matrix = np.asarray(to_matrix(rotvec))
    np.testing.assert_allclose(matrix, Rotation.from_rotvec(rotvec).as_matrix(), atol=2e-6)
    back = np.asarray(to_rotvec(matrix))
    assert np.linalg.norm(back) <= np.pi + 1e-5
    if angle > np.pi - 2e-3:
        # The sign of a half turn is a matter of rounding: compare what it does.
        np.testing.assert_allclose(to_matrix(back), matrix, atol=5e-6)
    else:
        np.testing.assert_allclose(back, rotvec, atol=5e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(-89, 89), st.floats(-179, 179), st.floats(-179, 179))
def test_angles_are_scipys_intrinsic_xyz_with_flipped_signs_and_come_back(yaw, pitch, roll):
    given_angles = np.array([yaw, pitch, roll], np.float32)
    matrix = np.asarray(from_angles(given_angles))
    expected = Rotation.from_euler("XYZ", [-pitch, -yaw, -roll], degrees=True).as_matrix()
    np.testing.assert_allclose(matrix, np.array(FRONTAL) @ expected, atol=2e-6)
    # Close to 90 degrees of yaw, pitch and roll become one angle.
    tolerance = 1e-3 / np.cos(np.deg2rad(yaw))
    np.testing.assert_allclose(to_angles(matrix), given_angles, atol=tolerance)


@pytest.mark.parametrize("yaw", [90.0, -90.0])
def test_angles_at_a_profile_give_the_same_rotation_with_no_roll(yaw):
    matrix = from_angles(jnp.array([yaw, 20.0, 35.0]))
    back = to_angles(matrix)
    np.testing.assert_allclose(back, [yaw, 20.0 - np.sign(yaw) * 35.0, 0.0], atol=0.1)
    np.testing.assert_allclose(from_angles(back), matrix, atol=2e-3)


def test_zero_looks_into_the_camera():
    np.testing.assert_array_equal(from_angles(jnp.zeros(3)), np.array(FRONTAL))
    np.testing.assert_array_equal(head_rotation(jnp.zeros(3)), np.array(FRONTAL))
    np.testing.assert_allclose(angles_to_rotvec(jnp.zeros(3)), 0.0, atol=1e-7)


@pytest.mark.parametrize("angle", [10.0, 45.0, 80.0])
def test_signs_of_the_angles_as_seen_in_the_image(angle):
    left, up, forward = np.eye(3)
    moved = np.asarray(from_angles(jnp.array([angle, 0.0, 0.0]))) @ forward
    assert moved[0] == pytest.approx(-np.sin(np.deg2rad(angle)), abs=1e-6), "yaw: image's left"
    moved = np.asarray(from_angles(jnp.array([0.0, angle, 0.0]))) @ forward
    assert moved[1] == pytest.approx(-np.sin(np.deg2rad(angle)), abs=1e-6), "pitch: up"
    roll = np.asarray(from_angles(jnp.array([0.0, 0.0, angle])))
    assert (roll @ up)[0] == pytest.approx(np.sin(np.deg2rad(angle)), abs=1e-6), "roll: clockwise"
    assert (roll @ left)[1] == pytest.approx(np.sin(np.deg2rad(angle)), abs=1e-6)


def test_head_rotation_of_the_angles_rotvec_is_their_matrix():
    rng = np.random.default_rng(0)
    batch = rng.uniform([-89, -170, -170], [89, 170, 170], (50, 3)).astype(np.float32)
    rotvec = jax.jit(angles_to_rotvec)(batch)
    np.testing.assert_allclose(jax.jit(head_rotation)(rotvec), from_angles(batch), atol=5e-6)


def rodrigues_jacobian(rotvec):
    """d matrix / d rotvec (3, 3, 3) by central differences in float64."""
    steps = np.eye(3) * 1e-6
    ends = [Rotation.from_rotvec(rotvec + s * steps).as_matrix() for s in (1, -1)]
    return np.moveaxis((ends[0] - ends[1]) / 2e-6, 0, -1)


@pytest.mark.parametrize("angle", [0.0, 1e-20, 1e-6, 9e-4, 1.1e-3, 0.03, 1.0, 3.0, np.pi, 5.0])
def test_jacobian_of_rotvec_to_matrix_is_right_from_zero_to_beyond_half_a_turn(angle):
    rotvec = np.array([0.48, -0.6, 0.64]) * angle
    got = np.asarray(matrix_jacobian(jnp.asarray(rotvec, jnp.float32)))
    np.testing.assert_allclose(got, rodrigues_jacobian(rotvec), atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-20, 1e-6, 0.03, 1.0, 3.0])
def test_jacobian_of_the_round_trip_is_the_identity(angle):
    rotvec = jnp.array([0.48, -0.6, 0.64], jnp.float32) * angle
    np.testing.assert_allclose(round_trip_jacobian(rotvec), np.eye(3), atol=1e-3)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, -0.8, 0]])
def test_half_turns_have_finite_gradients(axis):
    rotvec = jnp.array(axis, jnp.float32) * np.pi
    assert np.isfinite(round_trip_jacobian(rotvec)).all()
    exact = 2 * np.outer(axis, axis) - np.eye(3)
    back = to_rotvec(jnp.asarray(exact, jnp.float32))
    assert np.linalg.norm(back) == pytest.approx(np.pi, abs=1e-5)
    np.testing.assert_allclose(to_matrix(back), exact, atol=1e-5)


def test_leading_axes_are_batches():
    rotvec = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)
    matrix = to_matrix(rotvec)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(matrix[index], to_matrix(rotvec[index]), atol=1e-6)
        np.testing.assert_allclose(
            to_angles(matrix)[index], to_angles(matrix[index]), rtol=1e-4, atol=1e-4
        )
    assert rotations.matrix_to_rotvec(matrix).shape == (2, 3, 3)
