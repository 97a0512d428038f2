"""The One-Euro filter: what stands still hardly trembles, what moves is hardly late."""

import numpy as np
import pytest
from faces import mean_aligner
from scipy.spatial.transform import Rotation

from dfc_jax.inference.smooth import Filter, OneEuro, Smoother, moved, rotations, share

FPS = 30.0
TIMES = np.arange(120) / FPS


def filtered(smooth, values, times=TIMES):
    return np.array([smooth(time, value) for time, value in zip(times, values, strict=True)])


def test_first_value_is_taken_as_it_is():
    np.testing.assert_array_equal(Filter(OneEuro(1.0, 0.0))(3.0, np.array([1.0, 2.0])), [1.0, 2.0])


def test_step_is_answered_as_by_a_low_pass_of_the_cutoff():
    found = filtered(Filter(OneEuro(1.0, 0.0)), [np.zeros(1), *np.ones((len(TIMES) - 1, 1))])
    np.testing.assert_allclose(found[:, 0], 1.0 - np.exp(-2.0 * np.pi * TIMES), atol=1e-9)


def test_frames_that_come_twice_as_often_change_nothing():
    # The same signal, of which every frame is seen twice.
    often = np.repeat(TIMES, 2)[1:] - np.tile([0.0, 0.5 / FPS], len(TIMES))[1:]
    steps = (TIMES > 1.0).astype(float)[:, None]
    seldom = filtered(Filter(OneEuro(1.0, 0.0)), steps)
    twice = filtered(Filter(OneEuro(1.0, 0.0)), np.repeat(steps, 2, axis=0)[1:], often)
    np.testing.assert_allclose(twice[::2], seldom, atol=1e-9)


def test_still_value_trembles_less_and_moving_one_is_less_late_than_by_a_plain_low_pass():
    noise = 0.003 * np.random.default_rng(0).standard_normal((len(TIMES), 1))
    one_euro, plain = OneEuro(0.7, 3.0), OneEuro(0.7, 0.0)
    still = filtered(Filter(one_euro), noise)
    assert still[30:].std() < noise[30:].std() / 3.0
    ramp = 2.0 * TIMES[:, None]
    late = [ramp[-1] - filtered(Filter(settings), ramp)[-1] for settings in (one_euro, plain)]
    assert late[0] < 0.25 * late[1]
    # In frames.
    assert late[0] / 2.0 * FPS < 1.0


@pytest.mark.parametrize("alike", [True, False])
def test_components_share_a_cutoff_only_where_they_belong_together(alike):
    still_and_fast = np.stack([0.01 * (-1.0) ** np.arange(len(TIMES)), 3.0 * TIMES], axis=1)
    found = filtered(Filter(OneEuro(0.5, 3.0), alike), still_and_fast)
    trembling = found[60:, 0].std() / still_and_fast[60:, 0].std()
    assert (trembling > 0.3) == alike


def test_speeds_are_measured_in_units():
    ramp = 50.0 * TIMES[:, None]
    smooth = Filter(OneEuro(0.5, 3.0))
    of_pixels = filtered(lambda time, value: smooth(time, value, 50.0), ramp)
    wanted = filtered(Filter(OneEuro(0.5, 3.0)), ramp / 50.0)
    np.testing.assert_allclose(of_pixels, 50.0 * wanted, rtol=1e-9)


def test_rotations_go_the_shortest_way_and_stay_rotations():
    angles = 3.0 + 0.5 * TIMES  # past half a turn, where rotation vectors jump
    turns = Rotation.from_rotvec(angles[:, None] * [0.0, 0.0, 1.0]).as_matrix()
    found = filtered(rotations(OneEuro(0.7, 3.0)), turns)
    wanted = filtered(Filter(OneEuro(0.7, 3.0)), angles[:, None])[:, 0]
    np.testing.assert_allclose(found @ found.swapaxes(1, 2), np.eye(3)[None] + 0 * found, atol=1e-9)
    turned = np.unwrap(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    np.testing.assert_allclose(turned, wanted, atol=1e-6)


def test_share_of_no_time_is_nothing_and_of_long_is_all():
    assert share(0.0, 5.0) == 0.0
    assert share(10.0, 5.0) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def face():
    (found,) = mean_aligner()(np.zeros((200, 200, 3), np.uint8))
    return found


def test_face_that_does_not_move_stays_as_it_is(model, face):
    smooth = Smoother(model)
    for time in TIMES[:3]:
        found = smooth(time, face)
    # The jaw's landmarks are those that are seen from where the camera stands.
    np.testing.assert_allclose(found.landmarks[17:], face.landmarks[17:], atol=0.05)
    np.testing.assert_allclose(found.vertices_mm, face.vertices_mm, atol=0.05)
    np.testing.assert_allclose(found.translation_mm, face.translation_mm, rtol=1e-6)
    assert found.angles_deg == pytest.approx(face.angles_deg, abs=1e-3)
    np.testing.assert_array_equal(found.flow, face.flow)


def test_moved_face_is_where_it_was_moved_to(model, face):
    shift = np.array([20.0, -10.0, 100.0])
    still = np.zeros(model.n_expression)
    found = moved(model, face, face.rotation, face.translation_mm + shift, still)
    np.testing.assert_allclose(found.vertices_mm, face.vertices_mm + shift, atol=0.01)
    depth = found.landmarks3d_mm[:, 2:]
    seen = face.focal_px * found.landmarks3d_mm[:, :2] / depth + face.principal_point
    np.testing.assert_allclose(found.landmarks, seen, atol=1e-2)
    assert list(found.expression) == list(face.expression)
