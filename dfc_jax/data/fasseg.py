"""FASSEG (Khan, Mauro and Leonardi, "Multi-class semantic segmentation of faces", ICIP 2015).

Photographs ``NAME.jpg`` beside masks ``NAME.png``, without points. `frontal` has frontal faces,
`multipose` heads of Pointing'04 in known poses, which its file names give:
``p01140+0-90`` is person 01, series 1, number 40, pitch +0, yaw -90 degrees. The persons looked at
marks on a wall, so a true pose can be ten degrees off; roll is unknown.

As masks of the face they leave two things open: skin is the neck's as well, and hair the brows'. So
what of a mask counts (see `AnnotatedFace.mask`) follows from the landmark box, which ends at the
chin: below the lines from the chin, under the mouth, to the sides of the box at the height of the
mouth, skin may be the neck's and does not count, and neither does hair inside the box, which may be
brows or hang over the face.
"""

import os
import re
from pathlib import Path

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, FaceSet, Masks
from dfc_jax.data.masks import TrueMask, box_of_mask, read_mask
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import N_LANDMARKS

# Classes of a mask; skin has the ears and the neck, 2 is hair with the brows.
SKIN, HAIR, EYES, NOSE, MOUTH = 1, 2, 3, 4, 5
FACE = (SKIN, EYES, NOSE, MOUTH)
_POSE = re.compile(r"p\d{5}([+-]\d{1,2})([+-]\d{1,2})")


def fasseg(folder: str | os.PathLike[str]) -> FaceSet[Path]:
    """The faces of a folder of FASSEG, by name, with boxes of their masks, and poses where their
    names tell them; ``multipose/p0[123]*.png`` gives those of three persons.

    Raises:
      DatasetError: no such folder, or no mask in it.
    """
    folder = Path(folder)
    inside = folder.glob("*.png") if folder.is_dir() else folder.parent.glob(folder.name)
    found = sorted(path for path in inside if path.suffix == ".png")
    if not found:
        raise DatasetError(f"{folder}: holds no .png masks; give a folder of FASSEG")
    return FaceSet(str(folder), found, _read_face)


def _read_face(path: Path) -> AnnotatedFace:
    box, pose = _box(read_mask(path)), _POSE.fullmatch(path.stem)
    if not np.isfinite(box).all():
        raise DatasetError(f"{path}: this mask has no eyes above a mouth; leave it out")
    return AnnotatedFace(
        photo=path.with_suffix(".jpg"),
        points=np.full((N_LANDMARKS, 2), np.nan),
        name=path.stem,
        pose_deg=np.array([float(pose[2]), float(pose[1]), np.nan]) if pose else None,
        box=box,
        mask=TrueMask(path, face_of_classes),
    )


def _box(classes: np.ndarray) -> np.ndarray:
    return box_of_mask(classes == EYES, classes == MOUTH, np.isin(classes, FACE))


def face_of_classes(classes: np.ndarray) -> Masks:
    """The face in classes (H, W), (H, W) bool, and where that counts, as the module says.

    The classes have to have eyes above a mouth.
    """
    left, top, width, height = _box(classes)
    rows, columns = np.ogrid[: classes.shape[0], : classes.shape[1]]
    inside = (rows >= top) & (rows <= top + height) & (columns >= left) & (columns <= left + width)
    mouth_y, mouth_x = np.argwhere(classes == MOUTH).mean(axis=0)
    # The lowest row of the face in each column: the chin's below the mouth, the mouth's at the
    # sides and beyond.
    sides = [min(left, mouth_x - 1.0), mouth_x, max(left + width, mouth_x + 1.0)]
    lowest = np.interp(columns[0], sides, [mouth_y, top + height, mouth_y])
    open_ = ((classes == SKIN) & (rows > lowest)) | ((classes == HAIR) & inside)
    return np.isin(classes, FACE), ~open_
