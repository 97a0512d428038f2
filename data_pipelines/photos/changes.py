"""What becomes of a photograph in a copy: another pose, and another expression (NumPy)."""

import numpy as np
from flax import struct

from dfc_jax.morphable.linear import FaceModel
from dfc_jax.types import AnyArray, ByValue

# Of a head that turns by more than the first angle, and all the more by more than the second, the
# photograph does not show the other cheek, and beside the nose it shows what is behind: turned back
# by more than the third, it would have two noses.
SIDE_DEG, PROFILE_DEG, NEAR_DEG = 30.0, 45.0, 20.0
# Of the copies that blink, the share that winks with one eye.
_WINKS = 0.25
# How far they close it at least.
_LEAST_BLINK = 0.3


@struct.dataclass(eq=False)
class Changes(ByValue):
    """Changes of N photographs.

    Attributes:
      yaw_deg, pitch_deg: (N,) the new angles.
      calm: (N,) the weights of the expression shapes are multiplied by it.
      blink: (N, 2) what `eyeBlink` weighs then at least, of the left and the right eye.
    """

    yaw_deg: AnyArray
    pitch_deg: AnyArray
    calm: AnyArray
    blink: AnyArray


def drawn_changes(
    rng: np.random.Generator,
    pose: np.ndarray,
    yaw_deg: float,
    pitch_deg: float,
    expression_share: float = 0.0,
) -> Changes:
    """Random changes for a copy of each of N photographs.

    Yaws are uniform up to `yaw_deg` either way. A head that turns by more than `SIDE_DEG` is turned
    back by at most `NEAR_DEG`, and a profile (`PROFILE_DEG`) not at all, and away by at most
    `NEAR_DEG`. Pitches lie up to `pitch_deg` around the photograph's own, of a profile up to
    `NEAR_DEG`, the nearer the likelier. Neither leaves its range unless the photograph itself does.

    Args:
      rng: where the numbers come from.
      pose: (N, 3) of the photographs, see `PhotoSet`.
      yaw_deg: the largest yaw.
      pitch_deg: the largest pitch, and the largest change of it.
      expression_share: share of the copies whose expression is weakened, and, independently, of
        those that close their eyes.
    """
    own_yaw, own_pitch = pose[:, 0], pose[:, 1]
    away = np.abs(own_yaw)
    is_profile, most = away > PROFILE_DEG, np.maximum(away, yaw_deg)
    low = np.select([is_profile, away > SIDE_DEG], [away, away - NEAR_DEG], -yaw_deg)
    high = np.minimum(np.where(is_profile, away + NEAR_DEG, yaw_deg), most)
    share = rng.uniform(0.0, 1.0, len(pose))
    yaw = np.copysign(1.0, own_yaw) * (low + share * (np.maximum(low, high) - low))

    change = np.where(is_profile, min(NEAR_DEG, pitch_deg), pitch_deg)
    pitch = own_pitch + change * rng.triangular(-1.0, 0.0, 1.0, len(pose))
    most = np.maximum(np.abs(own_pitch), pitch_deg)

    is_calm, blinks = rng.random((2, len(pose))) < expression_share
    calm = np.where(is_calm, rng.random(len(pose)), 1.0)
    level = np.where(blinks, rng.uniform(_LEAST_BLINK, 1.0, len(pose)), 0.0)
    winks, which = rng.random(len(pose)) < _WINKS, rng.integers(0, 2, len(pose))
    closed = ~winks[:, None] | (which[:, None] == np.arange(2))
    return Changes(yaw, np.clip(pitch, -most, most), calm, level[:, None] * closed)


def blink_columns(model: FaceModel) -> list[int]:
    """Where `eyeBlink` of the left and the right eye stand among the expression shapes.

    Raises:
      ValueError: the model has no such shapes.
    """
    return [model.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]


def changed_expressions(model: FaceModel, expression: np.ndarray, changes: Changes) -> np.ndarray:
    """Weights (N, E) of the model's expression shapes after N `changes`."""
    blinks = blink_columns(model)
    changed = np.asarray(changes.calm)[:, None] * expression
    changed[:, blinks] = np.maximum(changed[:, blinks], changes.blink)
    return changed.astype(np.float32)
