"""What copies of photographs are changed by."""

import numpy as np
import pytest

from data_pipelines.photos.changes import (
    Changes,
    blink_columns,
    changed_expressions,
    drawn_changes,
)


def drawn(pose: np.ndarray, yaw_deg: float, pitch_deg: float, share: float = 0.0) -> Changes:
    return drawn_changes(np.random.default_rng(0), pose, yaw_deg, pitch_deg, share)


def test_copies_spread_over_yaws_and_most_stay_near_their_pitch() -> None:
    pose = np.tile([10.0, -6.0, 3.0], (8000, 1))
    changes = drawn(pose, 90.0, 30.0)
    yaw, pitch = changes.yaw_deg, changes.pitch_deg
    shares = np.histogram(yaw, bins=6, range=(-90.0, 90.0))[0] / yaw.size
    np.testing.assert_allclose(shares, 1 / 6, atol=0.02)
    assert np.abs(pitch + 6.0).max() <= 30.0 and pitch.min() == -30.0 and pitch.max() > 20.0
    assert np.mean(np.abs(pitch + 6.0) < 15.0) == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(drawn(pose, 90.0, 0.0).pitch_deg, -6.0)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_heads_that_turn_are_hardly_turned_to_the_side_that_they_hide(side: float) -> None:
    own = np.array([31.0, 44.0, 46.0, 80.0, 100.0])
    pose = np.zeros((500, 5, 3))
    pose[..., 0] = side * own
    changes = drawn(pose.reshape(-1, 3), 90.0, 30.0)
    yaw = side * changes.yaw_deg.reshape(500, 5)
    change, pitch = yaw - own, changes.pitch_deg.reshape(500, 5)
    assert -20.0 <= change[:, :2].min() < -15.0 and yaw[:, :2].max() > 80.0
    # Profiles stay near their own yaw and pitch, and show no more of the front.
    assert change[:, 2:].min() >= 0.0 and change[:, 2:].max() <= 20.0
    assert change[:, 2].max() > 15.0 and np.abs(pitch[:, 2:]).max() <= 20.0
    assert yaw[:, 3].max() <= 90.0 and (yaw[:, 4] == 100.0).all()


def test_a_share_of_the_copies_blinks_and_a_share_calms_down() -> None:
    changes = drawn(np.zeros((8000, 3)), 90.0, 30.0, 0.4)
    assert np.mean(changes.calm < 1.0) == pytest.approx(0.4, abs=0.02)
    closed = changes.blink > 0.0
    assert closed.any(axis=1).mean() == pytest.approx(0.4, abs=0.02)
    # One in four of them winks, with either eye.
    wink = closed.any(axis=1) & ~closed.all(axis=1)
    assert wink.mean() == pytest.approx(0.1, abs=0.01)
    assert closed[wink].mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.06)
    assert changes.blink[closed].min() >= 0.3 and changes.blink[closed].max() <= 1.0
    still = drawn(np.zeros((50, 3)), 90.0, 30.0)
    assert (still.calm == 1.0).all() and (still.blink == 0.0).all()


def test_a_changed_expression_is_weaker_and_its_eyes_are_closed_at_least_so_far(model) -> None:
    left, right = columns = blink_columns(model)
    own = np.full((2, model.n_expression), 0.8)
    blink = np.array([[0.0, 0.0], [0.3, 1.0]])
    changes = Changes(np.zeros(2), np.zeros(2), np.array([1.0, 0.5]), blink)
    found = changed_expressions(model, own, changes)
    np.testing.assert_allclose(found[0], 0.8)
    assert found[1, left] == pytest.approx(0.4) and found[1, right] == 1.0
    np.testing.assert_allclose(np.delete(found[1], columns), 0.4)
    np.testing.assert_array_equal(own, 0.8)
