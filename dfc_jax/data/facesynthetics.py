"""FaceSynthetics (Wood et al., "Fake it till you make it", ICCV 2021): photo-real renders.

Pictures ``NAME.jpg`` beside ``NAME.pts`` of 70 points, the 68 of iBUG and the pupils, counted from
1. They are projected from the surface: the head may hide them, those of the jaw as well. Masks
``NAME_seg.png`` of 19 classes, where they are there, tell the face from what covers it: spectacles,
headwear, masks. A beard and the inside of the mouth do not count (see `AnnotatedFace.mask`): the
surface under the one shows in part, and the other is none.
"""

import os
from pathlib import Path

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, FaceSet, Masks
from dfc_jax.data.ibug import list_ibug, photo_beside, read_pts
from dfc_jax.data.masks import TrueMask
from dfc_jax.landmarks68 import N_LANDMARKS

N_POINTS = 70
# Classes of a mask: skin, nose, eyes, brows, ears and lips.
FACE = (1, 2, 3, 4, 5, 6, 7, 8, 10, 11)
MOUTH_INSIDE, BEARD, IGNORED = 9, 14, 255


def facesynthetics(folder: str | os.PathLike[str]) -> FaceSet[Path]:
    """The faces of a folder of FaceSynthetics, by name.

    Raises:
      DatasetError: no such folder, or no ``.pts`` file in it.
    """
    return FaceSet(str(folder), list_ibug(folder), _read_face)


def _read_face(annotation: Path) -> AnnotatedFace:
    points = read_pts(annotation, N_POINTS)[:N_LANDMARKS]
    mask = annotation.with_name(f"{annotation.stem}_seg.png")
    return AnnotatedFace(
        photo=photo_beside(annotation),
        points=points,
        name=annotation.stem,
        jaw="surface",
        mask=TrueMask(mask, face_of_classes) if mask.is_file() else None,
    )


def face_of_classes(classes: np.ndarray) -> Masks:
    """The face in classes (H, W), (H, W) bool, and where that counts, as the module says."""
    return np.isin(classes, FACE), ~np.isin(classes, (MOUTH_INSIDE, BEARD, IGNORED))
