"""Faces that come with a mask instead of points: reading it, and their landmark box."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfc_jax.crops import box_of_points
from dfc_jax.data.faces import Masks
from dfc_jax.errors import DatasetError
from dfc_jax.types import ByValue

# How far the box reaches above the eyes and below the mouth, in eye-to-mouth distances, and its
# width over its height: between the medians of the points of HELEN's training faces, which are
# mostly frontal (0.41, 0.66, 1.03), and of CFP's training profiles (0.30, 0.59, 0.97).
_ABOVE, _BELOW, _ASPECT = 0.35, 0.63, 1.0


@dataclass(frozen=True, eq=False)
class TrueMask(ByValue):
    """A face's `AnnotatedFace.mask`: reads the file when it is called; equal where both fields are.

    Attributes:
      path: a mask's file, see `read_mask`.
      of: makes of its classes (H, W) where the face is and where that counts.
    """

    path: Path
    of: Callable[[np.ndarray], Masks]

    def __call__(self) -> Masks:
        return self.of(read_mask(self.path))


def read_mask(path: Path) -> np.ndarray:
    """The classes (H, W) uint8 of a mask in a picture file without colours.

    Raises:
      DatasetError: the file is missing or not such a picture.
    """
    import cv2  # here: packed faces need no decoder

    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise DatasetError(f"{path}: not a readable mask of one class a pixel; copy it again")
    return mask


def box_of_mask(eyes: np.ndarray, mouth: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Landmark box (4,) x, y, width, height of masks (H, W) bool: eyes, mouth, and face with skin,
    nose, eyes and mouth; NaN without eyes above a mouth.

    Its height follows from the distance between eyes and mouth. It is as wide as the face between
    these rows, but at most as wide as a landmark box is: the face may include ears and neck, which
    lie away from the eyes and the mouth and are left out.
    """
    if not (eyes.any() and mouth.any()):
        return np.full(4, np.nan)
    eyes_yx, mouth_yx = (np.argwhere(mask).mean(axis=0) for mask in (eyes, mouth))
    distance = mouth_yx[0] - eyes_yx[0]
    rows = face[round(eyes_yx[0]) : round(mouth_yx[0]) + 1]
    rows = rows[rows.any(axis=1)]
    if distance <= 0.0 or len(rows) == 0:
        return np.full(4, np.nan)
    low = np.percentile(rows.argmax(axis=1), 5)
    high = rows.shape[1] - 1.0 - np.percentile(rows[:, ::-1].argmax(axis=1), 5)
    top, bottom = eyes_yx[0] - _ABOVE * distance, mouth_yx[0] + _BELOW * distance
    half = min(high - low, _ASPECT * (bottom - top)) / 2.0
    centre = np.clip((eyes_yx[1] + mouth_yx[1]) / 2.0, low + half, high - half)
    return box_of_points(np.array([[centre - half, top], [centre + half, bottom]]))
