"""How far eyes and mouths are open, by their landmarks, and how predictions follow it (NumPy)."""

from typing import Any

import numpy as np

from dfc_jax.evaluation.regression import correlation, line

# Per eye, the subject's right one first: corners, and the upper lid's points above the lower lid's.
_EYES = (((36, 39), (37, 41), (38, 40)), ((42, 45), (43, 47), (44, 46)))
_MOUTH, _LIPS = (48, 54), (62, 66)


def eye_openings(points: np.ndarray) -> np.ndarray:
    """Distance of the lids over the eye's width (..., 2), right and left, of points (..., 68, 2);
    NaN where a point is."""
    openings = [
        _ratio((_distance(points, outer) + _distance(points, inner)) / 2.0, points, corners)
        for corners, outer, inner in _EYES
    ]
    return np.stack(openings, axis=-1)


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """Distance of the inner lips over the mouth's width (...) of points (..., 68, 2); NaN where a
    point is."""
    return _ratio(_distance(points, _LIPS), points, _MOUTH)


def _distance(points: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    return np.linalg.norm(points[..., pair[0], :] - points[..., pair[1], :], axis=-1)


def _ratio(height: np.ndarray, points: np.ndarray, corners: tuple[int, int]) -> np.ndarray:
    """Height over the distance of the corners; NaN where they coincide."""
    width = _distance(points, corners)
    return height / np.where(width > 0.0, width, np.nan)


def opening_scores(
    predicted: np.ndarray, true: np.ndarray, blink: np.ndarray, jaw_open: np.ndarray
) -> dict[str, dict[str, Any]]:
    """How predicted openings follow the annotated ones.

    Args:
      predicted, true: (n, 68, 2) pixels, NaN where there is none.
      blink: (n, 2) the fitted weights `eyeBlink` of the right and the left eye.
      jaw_open: (n,) the fitted weights `jawOpen`.

    Returns:
      for ``eyes`` (both of all faces) and ``mouth`` the ``n``, ``slope`` and ``bias`` of `line`,
      the ``correlation`` of both openings, and that of the fitted weight with the annotated
      opening: ``blink_correlation``, ``jaw_open_correlation``. Eyes that are not annotated, as
      the far one of a profile, take no part.
    """
    eyes, true_eyes = eye_openings(predicted), eye_openings(true)
    mouth, true_mouth = mouth_opening(predicted), mouth_opening(true)
    return {
        "eyes": {
            **line(eyes.ravel(), true_eyes.ravel()),
            "correlation": correlation(eyes.ravel(), true_eyes.ravel()),
            "blink_correlation": correlation(blink.ravel(), true_eyes.ravel()),
        },
        "mouth": {
            **line(mouth, true_mouth),
            "correlation": correlation(mouth, true_mouth),
            "jaw_open_correlation": correlation(jaw_open, true_mouth),
        },
    }
