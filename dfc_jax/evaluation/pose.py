"""Scores of head poses: errors of the angles, and what is found over the true yaw (NumPy).

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
# A head that is turned as far is a profile.
PROFILE_DEG = 45.0


def pose_scores(found_deg: np.ndarray, true_deg: np.ndarray) -> dict[str, dict[str, Any]]:
    """For each of `ANGLES`, over the faces (n, 3) of which it is known: the ``n``, ``slope`` and
    ``bias`` of `line`, and ``mean`` and ``median`` of the absolute error in degrees."""
    difference = _turn(found_deg - true_deg)
    return {
        angle: {
            # Found and true on the same turn.
            **line(true_deg[:, k] + difference[:, k], true_deg[:, k]),
            "mean": _mean(np.abs(difference[:, k])),
            "median": _median(np.abs(difference[:, k])),
        }
        for k, angle in enumerate(ANGLES)
    }


def yaw_curve(found_deg: np.ndarray, true_deg: np.ndarray) -> dict[str, dict[str, Any]]:
    """Median of the yaw found (n,) per bin of the true yaw (n,), by the middle of the bin."""
    known = np.isfinite(found_deg) & np.isfinite(true_deg)
    found_deg, true_deg = found_deg[known], true_deg[known]
    bins = np.round(true_deg / YAW_STEP_DEG).astype(int) * YAW_STEP_DEG
    return {
        str(middle): {
            "n": int((bins == middle).sum()),
            "true": float(np.median(true_deg[bins == middle])),
            "found": float(np.median(found_deg[bins == middle])),
        }
        for middle in np.unique(bins)
    }


def over_abs_yaw(values: np.ndarray, true_deg: np.ndarray) -> dict[str, dict[str, Any]]:
    """Mean of values (n,) per bin of the absolute true yaw (n,), ``0-30`` and so on."""
    known = np.isfinite(values) & np.isfinite(true_deg)
    values, yaw = values[known], np.abs(true_deg[known])
    which = np.searchsorted(ABS_YAW_DEG[1:-1], yaw, side="right")
    edges = itertools.pairwise(ABS_YAW_DEG)
    return {
        f"{low}-{high}": {"n": int((which == k).sum()), "mean": _mean(values[which == k])}
        for k, (low, high) in enumerate(edges)
    }


def profile_scores(found_yaw_deg: np.ndarray, profile: np.ndarray) -> dict[str, Any]:
    """Of the profiles (n,) bool: ``n`` that were found, and the ``median_abs_yaw`` found."""
    yaw = np.abs(found_yaw_deg[profile])
    return {"n": int(np.isfinite(yaw).sum()), "median_abs_yaw": _median(yaw)}


def _turn(difference_deg: np.ndarray) -> np.ndarray:
    """The same difference of angles in [-180, 180)."""
    return (difference_deg + 180.0) % 360.0 - 180.0


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None
