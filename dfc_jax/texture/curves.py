"""Soft regions of a face by curves through its landmarks: distances, insides, steps (NumPy)."""

import numpy as np
from scipy.spatial import cKDTree


def soft_step(x: np.ndarray, soft: float) -> np.ndarray:
    """0 below, 1 above zero, over about `soft` on either side."""
    return 1.0 / (1.0 + np.exp(-np.clip(2.0 * x / soft, -60.0, 60.0)))


def bell(distance: np.ndarray, width: float) -> np.ndarray:
    """1 at distance 0, a Gaussian of standard deviation `width`."""
    return np.exp(-0.5 * (distance / width) ** 2)


def spline(points: np.ndarray) -> np.ndarray:
    """Ten points per segment of a Catmull-Rom spline through points (N, 3)."""
    p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0.0, 1.0, 10)[:, None, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    cubic = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
    cubic = (cubic + (3 * b - a - 3 * c + d) * t**3) / 2.0
    return cubic.transpose(1, 0, 2).reshape(-1, 3)


def nearest(points: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (V,) of points (V, C) to a curve (N, C), and which of its points is nearest: the
    first, where two are one, as the ends of segments are."""
    distinct, first = np.unique(curve, axis=0, return_index=True)
    distance, at = cKDTree(distinct).query(points)
    return distance, first[at]


def folded(points: np.ndarray) -> np.ndarray:
    """Both halves of a face in model space laid onto the subject's right, where landmarks 17-21 and
    36-41 lie."""
    return points * np.where(points[:, :1] > 0, [[-1.0, 1.0, 1.0]], 1.0)


def signed_distance(points: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Distance (V,) of points (V, 2) to a closed outline (N, 2), positive inside."""
    ends = np.roll(outline, -1, axis=0)
    crossings = np.zeros(len(points), int)
    for (x0, y0), (x1, y1) in zip(outline, ends, strict=True):
        spans = (y0 > points[:, 1]) != (y1 > points[:, 1])
        at = x0 + (points[:, 1] - y0) * (x1 - x0) / (y1 - y0 if y1 != y0 else 1.0)
        crossings += spans & (points[:, 0] < at)
    distance, _ = nearest(points, outline)
    return np.where(crossings % 2 == 1, distance, -distance)
