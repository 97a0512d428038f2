"""Projection, and the maps between photographs and crops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfc_jax.camera import MIN_DEPTH_MM, crop_camera, project, project_jacobian, to_camera
from dfc_jax.crops import CROP_LIFT, CROP_SCALE, Crop, apply_affine, box_of_points, crop_of_box
from dfc_jax.ops.rotations import angles_to_matrix, angles_to_rotvec
from dfc_jax.types import Camera, FaceParams


def params(angles=(0.0, 0.0, 0.0), translation=(0.0, 0.0, 500.0), focal=900.0):
    return FaceParams(
        focal_px=jnp.float32(focal),
        rotation=angles_to_rotvec(jnp.array(angles)),
        translation_mm=jnp.array(translation),
        identity=jnp.zeros(0),
        expression=jnp.zeros(0),
    )


crops = st.builds(
    lambda x, y, side, roll, size: Crop(np.array([x, y]), side, roll, size),
    st.floats(-500, 5000),
    st.floats(-500, 5000),
    st.floats(5, 4000),
    st.sampled_from([0.0, -20.0, 90.0, 200.0]),
    st.sampled_from([64, 128, 512]),
)


@settings(deadline=None)
@given(crops)
def test_a_rolled_crop_stands_as_its_head(crop):
    """What points to the crop's top points to `roll_deg`, clockwise from the top, in the photo."""
    middle = (crop.size - 1) / 2.0
    top = apply_affine(crop.to_photo, np.array([middle, middle - 1.0])) - crop.centre
    roll = np.deg2rad(crop.roll_deg)
    np.testing.assert_allclose(top * crop.scale, [np.sin(roll), -np.cos(roll)], atol=1e-6)


@settings(deadline=None)
@given(crops)
def test_crop_and_photo_maps_are_inverses(crop):
    points = np.random.default_rng(0).uniform(-100, 3000, (20, 2))
    back = apply_affine(crop.to_photo, apply_affine(crop.to_crop, points))
    np.testing.assert_allclose(back, points, atol=1e-6)


@settings(deadline=None)
@given(crops)
def test_the_crop_shows_exactly_its_square(crop):
    """The outer edges of the outermost pixels, not their centres, lie on the square's edges."""
    to_corner = crop.rotation @ np.full(2, crop.side_px / 2)
    low, high = crop.centre - to_corner, crop.centre + to_corner
    np.testing.assert_allclose(apply_affine(crop.to_crop, low), -0.5, atol=1e-6)
    np.testing.assert_allclose(apply_affine(crop.to_crop, high), crop.size - 0.5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 3.0])
def test_cropping_a_whole_picture_is_resizing_it(scale):
    side = 64
    crop = Crop(centre=np.full(2, (side - 1) / 2), side_px=side, size=round(side * scale))
    points = np.random.default_rng(1).uniform(0, side, (10, 2))
    np.testing.assert_allclose(
        apply_affine(crop.to_crop, points), scale * (points + 0.5) - 0.5, atol=1e-9
    )


def test_projection_of_known_points():
    camera = Camera(jnp.float32(100.0), jnp.array([10.0, 20.0]))
    points = jnp.array([[0.0, 0.0, 50.0], [5.0, -10.0, 50.0], [5.0, -10.0, 100.0]])
    np.testing.assert_allclose(project(camera, points), [[10, 20], [20, 0], [15, 10]], atol=1e-5)
    flat = Camera(jnp.float32(2.0), jnp.array([10.0, 20.0]), "orthographic")
    np.testing.assert_allclose(project(flat, points), [[10, 20], [20, 0], [20, 0]], atol=1e-5)


def test_points_behind_the_camera_stay_finite_with_finite_gradients():
    camera = Camera(jnp.float32(100.0), jnp.array([10.0, 20.0]))
    points = jnp.array([[1.0, 2.0, -50.0], [1.0, 2.0, 0.0], [1.0, 2.0, MIN_DEPTH_MM]])
    pixels = project(camera, points)
    np.testing.assert_allclose(pixels, np.tile([110.0, 220.0], (3, 1)), rtol=1e-6)
    gradient = jax.grad(lambda p: project(camera, p).sum())(points)
    assert np.isfinite(gradient).all()


