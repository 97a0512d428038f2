"""The 68 landmarks in the iBUG layout."""

import os

import numpy as np

from dfc_jax.files import written_aside


def write_pts(path: str | os.PathLike[str], landmarks_px: np.ndarray) -> None:
    """Write points (N, 2), photo pixels from 0, as ``.pts``, which counts from 1.

    Raises:
      ExportError: the file cannot be written.
    """
    points = np.asarray(landmarks_px, np.float64) + 1.0
    lines = ["version: 1", f"n_points: {len(points)}", "{"]
    lines += [f"{x:.4f} {y:.4f}" for x, y in points.tolist()]
    with written_aside(path) as aside:
        aside.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")
