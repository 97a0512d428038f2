"""CFP (Sengupta et al., "Frontal to Profile Face Verification in the Wild", WACV 2016).

Photographs ``NAME.jpg`` of heads seen from the front and from the side, in a folder, beside it one
file of the folder's name with ``.npz``, which holds `names` (n,) and `points` (n, 68, 2): pixels
from 0, NaN where there is none. 30 points of one half of the face are placed by hand. The other
half of a profile is hidden; that of a frontal face is seen but not annotated. The jaw points
follow the jaw *bone*, which is the contour of a frontal face alone.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np

from dfc_jax.crops import box_of_points
from dfc_jax.data.faces import AnnotatedFace, FaceSet
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import MIRROR, N_LANDMARKS

PROFILE = "_profile"
# The landmarks in the plane of symmetry.
_MIDDLE = np.flatnonzero(np.arange(N_LANDMARKS) == MIRROR)


def cfp(folder: str | os.PathLike[str]) -> FaceSet[str]:
    """The faces of a folder of CFP, in the order of the ``.npz`` file beside it.

    Names that end with ``_profile`` are profiles; all others are frontal faces.

    Raises:
      DatasetError: no such folder, no ``.npz`` file beside it, or not one as in the module.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder; give the one with the photographs")
    names, points = _read_table(folder.with_name(f"{folder.name}.npz"))
    by_name = dict(zip(names.tolist(), points, strict=True))
    return FaceSet(str(folder), list(by_name), partial(_read_face, folder, by_name))


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Names (n,) and points (n, 68, 2)."""
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file; the points of CFP lie in it")
    try:
        with np.load(path) as table:
            names, points = table["names"], table["points"]
    except Exception as error:  # a broken file makes NumPy raise almost anything
        raise DatasetError(f"{path}: not a readable table of CFP; copy it again") from error
    shape = (len(names) if names.ndim == 1 else 0, N_LANDMARKS, 2)
    if names.dtype.kind != "U" or points.shape != shape or points.dtype.kind != "f":
        raise DatasetError(f"{path}: has no names and points as CFP has them; copy it again")
    return names, points


def _read_face(folder: Path, points: dict[str, np.ndarray], name: str) -> AnnotatedFace:
    here = points[name].astype(np.float64)
    here[~np.isfinite(here).all(axis=-1)] = np.nan
    photo, profile = folder / f"{name}.jpg", name.endswith(PROFILE)
    if not np.isfinite(here[_MIDDLE]).all(axis=-1).sum() > 1:
        raise DatasetError(f"{photo}: too few of its points are annotated; leave it out")
    return AnnotatedFace(
        photo=photo,
        points=here,
        name=name,
        jaw="surface" if profile else "contour",
        profile=profile,
        box=None if profile else box_of_points(_both_halves(here)),
    )


def _both_halves(points: np.ndarray) -> np.ndarray:
    """Points (68, 2), of which one half is annotated, and the same (68, 2) mirrored, (136, 2).

    The mirror is the straight line through the landmarks in the plane of symmetry.
    """
    middle = points[_MIDDLE]
    middle = middle[np.isfinite(middle).all(axis=-1)]
    centre = middle.mean(axis=0)
    along = np.linalg.svd(middle - centre)[2][0]
    reflection = 2.0 * np.outer(along, along) - np.eye(2)
    return np.concatenate([points, (points - centre) @ reflection + centre])
