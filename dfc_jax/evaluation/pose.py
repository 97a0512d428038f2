"""Scores of head poses: errors of the angles, and what is found over the true yaw.

Angles are yaw, pitch and roll in degrees as in `dfc_jax.types`; NaN where one is unknown or no face
was found.
"""

import itertools
from typing import Any

import numpy as np

from dfc_jax.evaluation.regression import line

ANGLES = ("yaw", "pitch", "roll")
# A bin of the true yaw reaches this far around each of its multiples.
YAW_STEP_DEG = 15
# Edges of the bins of its absolute value; the last one holds what is beyond as well.
ABS_YAW_DEG = (0, 30, 60, 90)
ABS_YAW_BINS = tuple(f"{low}-{high}" for low, high in itertools.pairwise(ABS_YAW_DEG))
# A head that is turned as far is a profile.
PROFILE_DEG = 45.0
# A yaw found beyond this may stand for one as far on the other side of 90 degrees.
FOLD_DEG = 60.0


def pose_scores(found_deg: np.ndarray, true_deg: np.ndarray) -> dict[str, dict[str, Any]]:
    """Errors of the angles found (n, 3) against the true ones (n, 3).

    Near a yaw of 90 degrees only a combination of pitch and roll is determined: there the errors of
    these two are large however near the rotation is.

    Returns:
      for each of `ANGLES`, over the faces of which it is known: the ``n``, ``slope`` and ``bias``
      of `line`, and ``mean`` and ``median`` of the absolute error in degrees; and for ``rotation``
      ``n``, ``mean`` and ``median`` of the angle between the two, where all three are known.
    """
    nearest = nearest_angles(found_deg, true_deg)
    errors = np.abs(nearest - true_deg)
    scores = {
        angle: {**line(nearest[:, k], true_deg[:, k]), **_average(errors[:, k])}
        for k, angle in enumerate(ANGLES)
    }
    apart = _angle_between(found_deg, true_deg)
    return {**scores, "rotation": {"n": int(np.isfinite(apart).sum()), **_average(apart)}}


def yaw_curve(found_deg: np.ndarray, true_deg: np.ndarray) -> dict[str, dict[str, Any]]:
    """Of angles found (n, 3), the median yaw per bin of the true yaw, by the middle of the bin."""
    found, true = nearest_angles(found_deg, true_deg)[:, 0], true_deg[:, 0]
    known = np.isfinite(found) & np.isfinite(true)
    found, true = found[known], true[known]
    bins = np.round(true / YAW_STEP_DEG).astype(int) * YAW_STEP_DEG
    return {
        str(middle): {
            "n": int((bins == middle).sum()),
            "true": float(np.median(true[bins == middle])),
            "found": float(np.median(found[bins == middle])),
        }
        for middle in np.unique(bins)
    }


def nearest_angles(found_deg: np.ndarray, true_deg: np.ndarray) -> np.ndarray:
    """The same rotations (n, 3) by the angles nearest to the true ones (n, 3).

    Two triples name every rotation: a yaw of 95 degrees is also one of 85, pitch and roll half a
    turn on. The other one is tried beyond `FOLD_DEG` alone: elsewhere only a broken fit could gain.
    """
    named = np.stack([found_deg, [180.0, 180.0, 180.0] + found_deg * [-1.0, 1.0, 1.0]])
    difference = (named - true_deg + 180.0) % 360.0 - 180.0
    near, far = np.nansum(np.abs(difference), axis=-1)
    other = (far < near) & (np.abs(found_deg[:, 0]) > FOLD_DEG)
    nearest = true_deg + np.where(other[:, None], difference[1], difference[0])
    # Where there is no truth, nothing is nearer.
    return np.where(np.isfinite(true_deg), nearest, found_deg)


def _angle_between(one_deg: np.ndarray, other_deg: np.ndarray) -> np.ndarray:
    """Angle (n,) of the rotation from one to the other of angles (n, 3).

    By SciPy in place of `dfc_jax.ops.rotations`: what scores predictions compiles nothing.
    """
    from scipy.spatial.transform import Rotation  # here: slow to import

    apart = np.full(len(one_deg), np.nan)
    known = np.isfinite(one_deg).all(axis=-1) & np.isfinite(other_deg).all(axis=-1)
    if known.any():
        one, other = (
            # Rx(pitch) Ry(yaw) Rz(roll), whose signs are those of `dfc_jax.types`.
            Rotation.from_euler("XYZ", -angles[known][:, [1, 0, 2]], degrees=True)
            for angles in (one_deg, other_deg)
        )
        apart[known] = np.rad2deg((one.inv() * other).magnitude())
    return apart


def abs_yaw_bins(true_yaw_deg: np.ndarray) -> np.ndarray:
    """The bin (n,) int of `ABS_YAW_DEG` in which the absolute yaw lies; -1 where it is unknown."""
    which = np.searchsorted(ABS_YAW_DEG[1:-1], np.abs(true_yaw_deg), side="right")
    return np.where(np.isfinite(true_yaw_deg), which, -1)


def over_abs_yaw(values: np.ndarray, true_deg: np.ndarray) -> dict[str, dict[str, Any]]:
    """Mean of values (n,) per bin of the absolute true yaw (n,), ``0-30`` and so on."""
    which = np.where(np.isfinite(values), abs_yaw_bins(true_deg), -1)
    return {
        name: {"n": int((which == k).sum()), "mean": _mean(values[which == k])}
        for k, name in enumerate(ABS_YAW_BINS)
    }


def profile_scores(found_yaw_deg: np.ndarray, profile: np.ndarray) -> dict[str, Any]:
    """Of the profiles (n,) bool: ``n`` that were found, and the ``median_abs_yaw`` found."""
    yaw = np.abs(found_yaw_deg[profile])
    return {"n": int(np.isfinite(yaw).sum()), "median_abs_yaw": _median(yaw)}


def _average(errors: np.ndarray) -> dict[str, float | None]:
    return {"mean": _mean(errors), "median": _median(errors)}


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None