def test_projection_gradients_match_finite_differences():
    points = jnp.array([[30.0, -20.0, 300.0], [-40.0, 10.0, 500.0]])

    def pixels(points, focal):
        return project(Camera(focal, jnp.array([64.0, 64.0])), points)

    d_points, d_focal = jax.jacfwd(pixels, argnums=(0, 1))(points, jnp.float32(400.0))
    x, y, z = np.asarray(points).T
    np.testing.assert_allclose(d_focal, np.stack([x / z, y / z], -1), rtol=1e-5)
    for i in range(2):
        expected = np.array([[1, 0, -x[i] / z[i]], [0, 1, -y[i] / z[i]]]) * 400 / z[i]
        np.testing.assert_allclose(d_points[i, :, i], expected, rtol=1e-4, atol=1e-6)
        assert not np.asarray(d_points[i, :, 1 - i]).any()


def test_to_camera_turns_then_moves():
    face = params(angles=(25.0, -10.0, 40.0), translation=(3.0, -4.0, 600.0))
    points = np.random.default_rng(3).uniform(-90, 90, (7, 3)).astype(np.float32)
    rotation = np.asarray(angles_to_matrix(jnp.array([25.0, -10.0, 40.0])))
    expected = points @ rotation.T + [3.0, -4.0, 600.0]
    np.testing.assert_allclose(to_camera(face, points), expected, rtol=1e-5, atol=1e-3)


def test_a_frontal_face_is_upright_and_its_left_is_on_the_right():
    camera = crop_camera(params(), 128)
    left_of_subject, top, nose = [50.0, 0, 0], [0, 80.0, 0], [0, 0, 60.0]
    points = to_camera(params(), jnp.array([[0.0, 0, 0], left_of_subject, top, nose]))
    origin, left, up, front = np.asarray(project(camera, points))
    np.testing.assert_allclose(origin, 63.5, atol=1e-4)
    assert left[0] > origin[0] and up[1] < origin[1]
    np.testing.assert_allclose(front, origin, atol=1e-4)
    assert points[3, 2] < points[0, 2]


def test_crop_of_box_has_the_documented_margin_and_lift():
    crop = crop_of_box(np.array([100.0, 50.0, 40.0, 60.0]), size=64)
    assert crop.side_px == pytest.approx(CROP_SCALE * 60.0)
    np.testing.assert_allclose(crop.centre, [120.0, 80.0 - CROP_LIFT * 60.0])
    assert crop.size == 64 and crop.scale == pytest.approx(64 / 90.0)


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 0, 10],
        [0, 0, 10, -1],
        [np.nan, 0, 10, 10],
        [0, np.inf, 10, 10],
        [0, 0, np.nan, 10],
        [0, 0, 10, np.inf],
    ],
)
def test_crop_of_box_refuses_a_box_without_area(box):
    with pytest.raises(ValueError, match="box"):
        crop_of_box(np.array(box, float))


def test_box_of_points_is_tight():
    points = np.array([[3.0, 9.0], [5.0, 4.0], [4.0, 6.0]])
    np.testing.assert_array_equal(box_of_points(points), [3.0, 4.0, 2.0, 5.0])
    hidden = np.concatenate([points, [[np.nan, 50.0], [np.nan, np.nan]]])
    np.testing.assert_array_equal(box_of_points(hidden), [3.0, 4.0, 2.0, 5.0])
    assert np.isnan(box_of_points(hidden[-2:])).all()


def test_derivative_of_the_projection_by_the_point():
    camera = Camera(jnp.float32(300.0), jnp.array([60.0, 64.0]))
    points = jnp.array([[10.0, -20.0, 500.0], [-40.0, 5.0, 900.0], [3.0, 4.0, 0.5]])
    wanted = jax.vmap(jax.jacfwd(project, argnums=1), (None, 0))(camera, points)
    np.testing.assert_allclose(project_jacobian(camera, points), wanted, rtol=1e-6)
    assert (np.asarray(wanted)[2, :, 2] == 0.0).all(), "held at the least depth"
