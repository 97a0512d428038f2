"""AFLW-PIFA: the faces of AFLW that Jourabloo and Liu ("Pose-Invariant 3D Face Alignment", ICCV
2015) chose for all poses to be equally frequent, 1,299 of them to test on.

The layout is documented nowhere; this is the one in which it is passed on, and what the reader
takes. MATLAB files count from 1; 1 is subtracted here.

``TestImages/1.jpg``, ``2.jpg``, ...
    the photographs, named by their row.
``BoundingBox.mat``
    `bboxesT` (n, 4): x, y, width, height.
``Landmark.mat``
    `phisT` (n, 63): the x of AFLW's 21 points (see `dfc_jax.landmarks21`), then their y, then 1
    where they are visible and 0 where not. Hidden points are left out.

``TrainImages``, `bboxesTr` and `phisTr` beside them are not read. Copies with 102 columns hold the
34 points of a later work (AFLW-LFPA), whose order is not known; they are refused.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, FaceSet
from dfc_jax.data.lp import read_mat
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks21 import N_LANDMARKS21
from dfc_jax.landmarks68 import N_LANDMARKS

BOXES, POINTS, PHOTOS = "BoundingBox.mat", "Landmark.mat", "TestImages"


def aflw_pifa(folder: str | os.PathLike[str]) -> FaceSet[int]:
    """The test faces of AFLW-PIFA in their order, with 21 points and boxes; keys are rows from 0.

    Raises:
      DatasetError: a file is missing, damaged or of another layout than the module's.
    """
    folder = Path(folder)
    boxes = read_mat(folder / BOXES, {"bboxesT": (None, 4)})["bboxesT"]
    stored = read_mat(folder / POINTS, {"phisT": (len(boxes), None)}, finite=False)["phisT"]
    if stored.shape[1] != 3 * N_LANDMARKS21:
        raise DatasetError(
            f"{folder / POINTS}: phisT has {stored.shape[1]} columns, not x, y and visibility of "
            f"{N_LANDMARKS21} points; give the annotation of 21 points"
        )
    return FaceSet(str(folder), range(len(boxes)), partial(_read_face, folder, boxes, stored))


def _read_face(folder: Path, boxes: np.ndarray, stored: np.ndarray, row: int) -> AnnotatedFace:
    photo = folder / PHOTOS / f"{row + 1}.jpg"
    if not photo.is_file():
        raise DatasetError(f"{photo}: there is no such photograph; copy {PHOTOS} again")
    x, y, visible = stored[row].reshape(3, N_LANDMARKS21)
    points = np.where(visible[:, None] > 0.0, np.stack([x, y], axis=-1) - 1.0, np.nan)
    if not np.isfinite(points).all(axis=-1).any():
        raise DatasetError(f"{folder / POINTS}: row {row + 1} has no visible point; leave it out")
    if not (boxes[row, 2:] > 0.0).all():
        raise DatasetError(f"{folder / BOXES}: the box of row {row + 1} is empty; leave it out")
    return AnnotatedFace(
        photo=photo,
        points=np.full((N_LANDMARKS, 2), np.nan),
        name=photo.stem,
        box=boxes[row] - [1.0, 1.0, 0.0, 0.0],
        points21=points,
    )
