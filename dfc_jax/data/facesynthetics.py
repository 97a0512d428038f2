"""FaceSynthetics (Wood et al., "Fake it till you make it", ICCV 2021): photo-real renders.

Pictures ``NAME.jpg`` beside ``NAME.pts`` of 70 points, the 68 of iBUG and the pupils, counted from
1. They are projected from the surface: the head may hide them, those of the jaw as well.
"""

import os
from pathlib import Path

from dfc_jax.data.faces import AnnotatedFace, FaceSet
from dfc_jax.data.ibug import list_ibug, photo_beside, read_pts
from dfc_jax.landmarks68 import N_LANDMARKS

N_POINTS = 70


def facesynthetics(folder: str | os.PathLike[str]) -> FaceSet[Path]:
    """The faces of a folder of FaceSynthetics, by name.

    Raises:
      DatasetError: no such folder, or no ``.pts`` file in it.
    """
    return FaceSet(str(folder), list_ibug(folder), _read_face)


def _read_face(annotation: Path) -> AnnotatedFace:
    points = read_pts(annotation, N_POINTS)[:N_LANDMARKS]
    return AnnotatedFace(photo_beside(annotation), points, annotation.stem, jaw="surface")
